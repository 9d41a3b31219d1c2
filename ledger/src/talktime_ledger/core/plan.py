"""A month of the plan that a transport card belongs to: its fee, what it includes, what is left and beyond. Pure.

Worked example, LiveKit Cloud's card: 50 USD with 150,000 minutes and 250 GB. 160,000 minutes and 100 GB used: none and
150 GB left, beyond it 10,000 x 0.0005 = 5 USD.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.pricing import price_known
from talktime_ledger.core.rates import RateEntry, RateSnapshot


@dataclass(frozen=True, slots=True)
class Plan:
    """USD and quantities of one month; a meter that is not in `included` is billed from the first on."""

    fee_usd: Decimal
    included: Mapping[Meter, int]
    used: Mapping[Meter, int]
    beyond_usd: Decimal

    def left(self, meter: Meter) -> int | None:
        """Of what is included; None: nothing of the kind is."""
        return None if meter not in self.included else max(0, self.included[meter] - self.used.get(meter, 0))


def plan(entry: RateEntry, rates: RateSnapshot, used: Mapping[Meter, int], month: datetime) -> Plan:
    """What the account used in that month, beside what the entry includes (a daily allowance: each day)."""
    days = monthrange(month.year, month.month)[1]
    included = {
        meter: allowance.quantity * (days if allowance.per == "Day" else 1)
        for meter, allowance in entry.allowances.items()
    }
    beyond = {meter: max(0, count - included.get(meter, 0)) for meter, count in used.items()}
    return Plan(entry.monthly_fee, included, used, price_known(beyond, rates))


def month_start(at: datetime) -> datetime:
    """Midnight UTC of its first day."""
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(start: datetime) -> datetime:
    """The first moment of the month after."""
    return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)


def months(since: datetime, until: datetime) -> Iterator[datetime]:
    """The first moments of the months that have a part in since..until (exclusive)."""
    start = month_start(since)
    while start < until:
        yield start
        start = next_month(start)
