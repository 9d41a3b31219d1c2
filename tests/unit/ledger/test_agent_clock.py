"""An agent whose clock is wrong does not choose a price."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from talktime_ledger import wire
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.rates import Price, RateBook, RateCard, RateEntry
from talktime_ledger.desk.posting import supersedes
from talktime_ledger.desk.pricing import price_usage
from talktime_ledger.store.usages import Event

OPENED = datetime(2026, 6, 1, 12, tzinfo=UTC)
NOW = OPENED + timedelta(minutes=30)
SESSION = cast(Any, SimpleNamespace(opened_at=OPENED, vendor="openai", rates=[]))


def book(*entries: tuple[datetime, int]) -> RateBook:
    """audio_out in USD per million from each time on."""
    found = [RateEntry(at, {Meter.AUDIO_OUT: Price(Decimal(price))}) for at, price in entries]
    return RateBook((RateCard("m", "openai", "m", tuple(found)),))


def at(moment: datetime) -> wire.Usage:
    """A million tokens, so that the cost is the price."""
    return wire.Usage.model_validate(
        {
            "key": "k",
            "kind": "response",
            "provider": "main",
            "model": "m",
            "meters": {"audio_out": 1_000_000},
            "occurred_at": moment,
        }
    )


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
STEADY = book((LONG_AGO, 10), (datetime(2026, 5, 1, tzinfo=UTC), 20), (datetime(2026, 7, 1, tzinfo=UTC), 40))
CHANGING = book((LONG_AGO, 10), (OPENED + timedelta(minutes=10), 20))


@pytest.mark.parametrize(
    ("rates", "moment", "cost", "when", "doubtful"),
    [
        (STEADY, NOW, 20, NOW, False),
        (STEADY, LONG_AGO, 20, OPENED, False),
        (STEADY, NOW + timedelta(days=3650), 20, NOW, False),
        (CHANGING, OPENED, 10, OPENED, False),
        (CHANGING, NOW, 20, NOW, False),
        (CHANGING, NOW + timedelta(minutes=4), 20, NOW + timedelta(minutes=4), False),
        (CHANGING, LONG_AGO, 20, OPENED, True),
        (CHANGING, NOW + timedelta(days=1), 20, NOW, True),
    ],
)
def test_a_time_outside_the_session_is_moved_into_it_and_the_dearer_price_holds(
    rates: RateBook, moment: datetime, cost: int, when: datetime, doubtful: bool
) -> None:
    priced = price_usage(SESSION, at(moment), rates, NOW)
    assert (priced.cost_usd, priced.at, priced.assumed_price) == (cost, when, doubtful)


def event(cost: str, moment: datetime, unmetered: bool = False) -> Event:
    return Event(1, "response", "m", {}, moment, "completed", unmetered, Decimal(cost), 1)


@pytest.mark.parametrize(
    ("new", "old", "newer"),
    [
        (event("0.2", NOW), event("0.1", OPENED), True),
        (event("0.1", NOW), event("0.2", OPENED), True),
        (event("0.1", OPENED), event("0.2", NOW), False),
        (event("0.2", OPENED), event("0.1", NOW), True),
        (event("0.1", OPENED), event("0.1", NOW), False),
        (event("0.3", NOW, unmetered=True), event("0.1", OPENED), False),
        (event("0.1", OPENED), event("0.3", NOW, unmetered=True), True),
    ],
)
def test_a_snapshot_that_grew_while_the_clock_was_set_back_still_counts(new: Event, old: Event, newer: bool) -> None:
    assert supersedes(new, old) is newer
