"""What a pool has saved this month against LiveKit Cloud. Pure.

Cloud's side: the participant-minutes on the pool's own nodes, each connection begun up to a minute as Cloud counts, at
the card `livekit/participant`, beyond what its plan includes, and the plan's fee. Our side: the nodes there were on
average (node_hours.py), at `spec.nodeMonthlyCost`. The month has only begun: fee, included minutes and nodes count for
the part of it that is over (for a pool made within it, since then), so that the last day shows what
`talktime economics` computes for the whole. Traffic is left out: it is an estimate (`talktime report` has it).

Worked example: 2 nodes of 70 USD, half of the month over, 400,000 minutes; a plan of 50 USD with 150,000 minutes, then
0.0005: Cloud 25 + (400,000 - 75,000) x 0.0005 = 187.50, nodes 70, saved 117.50.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from talktime_ledger.cards import rate_card
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO, per_million, shown
from talktime_ledger.core.plan import month_start, next_month
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateEntry, RateSnapshot
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.wire import TransportRow

from talktime_operator.conditions import Finding

VENDOR, OWN, MODEL = "livekit", "selfhosted", "participant"
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Saving:
    """USD of the month so far. ``month``: 2026-11; negative where the nodes cost more."""

    month: str
    minutes: int
    cloud_usd: Decimal
    nodes_usd: Decimal

    @property
    def saved_usd(self) -> Decimal:
        return self.cloud_usd - self.nodes_usd

    def render(self) -> dict[str, str | int]:
        """`status.saving`."""
        amounts = {"cloudUsd": self.cloud_usd, "nodesUsd": self.nodes_usd, "savedUsd": self.saved_usd}
        told = {name: shown(usd, 2) for name, usd in amounts.items()}
        return {"month": self.month, "participantMinutes": self.minutes, **told}


@dataclass(frozen=True)
class Used:
    """Of a pool's own nodes: participant-minutes, each connection begun up to a minute, and seconds as they were."""

    begun_minutes: int = 0
    seconds: int = 0


@dataclass(frozen=True)
class Spent:
    """What the ledger and the cards say of this month: how a pool's own nodes were used, Cloud's price, and what a
    project is charged on own nodes.
    """

    used: Used
    prices: tuple[RateEntry, RateSnapshot] | None
    own: tuple[RateEntry, RateSnapshot] | None = None


def spent(
    told: tuple[datetime, Mapping[str, Used]] | None,
    pool: str,
    cards: Iterable[tuple[str, RateCardSpec]],
    now: datetime,
) -> Spent | None:
    """`told`: the month's first moment and use by pool. None when the ledger has told nothing of this month yet."""
    if told is None or told[0] != month_start(now):
        return None
    known = tuple(cards)
    return Spent(told[1].get(pool, Used()), prices_of(VENDOR, known, now), prices_of(OWN, known, now))


def share_over(since: datetime | None, now: datetime) -> Decimal:
    """The part of the month from its beginning, or from `since` if that is later, until now: 0 to 1."""
    start = month_start(now)
    length = next_month(start) - start
    begun = start if since is None else max(start, since.astimezone(UTC))
    return max(ZERO, Decimal(int((now - begun).total_seconds())) / Decimal(int(length.total_seconds())))


def prices_of(
    vendor: str, cards: Iterable[tuple[str, RateCardSpec]], now: datetime
) -> tuple[RateEntry, RateSnapshot] | None:
    """A medium's price in force; None when no card tells it (law 4: no number is made up)."""
    found = []
    for name, spec in cards:
        if (spec.provider.value, spec.model) == (vendor, MODEL):
            try:
                found.append(rate_card(name, spec))
            except PriceUnknown:
                continue
    try:
        entry, rates = RateBook(tuple(found)).in_force(vendor, MODEL, now)
        rates.price(Meter.PARTICIPANT_SECONDS)
    except PriceUnknown:
        return None
    return entry, rates


def saving(
    minutes: int,
    prices: tuple[RateEntry, RateSnapshot] | None,
    nodes: Decimal | int,
    node_monthly_usd: Decimal | None,
    since: datetime | None,
    now: datetime,
) -> Saving | None:
    """`minutes`: participant-minutes of this month on the pool's own nodes; `nodes`: at once, on average; `since`: when
    the pool was made.

    None when no card has Cloud's price, or a node's cost is unset.
    """
    if prices is None or node_monthly_usd is None:
        return None
    entry, rates = prices
    share = share_over(since, now)
    included = ZERO
    if (free := entry.allowances.get(Meter.PARTICIPANT_SECONDS)) is not None:
        month_days = (next_month(month_start(now)) - month_start(now)) / DAY
        included = share * free.quantity * (int(month_days) if free.per == "Day" else 1)
    billed = max(0, minutes * 60 - int(included))
    cloud = share * entry.monthly_fee + per_million(billed, rates.price(Meter.PARTICIPANT_SECONDS))
    return Saving(month_of(now), minutes, cloud, share * nodes * node_monthly_usd)


def saving_known(node_monthly_cost: str | None, told: Spent | None) -> Finding:
    """Why there is no saving in the status, or that there is."""
    kind = "SavingKnown"
    if node_monthly_cost is None:
        text = "spec.nodeMonthlyCost: set what one node costs a month, in USD, to see what the pool saves"
        return Finding(kind, "Unknown", "NodeCostUnset", text)
    if told is None:
        return Finding(kind, "Unknown", "LedgerSilent", "the ledger has not told this month's minutes yet")
    if told.prices is None:
        text = f"no RateCard of provider {VENDOR!r} and model {MODEL!r} has a price of minutes in force: apply one"
        return Finding(kind, "Unknown", "CloudPriceMissing", f"{text} (examples/rate-cards/livekit-cloud.yaml)")
    return Finding(kind, "True", "Computed")


def month_of(now: datetime) -> str:
    """2026-11."""
    return month_start(now).strftime("%Y-%m")


def used_by_pool(rows: Iterable[TransportRow]) -> Mapping[str, Used]:
    """How own nodes were used, by the pool's name; a pool without a row was not."""
    return {row.pool: Used(row.selfhosted_begun_minutes, row.selfhosted_seconds) for row in rows if row.pool}
