"""What a pool saves against Cloud: the worked example, its parts, and that nothing is made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from talktime_ledger.core.plan import month_start
from talktime_ledger.core.rates import RateEntry, RateSnapshot
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.wire import TransportRow
from talktime_operator.pools.node_cost import node_cost
from talktime_operator.pools.saving import (
    OWN,
    VENDOR,
    Spent,
    Used,
    prices_of,
    saving,
    share_over,
    spent,
    used_by_pool,
)

CARDS = Path(__file__).parents[3] / "examples" / "rate-cards"
HALF = datetime(2026, 11, 16, tzinfo=UTC)
NODE = Decimal(70)


def card(**entry: Any) -> list[tuple[str, RateCardSpec]]:
    spec = yaml.safe_load((CARDS / "livekit-cloud.yaml").read_text())["spec"]
    spec["entries"][0] |= entry
    return [("livekit-cloud", RateCardSpec.model_validate(spec))]


def cloud_prices(cards: list[tuple[str, RateCardSpec]], now: datetime) -> tuple[RateEntry, RateSnapshot] | None:
    return prices_of(VENDOR, cards, now)


def own_card() -> list[tuple[str, RateCardSpec]]:
    spec = yaml.safe_load((CARDS / "livekit-self-hosted.yaml").read_text())["spec"]
    return [("livekit-self-hosted", RateCardSpec.model_validate(spec))]


def test_the_worked_example() -> None:
    found = saving(400_000, cloud_prices(card(), HALF), 2, NODE, None, HALF)
    assert found is not None
    assert found.render() == {
        "month": "2026-11", "participantMinutes": 400_000, "cloudUsd": "187.50", "nodesUsd": "70.00",
        "savedUsd": "117.50",
    }  # fmt: skip


def test_few_minutes_cost_more_on_own_nodes_than_the_plan_that_includes_them() -> None:
    found = saving(1_000, cloud_prices(card(), HALF), 1, NODE, None, HALF)
    assert found is not None
    assert found.saved_usd == Decimal(25) - Decimal(35)


def test_a_pool_made_within_the_month_counts_from_then_on() -> None:
    made = datetime(2026, 11, 13, tzinfo=UTC)
    assert share_over(made, HALF) == Decimal("0.1")
    assert share_over(datetime(2026, 3, 1, tzinfo=UTC), HALF) == Decimal("0.5")
    found = saving(0, cloud_prices(card(), HALF), 1, NODE, made, HALF)
    assert found is not None
    assert (found.cloud_usd, found.nodes_usd) == (Decimal("5.0"), Decimal("7.0"))


def test_a_daily_allowance_counts_for_the_days_that_are_over() -> None:
    daily = {"freeAllowance": {"participant_seconds": {"quantity": 60_000, "per": "Day"}}, "monthlyFee": "0"}
    found = saving(20_000, cloud_prices(card(**daily), HALF), 0, NODE, None, HALF)
    assert found is not None
    assert found.cloud_usd == (20_000 - 15 * 1_000) * Decimal("0.0005")


@pytest.mark.parametrize("missing", ["card", "cost"])
def test_what_is_not_known_gives_no_number(missing: str) -> None:
    prices = None if missing == "card" else cloud_prices(card(), HALF)
    assert saving(5, prices, 1, None if missing == "cost" else NODE, None, HALF) is None


def test_the_ledgers_word_counts_in_its_month_only() -> None:
    told = (datetime(2026, 11, 1, tzinfo=UTC), {"eu": Used(5, 300)})
    assert spent(None, "eu", card(), HALF) is None
    assert spent(told, "eu", card(), datetime(2026, 12, 1, tzinfo=UTC)) is None
    found = spent(told, "eu", card(), HALF)
    assert found is not None
    assert (found.used, found.prices, found.own) == (Used(5, 300), cloud_prices(card(), HALF), None)
    other = spent(told, "us", own_card(), HALF)
    assert other is not None
    assert (other.used, other.prices, other.own) == (Used(), None, prices_of(OWN, own_card(), HALF))


def test_prices_are_those_in_force_and_of_cloud() -> None:
    assert cloud_prices([], HALF) is None
    later = card(effectiveFrom="2027-01-01T00:00:00Z")
    assert cloud_prices(later, HALF) is None
    assert cloud_prices(own_card(), HALF) is None
    free = card(meters={"egress_bytes": {"usdPerGib": "0.1"}}, freeAllowance={})
    assert cloud_prices(free, HALF) is None, "a card without a price of minutes says nothing"


def test_minutes_come_from_the_pools_own_nodes() -> None:
    numbers = {"sessions": 1, "talk_sec": 60, "peak_sessions": 1, "connections": 2, "participant_seconds": 90}
    more = {"selfhosted_seconds": 60, "begun_minutes": 3, "selfhosted_begun_minutes": 2}
    row = TransportRow.model_validate({"pool": "eu", **numbers, **more})
    assert used_by_pool([row, row.model_copy(update={"pool": None})]) == {"eu": Used(2, 60)}


@pytest.mark.parametrize(
    ("seconds", "nodes", "node", "expected"),
    [
        (6_000_000, 2, NODE, ("70.00", "4.00", "66.00", "0.000700")),
        (0, 1, NODE, ("35.00", "0.00", "35.00", None)),
        (60_000_000, 1, NODE, ("35.00", "40.00", "-5.00", "0.000035")),
    ],
)
def test_nodes_cost_what_they_cost_and_what_nobody_used_is_idle(
    seconds: int, nodes: int, node: Decimal, expected: tuple[str | None, ...]
) -> None:
    found = node_cost(Spent(Used(0, seconds), None, prices_of(OWN, own_card(), HALF)), nodes, node, None, HALF)
    assert found is not None
    told = found.render()
    assert (told["month"], told["participantMinutes"]) == ("2026-11", seconds // 60)
    assert tuple(told.get(name) for name in ("nodesUsd", "usedUsd", "idleUsd", "perMinuteUsd")) == expected


def test_without_a_card_of_own_minutes_nothing_is_called_used_or_idle() -> None:
    spent_now = Spent(Used(0, 6_000_000), None)
    found = node_cost(spent_now, 2, NODE, None, HALF)
    assert found is not None
    assert found.render() == {
        "month": "2026-11", "participantMinutes": 100_000, "nodesUsd": "70.00", "perMinuteUsd": "0.000700",
    }  # fmt: skip
    assert node_cost(spent_now, 2, None, None, HALF) is None, "what a node costs is not known"


@given(st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1)), st.integers(0, 10**9), st.integers(0, 50))
def test_more_minutes_never_save_less_and_the_part_of_a_month_is_a_part(at: datetime, minutes: int, nodes: int) -> None:
    now = at.replace(tzinfo=UTC)
    assert 0 <= share_over(None, now) < 1
    assert month_start(now) <= now < month_start(now) + timedelta(days=31)
    prices = cloud_prices(card(), now)
    less, more = (saving(count, prices, nodes, NODE, None, now) for count in (minutes, minutes + 60))
    assert less is not None
    assert more is not None
    assert more.saved_usd >= less.saved_usd


def test_within_a_cent_the_status_stays_as_it_is() -> None:
    spent_now = Spent(Used(0, 600), None)
    told = [node_cost(spent_now, 1, NODE, None, HALF + timedelta(seconds=more)) for more in (0, 60)]
    assert told[0] is not None
    assert told[0] == told[1]
