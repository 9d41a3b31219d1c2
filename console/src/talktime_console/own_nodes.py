"""What nodes of our own cost a month beside what the interviews on them were charged, from the ledger's figures. Pure.

Worked example: 2 nodes of 70 USD, 100,000 participant-minutes on them, a card of 0.0024 USD an hour: 140.00 for the
nodes, 4.00 of it used, 136.00 idle, 0.0014 USD a participant-minute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ratio, shown
from talktime_ledger.core.pricing import price_known
from talktime_ledger.core.rates import RateSnapshot
from talktime_ledger.wire import TransportRow

from .economics import Nodes
from .tables import Column, Table


@dataclass(frozen=True)
class OwnNodes:
    """One pool, USD a month. ``used`` None: no card says what a minute on own nodes costs."""

    pool: str
    seconds: int
    nodes: int
    cost: Decimal
    used: Decimal | None

    @property
    def idle(self) -> Decimal | None:
        """What nobody was charged for; negative where the card asks more than the nodes cost."""
        return None if self.used is None else self.cost - self.used

    @property
    def per_minute(self) -> Decimal:
        """A participant-minute, at the load there was."""
        return ratio(self.cost * 60, Decimal(self.seconds))


def own_nodes(rows: Sequence[TransportRow], nodes: Nodes, rates: RateSnapshot | None) -> list[OwnNodes]:
    """Of the pools somebody used: as many nodes as the peak and the traffic need."""
    found = []
    for row in rows:
        if not row.selfhosted_seconds:
            continue
        by_peak = math.ceil(Decimal(row.peak_sessions) / nodes.sessions_per_node)
        by_traffic = math.ceil(Decimal(row.selfhosted_egress_bytes) / nodes.traffic_bytes)
        number = max(1, by_peak, by_traffic) + nodes.spare
        used = {Meter.PARTICIPANT_SECONDS: row.selfhosted_seconds}
        charged = None if rates is None else price_known(used, rates)
        found.append(OwnNodes(row.pool or "", row.selfhosted_seconds, number, number * nodes.price, charged))
    return found


def own_nodes_table(pools: Sequence[OwnNodes]) -> Table:
    """As ``talktime economics`` shows it."""
    columns = (
        Column("pool", "POOL"),
        Column("participant_minutes", "PART. MINUTES", right=True),
        Column("nodes", "NODES", right=True),
        Column("nodes_usd", "NODES USD", right=True),
        Column("used_usd", "USED", right=True),
        Column("idle_usd", "IDLE", right=True),
        Column("per_minute_usd", "PER MINUTE", right=True),
    )
    cells = tuple(
        (
            one.pool,
            one.seconds // 60,
            one.nodes,
            shown(one.cost, 2),
            None if one.used is None else shown(one.used, 2),
            None if one.idle is None else shown(one.idle, 2),
            shown(one.per_minute, 6),
        )
        for one in pools
    )
    return Table("own_nodes", "Nodes of your own a month: what was used of them, and what stood idle", columns, cells)
