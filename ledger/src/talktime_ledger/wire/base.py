"""What all messages share: frozen models, money and names as they travel."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer, StringConstraints

from talktime_ledger.core import money

Usd = Annotated[Decimal, PlainSerializer(money.wire, return_type=str, when_used="json")]
"""USD; a decimal string in JSON, exact to 1e-9."""

NameText = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Wire(BaseModel):
    """Frozen; unknown fields are ignored so that old and new replicas understand each other."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
