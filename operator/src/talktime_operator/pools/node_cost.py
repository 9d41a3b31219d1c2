"""What a pool's own nodes have cost this month, and how much of it the interviews on them have paid for. Pure.

Nodes cost whether or not anybody talks. The used part is the seconds of all connections at the card
`selfhosted/participant`, as sessions are charged; the rest stood idle. So the card is right when it recovers what the
nodes cost at the load one has: the cost of a participant-minute, times 60, is the price per hour that would leave
nothing idle.

Worked example: 2 nodes of 70 USD, half of the month over, 100,000 participant-minutes, a card of 0.0024 USD an hour:
nodes 70.00, used 100,000 / 60 x 0.0024 = 4.00, idle 66.00, 0.0007 USD a participant-minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ratio, shown
from talktime_ledger.core.pricing import price

from talktime_operator.pools.saving import Spent, month_of, share_over


@dataclass(frozen=True)
class NodeCost:
    """USD of the month so far. `used_usd` None: no card says what a minute on own nodes costs."""

    month: str
    seconds: int
    nodes_usd: Decimal
    used_usd: Decimal | None

    @property
    def idle_usd(self) -> Decimal | None:
        """What nobody was charged for; negative where the card asks more than the nodes cost."""
        return None if self.used_usd is None else self.nodes_usd - self.used_usd

    @property
    def per_minute_usd(self) -> Decimal | None:
        """A participant-minute, at the load there was; None while there was none."""
        return ratio(self.nodes_usd * 60, Decimal(self.seconds)) if self.seconds else None

    def render(self) -> dict[str, str | int]:
        """`status.nodeCost`."""
        amounts = {
            "nodesUsd": (self.nodes_usd, 2),
            "usedUsd": (self.used_usd, 2),
            "idleUsd": (self.idle_usd, 2),
            "perMinuteUsd": (self.per_minute_usd, 6),
        }
        told = {name: shown(usd, places) for name, (usd, places) in amounts.items() if usd is not None}
        return {"month": self.month, "participantMinutes": self.seconds // 60, **told}


def node_cost(
    spent: Spent, nodes: Decimal | int, node_monthly_usd: Decimal | None, since: datetime | None, now: datetime
) -> NodeCost | None:
    """`nodes`: at once, on average, for the part of the month that is over (since the pool was made at `since`).

    None when a node's cost is unset.
    """
    if node_monthly_usd is None:
        return None
    # In whole cents, so that what is computed from it changes no more often than it: each change is a status write.
    nodes_usd = Decimal(shown(share_over(since, now) * nodes * node_monthly_usd, 2))
    seconds = spent.used.seconds
    used = None if spent.own is None else price({Meter.PARTICIPANT_SECONDS: seconds}, spent.own[1])
    return NodeCost(month_of(now), seconds, nodes_usd, used)
