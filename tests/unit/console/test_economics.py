"""Managed or self-hosted: break-even against counting, the article's table beside ours."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from talktime_console import files
from talktime_console.economics import (
    Case,
    Nodes,
    break_even,
    density,
    managed_of,
    published_servers,
    recommendation,
    table_of,
)
from talktime_console.published import published
from talktime_console.shape import Shape
from talktime_ledger.core.rates import RateBook

AT = datetime(2026, 11, 22, tzinfo=UTC)
CARDS = {card.name: card for card in files.rate_cards([])}
CLAIMS = published()


def case(card: str, nodes: Nodes | None = None, shape: Shape | None = None) -> Case:
    found = CARDS[card]
    rates = RateBook((found,)).snapshot(found.vendor, found.model, AT)
    return Case(shape or Shape(), nodes or Nodes(), managed_of(found.entry_at(AT), rates, Decimal(50)))


THEN, NOW = case("historic-livekit-cloud"), case("livekit-cloud")


@pytest.mark.parametrize(
    ("stated", "measured", "per_node"), [(None, False, 500), (None, True, 100), (300, False, 300), (300, True, 300)]
)
def test_measured_sessions_are_put_on_nodes_of_a_measured_density(
    stated: int | None, measured: bool, per_node: int
) -> None:
    assert density(stated, measured) == per_node


def test_break_even_under_the_published_price() -> None:
    even = break_even(THEN)
    assert even is not None
    assert (round(even.exact, 1), even.first_profit) == (Decimal("666.7"), 667)
    assert THEN.savings(666) < 0 < THEN.savings(667)


def test_the_current_card_counts_its_fee_and_what_that_includes() -> None:
    assert NOW.managed_month(1) == NOW.managed_month(2500) == 50
    assert NOW.managed_month(2501) == Decimal("50.03")
    even = break_even(NOW)
    assert even is not None
    assert (even.exact, even.first_profit) == (7500, 7501)


@settings(max_examples=40)
@given(
    price=st.integers(1, 900),
    per_node=st.integers(1, 40),
    spare=st.integers(0, 2),
    minutes=st.integers(1, 90),
    card=st.sampled_from(["livekit-cloud", "historic-livekit-cloud"]),
)
def test_break_even_is_what_counting_finds(price: int, per_node: int, spare: int, minutes: int, card: str) -> None:
    nodes = Nodes(Decimal(price), sessions_per_node=per_node, spare=spare)
    one = case(card, nodes, Shape(minutes=Decimal(minutes)))
    counted = next((n for n in range(1, 3000) if one.savings(n) > 0), None)
    even = break_even(one)
    if counted is None:
        assert even is None or even.first_profit >= 3000
    else:
        assert even is not None
        assert even.first_profit == counted
        assert even.exact <= counted


def test_the_articles_table_is_computed_and_its_last_row_explained() -> None:
    rows = {row.sessions: row for row in table_of(THEN, NOW, CLAIMS, [r.sessions for r in CLAIMS.economics.rows])}
    for number in (100, 500, 1000, 3000):
        claim = rows[number].published
        assert claim is not None
        assert (rows[number].savings_published, rows[number].cause) == (claim.savings, "none")
    last = rows[10_000]
    assert (last.nodes, last.savings_published) == (1, 2800)
    assert last.cause == "its formula gives int(250 / 500) + 1 = 1 server(s), its table charges 2"


@pytest.mark.parametrize(("peak", "servers"), [("0", 1), ("250", 1), ("499.9", 1), ("500", 2), ("1000", 3)])
def test_the_articles_own_formula(peak: str, servers: int) -> None:
    assert published_servers(Decimal(peak)) == servers


@pytest.mark.parametrize(
    ("nodes", "sessions", "needed"),
    [
        (Nodes(), 1, 1),
        (Nodes(), 20_000, 1),  # 500 at once
        (Nodes(), 20_001, 2),
        (Nodes(spare=1), 1, 2),
        (Nodes(peak_share=Decimal("0.5")), 2000, 2),
        (Nodes(traffic_bytes=22_500_000 * 100), 201, 3),  # 22.5 MB each
    ],
)
def test_nodes_follow_the_peak_and_the_traffic(nodes: Nodes, sessions: int, needed: int) -> None:
    assert case("livekit-cloud", nodes).nodes_needed(sessions) == needed


def test_free_nodes_pay_from_the_first_session_and_dear_ones_never() -> None:
    free = break_even(case("historic-livekit-cloud", Nodes(Decimal(0))))
    assert free is not None
    assert free.first_profit == 1
    dear = case("livekit-cloud", Nodes(Decimal(10_000), sessions_per_node=10))
    assert break_even(dear) is None
    assert recommendation(dear, None, "Cloud") == "Stay on Cloud: self-hosting never pays up to 200 nodes."


def test_the_recommendation_is_one_sentence_with_its_figures() -> None:
    assert recommendation(NOW, 3000, "Cloud") == (
        "At 3,000 sessions a month Cloud costs 65.00 USD and 1 node(s) 200.00: stay on Cloud; "
        "self-hosting pays from 7,501 sessions a month."
    )
    assert recommendation(NOW, 10_000, "Cloud").endswith("self-host, and save 75.00 USD a month.")
