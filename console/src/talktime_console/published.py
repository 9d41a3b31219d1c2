"""The article's claims, read from ``published.yaml``. They are claims: shown beside results, never used as one."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict

FILE = Path(__file__).parent / "published.yaml"
E = TypeVar("E", bound=StrEnum)


class Claimed(BaseModel):
    """Frozen, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Claim(Claimed):
    """One column of its comparison. USD; transport in percent of AI and transport."""

    model: str
    preset: str
    per_minute: Decimal
    session: Decimal
    sessions_100: Decimal
    sessions_1000: Decimal
    transport_session: Decimal
    transport_percent: Decimal
    audio_in_usd: Decimal | None = None
    audio_out_usd: Decimal | None = None

    def preset_of(self, kind: type[E]) -> E:
        """The preset that states its inputs."""
        return kind(self.preset)


class SoftLimitedSession(Claimed):
    """The session its soft limit is said to have saved. USD and minutes, as it was and as it would have been."""

    usd: Decimal
    minutes: int
    unlimited_usd: Decimal
    unlimited_minutes: int


class TransportRow(Claimed):
    """One row of its self-hosting table: USD a month."""

    sessions: int
    managed: Decimal
    self_hosted: Decimal

    @property
    def savings(self) -> Decimal:
        """What self-hosting saves."""
        return self.managed - self.self_hosted


class PublishedEconomics(Claimed):
    """Its self-hosting table; ``break_even_text`` is the number in its text."""

    break_even_text: int
    rows: tuple[TransportRow, ...]


class Published(Claimed):
    """All of it. ``text_tokens`` and ``text_usd``: its system prompt and function calls."""

    models: dict[str, Claim]
    text_tokens: int
    text_usd: Decimal
    heading_percent: tuple[Decimal, Decimal]
    soft_limited_session: SoftLimitedSession
    economics: PublishedEconomics


@cache
def published() -> Published:
    """The claims."""
    raw = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    raw["models"] = {name: {"model": name, **claim} for name, claim in raw["models"].items()}
    return Published.model_validate(raw)
