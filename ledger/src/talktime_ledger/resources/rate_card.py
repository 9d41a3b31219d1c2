"""`RateCard`: what one model or transport costs, effective-dated. Zero is a price; missing is not."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from .schema import Column, Kind, MoneyString, RateString, Rule, Spec
from .status import RateCardStatusFields


class Vendor(StrEnum):
    """Who bills."""

    OPENAI = "openai"
    GOOGLE = "google"
    LIVEKIT = "livekit"
    SELFHOSTED = "selfhosted"


MeterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,40}$")]


class MeterRate(Spec):
    """Exactly one of: a price, the same price as another meter, free of charge, or not offered by the model."""

    usd_per_million: RateString | None = Field(None, description="USD per million tokens.")
    usd_per_hour: RateString | None = Field(None, description="USD per hour, for meters in seconds.")
    usd_per_gib: RateString | None = Field(None, description="USD per GiB, for meters in bytes.")
    same_as: MeterName | None = Field(None, description="Another meter of this entry.")
    free: bool | None = None
    absent: bool | None = Field(None, description="The model has no such meter; usage of it is refused.")

    cel: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.usdPerMillion), has(self.usdPerHour), has(self.usdPerGib), has(self.sameAs),"
            " has(self.free) && self.free, has(self.absent) && self.absent].filter(x, x).size() == 1",
            "a meter needs exactly one of usdPerMillion, usdPerHour, usdPerGib, sameAs, free: true, absent: true",
        ),
    )


class AllowancePeriod(StrEnum):
    """When an allowance starts anew (UTC)."""

    DAY = "Day"
    MONTH = "Month"


class FreeAllowance(Spec):
    """What one provider account gets of a meter without further charge. Usage is still priced; reconcile shows it."""

    quantity: Annotated[int, Field(ge=1, le=10**18)] = Field(
        description="In the meter's unit: tokens, seconds or bytes."
    )
    per: AllowancePeriod = AllowancePeriod.MONTH


class RateEntry(Spec):
    """Prices from `effectiveFrom` (inclusive, UTC) until the next entry."""

    effective_from: datetime
    meters: dict[MeterName, MeterRate] = Field(min_length=1, max_length=32)
    free_allowance: dict[MeterName, FreeAllowance] = Field(
        default_factory=dict,
        max_length=8,
        description="By meter: the free quota of a provider account, or what a plan's monthly fee includes. "
        "It belongs to the account, not to a session: sessions are priced without it, reconcile and economics show it.",
    )
    monthly_fee: MoneyString | None = Field(
        None, description="USD a month for the plan these prices belong to, whatever is used; in no session's price."
    )
    source: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    checked_at: date
    historic: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None, description="Why this entry is kept though it is no current price, e.g. `published-comparison`."
    )


class RateCardSpec(Spec):
    """`RateCard.spec` (cluster-wide): one vendor and one exact model name."""

    provider: Vendor
    model: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    entries: tuple[RateEntry, ...] = Field(min_length=1, max_length=64)


RATE_CARD = Kind(
    kind="RateCard",
    plural="ratecards",
    singular="ratecard",
    short_names=("rate",),
    namespaced=False,
    spec=RateCardSpec,
    status=RateCardStatusFields,
    description="Prices of one model or transport, effective-dated.",
    ready="the ledger prices new usage with this card.",
    columns=(
        Column("Provider", ".spec.provider"),
        Column("Model", ".spec.model"),
        Column("Entries", ".status.entries", "integer"),
        Column("Effective", ".status.effectiveFrom"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
