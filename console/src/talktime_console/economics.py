"""Managed or self-hosted transport, from stated or measured inputs; what the article's table says beside it. Pure.

Worked example, the article's: 30 minutes, two participants, 0.005 USD per participant-minute, a node of 200 USD:
a session costs 60 x 0.005 = 0.30, so 200 / 0.30 = 666.67 sessions break even and the 667th is the first to earn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO, shown, usd
from talktime_ledger.core.pricing import price
from talktime_ledger.core.rates import RateEntry, RateSnapshot
from talktime_ledger.resources.pool import Autoscaling

from .comparison import Transport
from .published import Published, TransportRow
from .shape import Shape

# "peak_concurrent = sessions_per_month * (avg_duration_min / 60) / 20": a month's talk in 20 hours, its guess.
PEAK_HOURS = 20
# Sessions at once that the article gives a node of 8 vCPU and 16 GB.
PUBLISHED_PER_NODE = 500
# More nodes than anyone runs for interviews: where the search for a break-even gives up.
MOST_NODES = 200


@dataclass(frozen=True)
class Managed:
    """A managed transport: prices by meter, the plan's fee (USD a month) and what it includes."""

    transport: Transport
    fee: Decimal = ZERO
    included: tuple[tuple[Meter, int], ...] = ()

    def month(self, sessions: int, shape: Shape) -> Decimal:
        """USD of a month with so many sessions: the fee, and what goes beyond what it includes."""
        used = self.transport.meters(shape, sessions)
        for meter, quantity in self.included:
            used[meter] = max(0, used.get(meter, 0) - quantity)
        return usd(self.fee + price(used, self.transport.rates))


def managed_of(entry: RateEntry, rates: RateSnapshot, kbit_per_second: Decimal) -> Managed:
    """From a card's entry. A daily allowance counts 30 times a month."""
    included = tuple(
        (meter, allowance.quantity * (30 if allowance.per == "Day" else 1))
        for meter, allowance in entry.allowances.items()
    )
    return Managed(Transport(rates, kbit_per_second), entry.monthly_fee, included)


@dataclass(frozen=True)
class Nodes:
    """Our own: USD a month and bytes included per node, sessions one carries at once, nodes kept beyond the need.

    ``peak_share``: sessions at once at the peak, per session of the month; None = the article's formula.
    """

    price: Decimal = Decimal(200)
    traffic_bytes: int = 10 * 10**12
    sessions_per_node: int = PUBLISHED_PER_NODE
    spare: int = 0
    peak_share: Decimal | None = None

    def peak(self, sessions: int, shape: Shape) -> Decimal:
        """Sessions at once at the month's peak."""
        share = shape.minutes / 60 / PEAK_HOURS if self.peak_share is None else self.peak_share
        return sessions * share

    def needed(self, sessions: int, shape: Shape, traffic_per_session: int) -> int:
        """Nodes that carry the peak and whose traffic allowances cover the month; at least one."""
        by_peak = math.ceil(self.peak(sessions, shape) / self.sessions_per_node)
        by_traffic = math.ceil(Decimal(sessions * traffic_per_session) / self.traffic_bytes)
        return max(1, by_peak, by_traffic) + self.spare


def density(stated: int | None, measured: bool) -> int:
    """Sessions at once on a node. What was measured of sessions is not divided by somebody's promise of a node: there
    it is what an SFUPool puts on one unless told otherwise, which docs/density.md measured."""
    if stated is not None:
        return stated
    return Autoscaling.model_validate({}).sessions_per_node if measured else PUBLISHED_PER_NODE


def published_servers(peak: Decimal, sessions_per_node: int = PUBLISHED_PER_NODE) -> int:
    """The article's own formula: ``max(1, int(peak / 500) + 1)``."""
    return max(1, int(peak / sessions_per_node) + 1)


@dataclass(frozen=True)
class Case:
    """What is compared: a shape of sessions, nodes of our own, one managed transport."""

    shape: Shape
    nodes: Nodes
    managed: Managed

    def self_hosted(self, sessions: int) -> Decimal:
        """USD a month of the nodes needed."""
        return self.nodes_needed(sessions) * self.nodes.price

    def nodes_needed(self, sessions: int) -> int:
        """How many nodes."""
        traffic = self.managed.transport.meters(self.shape)[Meter.EGRESS_BYTES]
        return self.nodes.needed(sessions, self.shape, traffic)

    def managed_month(self, sessions: int) -> Decimal:
        """USD a month of the managed transport."""
        return self.managed.month(sessions, self.shape)

    def savings(self, sessions: int) -> Decimal:
        """What self-hosting saves a month; negative where it costs more."""
        return self.managed_month(sessions) - self.self_hosted(sessions)


@dataclass(frozen=True)
class BreakEven:
    """``exact`` sessions a month cost the same either way; ``first_profit`` is the first whole number that earns."""

    exact: Decimal
    first_profit: int
    nodes: int


def break_even(case: Case) -> BreakEven | None:
    """The smallest month in which self-hosting is cheaper; None if none up to MOST_NODES nodes is.

    Within one number of nodes the own cost is flat and the managed one never falls, so each step is searched by halves.
    """
    low = 1
    for nodes in range(case.nodes_needed(1), MOST_NODES + 1):
        high = _last(lambda n, most=nodes: case.nodes_needed(n) <= most, low)  # type: ignore[misc]
        if high < low:
            continue
        cost = nodes * case.nodes.price
        if case.managed_month(high) > cost:
            last_loss = _last(lambda n, most=cost: case.managed_month(n) <= most, low)  # type: ignore[misc]
            first = max(low, last_loss + 1)
            before, after = case.managed_month(first - 1), case.managed_month(first)
            exact = first - 1 + (cost - before) / (after - before) if first > low else Decimal(first)
            return BreakEven(usd(exact), first, nodes)
        low = high + 1
    return None


def _last(holds: Callable[[int], bool], start: int) -> int:
    """The largest n >= start for which it holds (it holds up to some n and never again); start - 1 if never."""
    if not holds(start):
        return start - 1
    step = 1
    while step < 10**12 and holds(start + step):
        step *= 2
    low, high = start + step // 2, start + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Row:
    """One number of sessions a month, in USD; ``published`` where the article has it, and why it differs."""

    sessions: int
    participant_minutes: int
    peak: Decimal
    nodes: int
    self_hosted: Decimal
    managed_published: Decimal
    managed_current: Decimal
    published: TransportRow | None
    cause: str

    @property
    def savings_published(self) -> Decimal:
        """Against the published price."""
        return self.managed_published - self.self_hosted

    @property
    def savings_current(self) -> Decimal:
        """Against the current card."""
        return self.managed_current - self.self_hosted


def row(sessions: int, then: Case, now: Case, published: Published) -> Row:
    """``then``: the case under the published price; ``now``: the same under the current card."""
    claim = next((r for r in published.economics.rows if r.sessions == sessions), None)
    minutes = then.managed.transport.meters(then.shape, sessions)[Meter.PARTICIPANT_SECONDS] // 60
    return Row(
        sessions,
        minutes,
        then.nodes.peak(sessions, then.shape),
        then.nodes_needed(sessions),
        then.self_hosted(sessions),
        then.managed_month(sessions),
        now.managed_month(sessions),
        claim,
        "" if claim is None else _cause(claim, then),
    )


def _cause(claim: TransportRow, then: Case) -> str:
    managed, own = then.managed_month(claim.sessions), then.self_hosted(claim.sessions)
    if managed == claim.managed and own == claim.self_hosted:
        return "none"
    causes = []
    if managed != claim.managed:
        causes.append(f"managed {shown(managed, 2)} from these inputs")
    if own != claim.self_hosted:
        peak = then.nodes.peak(claim.sessions, then.shape)
        by_formula = published_servers(peak, then.nodes.sessions_per_node)
        charged = claim.self_hosted / then.nodes.price
        causes.append(
            f"its formula gives int({peak.normalize():f} / {then.nodes.sessions_per_node}) + 1 = {by_formula} "
            f"server(s), its table charges {charged.normalize():f}"
        )
    return "; ".join(causes)


def recommendation(now: Case, sessions: int | None, name: str) -> str:
    """One sentence. ``name`` of the managed transport; ``sessions`` a month where one number is meant."""
    even = break_even(now)
    pays = (
        f"self-hosting never pays up to {MOST_NODES} nodes"
        if even is None
        else f"self-hosting pays from {even.first_profit:,} sessions a month"
    )
    if sessions is None:
        if even is None:
            return f"Stay on {name}: {pays}."
        return f"Below {even.first_profit:,} sessions a month take {name}, from there on nodes of your own."
    managed, own, nodes = now.managed_month(sessions), now.self_hosted(sessions), now.nodes_needed(sessions)
    told = f"At {sessions:,} sessions a month {name} costs {shown(managed, 2)} USD and {nodes} node(s) {shown(own, 2)}"
    if managed > own:
        return f"{told}: self-host, and save {shown(managed - own, 2)} USD a month."
    return f"{told}: stay on {name}; {pays}."


def table_of(then: Case, now: Case, published: Published, sessions: Sequence[int]) -> list[Row]:
    """The rows asked for."""
    return [row(number, then, now, published) for number in sessions]
