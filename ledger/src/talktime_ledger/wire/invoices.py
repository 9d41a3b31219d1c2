"""A provider's bill on its way to the ledger, and what came of it; money as decimal strings in USD."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from talktime_ledger.core.invoice import InvoiceLine, LineKind
from talktime_ledger.core.meters import Meter
from talktime_ledger.wire.base import Label, Sha256, Usd, Wire

Item = Annotated[str, StringConstraints(min_length=1, max_length=300)]
MAX_LINES = 20_000
Signed = Annotated[Decimal, Field(max_digits=18, decimal_places=9)]


class InvoiceVendor(StrEnum):
    """Whose bill."""

    OPENAI = "openai"
    GOOGLE = "google"


class InvoiceLineWire(Wire):
    """One UTC day of one item of one billing project. `item` as on the bill; quantity in tokens or seconds."""

    day: date
    billing: Annotated[str, StringConstraints(max_length=200)] = ""
    item: Item
    kind: LineKind = LineKind.USAGE
    amount: Signed | None = Field(None, description="None in a usage report: priced at our own rate.")
    quantity: Annotated[Decimal, Field(ge=0, max_digits=24, decimal_places=9)] | None = None

    @model_validator(mode="after")
    def _tells_something(self) -> InvoiceLineWire:
        if self.amount is None and (self.quantity is None or self.kind is not LineKind.USAGE):
            raise ValueError("an amount is missing (only usage with a quantity can do without)")
        return self

    def core(self) -> InvoiceLine:
        """For the core."""
        return InvoiceLine(self.day, self.billing, self.item, self.kind, self.amount, self.quantity)


class InvoicePush(Wire):
    """A bill. `final`: the provider will not change it any more. With dry_run nothing is posted."""

    vendor: InvoiceVendor
    source: Label
    digest: Sha256
    final: bool = False
    dry_run: bool = False
    lines: tuple[InvoiceLineWire, ...] = Field(max_length=MAX_LINES)


class VarianceWire(Wire):
    """Ours against theirs for one meter; quantity + price = theirs - ours."""

    meter: Meter | None = None
    ours: int
    theirs: Decimal | None = None
    ours_usd: Usd
    theirs_usd: Usd
    quantity_usd: Usd
    price_usd: Usd


class InvoiceGroup(Wire):
    """One day of one model at one billing project. billed - estimate = variances - unmetered + residual."""

    day: date
    billing: str
    model: str
    sessions: int
    estimate: Usd
    billed: Usd
    posted: Usd = Field(description="What this run posts on top of what was posted before.")
    unmetered: Usd
    residual: Usd
    unattributed: Usd
    estimate_percent: Decimal | None
    variances: tuple[VarianceWire, ...]


class ProjectCharge(Wire):
    """Tax, credits and the like, on a Project's account and in no session."""

    namespace: str
    project: str
    day: date
    kind: LineKind
    amount: Usd
    posted: Usd


class ForeignLine(Wire):
    """What the bill says of models or billing projects that are none of ours: posted to nobody."""

    billing: str
    item: str
    amount: Usd


class AllowanceWire(Wire):
    """A free quota of the provider's account (`freeAllowance` of the card) in one of its periods, `until` exclusive."""

    model: str
    meter: Meter
    since: date
    until: date
    quantity: int = Field(description="Free, in the meter's unit.")
    ours: int = Field(description="What all our sessions count of it in that period.")
    worth: Usd = Field(description="What the free part of that would have cost: so much may a bill be lower.")


class InvoiceReport(Wire):
    """The outcome of a bill."""

    vendor: InvoiceVendor
    posted: bool
    estimate: Usd
    billed: Usd
    estimate_percent: Decimal | None
    alert: bool = Field(description="Estimate and bill differ by more than 1 %, or nothing of an estimate was billed.")
    unattributed: Usd
    groups: tuple[InvoiceGroup, ...]
    charges: tuple[ProjectCharge, ...]
    foreign: tuple[ForeignLine, ...]
    not_billed: tuple[InvoiceGroup, ...] = Field(
        description="Our days, billing projects and models, within the days of the bill, that it does not mention and "
        "that stay estimates. Of a final bill: at billing projects it is not about; the others cost nothing (`groups`)."
    )
    about: tuple[str, ...] = Field(
        (), description="Our billing projects that the bill speaks of; one empty name when no Project names any."
    )
    over_budget: tuple[str, ...] = Field(description="Projects whose account is over its budget now: namespace/name.")
    allowances: tuple[AllowanceWire, ...] = ()
