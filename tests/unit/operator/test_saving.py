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
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.wire import TransportRow
from talktime_operator.pools.saving import cloud_prices, minutes_by_pool, month_start, saving, share_over, spent

CARDS = Path(__file__).parents[3] / "examples" / "rate-cards"
HALF = datetime(2026, 11, 16, tzinfo=UTC)
NODE = Decimal(70)


def card(**entry: Any) -> list[tuple[str, RateCardSpec]]:
    spec = yaml.safe_load((CARDS / "livekit-cloud.yaml").read_text())["spec"]
    spec["entries"][0] |= entry
    return [("livekit-cloud", RateCardSpec.model_validate(spec))]


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
    told = (datetime(2026, 11, 1, tzinfo=UTC), {"eu": 5})
    assert spent(None, "eu", card(), HALF) is None
    assert spent(told, "eu", card(), datetime(2026, 12, 1, tzinfo=UTC)) is None
    found = spent(told, "eu", card(), HALF)
    assert found is not None
    assert (found.minutes, found.prices) == (5, cloud_prices(card(), HALF))
    other = spent(told, "us", [], HALF)
    assert other is not None
    assert (other.minutes, other.prices) == (0, None)


def test_prices_are_those_in_force_and_of_cloud() -> None:
    assert cloud_prices([], HALF) is None
    later = card(effectiveFrom="2027-01-01T00:00:00Z")
    assert cloud_prices(later, HALF) is None
    own = yaml.safe_load((CARDS / "livekit-self-hosted.yaml").read_text())["spec"]
    assert cloud_prices([("own", RateCardSpec.model_validate(own))], HALF) is None
    free = card(meters={"egress_bytes": {"usdPerGib": "0.1"}}, freeAllowance={})
    assert cloud_prices(free, HALF) is None, "a card without a price of minutes says nothing"


def test_minutes_come_from_the_pools_own_nodes() -> None:
    numbers = {"sessions": 1, "talk_sec": 60, "peak_sessions": 1, "connections": 2, "participant_seconds": 90}
    more = {"selfhosted_seconds": 60, "begun_minutes": 3, "selfhosted_begun_minutes": 2}
    row = TransportRow.model_validate({"pool": "eu", **numbers, **more})
    assert minutes_by_pool([row, row.model_copy(update={"pool": None})]) == {"eu": 2}


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
