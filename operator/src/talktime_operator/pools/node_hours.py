"""How many hours a pool's nodes have had their machines this month. Pure.

Kept as what a change of their number leaves behind: so many hours until `since`, so many nodes from then on. The status
changes when a node comes or goes and with the month, not with time. What was before the first count of a month (an
operator that was away over its beginning, a pool that is older than this counter) is taken to have been as it is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from talktime_ledger.core.money import ZERO
from talktime_ledger.core.plan import month_start

TIME = "%Y-%m-%dT%H:%M:%SZ"
PLACES = Decimal("0.0001")
HOUR = Decimal(3600)


@dataclass(frozen=True)
class NodeHours:
    """`nodes` since `since`, `hours` before it in that month."""

    nodes: int
    since: datetime
    hours: Decimal = ZERO

    @classmethod
    def parse(cls, status: Mapping[str, Any]) -> NodeHours | None:
        """From `status.nodeHours`; what cannot be read is counted anew."""
        try:
            since = datetime.strptime(status["since"], TIME).replace(tzinfo=UTC)
            return cls(int(status["nodes"]), since, Decimal(status["hours"]))
        except (KeyError, TypeError, ValueError, ArithmeticError):
            return None

    def render(self) -> dict[str, str | int]:
        """`status.nodeHours`."""
        hours = self.hours.quantize(PLACES, rounding=ROUND_HALF_EVEN)
        return {"nodes": self.nodes, "since": self.since.strftime(TIME), "hours": str(hours)}

    def until(self, now: datetime) -> Decimal:
        """Hours of all nodes together."""
        return self.hours + self.nodes * _hours(self.since, now)

    def average(self, begun: datetime, now: datetime) -> Decimal:
        """Nodes at once, since the month or the pool began."""
        length = _hours(begun, now)
        return self.until(now) / length if length else Decimal(self.nodes)


def begin(created: datetime | None, now: datetime) -> datetime:
    """From when on the pool costs something this month."""
    start = month_start(now)
    return start if created is None else max(start, created.astimezone(UTC))


def count(before: NodeHours | None, nodes: int, created: datetime | None, now: datetime) -> NodeHours:
    """`nodes`: those that have a machine now."""
    begun = begin(created, now)
    if before is None:
        return NodeHours(nodes, begun)
    if before.since < begun:
        before = NodeHours(before.nodes, begun)
    return before if before.nodes == nodes else NodeHours(nodes, now.replace(microsecond=0), before.until(now))


def _hours(since: datetime, now: datetime) -> Decimal:
    return Decimal(max(0, int((now - since).total_seconds()))) / HOUR
