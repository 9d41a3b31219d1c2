"""The free quota of a provider account beside what the books count of it: why a bill may be below its estimate.

A quota belongs to the account, not to a session, so no session is priced with it. It is shown for each day or month
(UTC) that a bill speaks of, over all Projects: the provider does not ask which of them used it up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO, per_million
from talktime_ledger.core.rates import Allowance, PriceUnknown, RateBook, RateSnapshot
from talktime_ledger.store import invoices
from talktime_ledger.store.database import Connection
from talktime_ledger.wire.invoices import AllowanceWire

DAY = "Day"


@dataclass(frozen=True, slots=True)
class Quota:
    """One meter's quota of one period, its end exclusive, with the prices of its first day on the bill."""

    model: str
    meter: Meter
    since: date
    until: date
    allowance: Allowance
    rates: RateSnapshot


def quotas(vendor: str, days: Iterable[date], book: RateBook) -> list[Quota]:
    """The quotas that hold on any of these days, each period once (pure)."""
    found: dict[tuple[str, Meter, date], Quota] = {}
    models = sorted({card.model for card in book.cards if card.vendor == vendor})
    for day in sorted(days):
        for model in models:
            try:
                entry, rates = book.in_force(vendor, model, invoices.bounds(day)[0])
            except PriceUnknown:
                continue
            for meter, allowance in sorted(entry.allowances.items()):
                since, until = period(day, allowance)
                found.setdefault((model, meter, since), Quota(model, meter, since, until, allowance, rates))
    return [found[key] for key in sorted(found)]


def period(day: date, allowance: Allowance) -> tuple[date, date]:
    """The day or month in which it counts, its end exclusive."""
    if allowance.per == DAY:
        return day, day + timedelta(days=1)
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)


async def used(connection: Connection, vendor: str, days: Iterable[date], book: RateBook) -> list[AllowanceWire]:
    """Each quota with what our sessions used of it, and what that would have cost."""
    told = []
    for quota in quotas(vendor, days, book):
        ours = await invoices.counted(connection, vendor, quota.model, quota.meter, quota.since, quota.until)
        free = min(ours, quota.allowance.quantity)
        rate = quota.rates.prices.get(quota.meter, ZERO)
        told.append(
            AllowanceWire(
                model=quota.model,
                meter=quota.meter,
                since=quota.since,
                until=quota.until,
                quantity=quota.allowance.quantity,
                ours=ours,
                worth=per_million(free, rate),
            )
        )
    return told
