"""The outage reserve: kept aside while the ledger answers, first to shrink, ordinary at the end."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_ledger.core.gate import Holdings, may_respond
from talktime_ledger.core.grants import Need, plan_grant, set_aside

USD = Decimal
AMOUNT = st.decimals(0, 10, places=6)
NEED = Need(USD("0.01"), USD("0.10"), USD(0), USD("0.20"), outage_reserve=USD("0.50"))


@pytest.mark.parametrize(
    ("held", "final", "aside"),
    [
        ("0.81", False, "0.50"),
        ("0.90", False, "0.50"),  # more than asked for (nothing is taken back): the reserve stays as configured
        ("0.51", False, "0.20"),  # short: the reserve shrinks first
        ("0.31", False, "0"),
        ("0.81", True, "0"),  # nothing beyond will come: a session ends at limit - W - C with a reserve as without
    ],
)
def test_what_is_set_aside(held: str, final: bool, aside: str) -> None:
    assert set_aside(NEED, USD(held), final) == USD(aside)


@given(AMOUNT, AMOUNT, AMOUNT, AMOUNT, AMOUNT, AMOUNT, AMOUNT, st.integers(1, 500))
def test_a_reserve_never_keeps_a_response_from_starting_that_the_grant_pays(
    fixed: USD, w: USD, in_flight: USD, burn: USD, reserve: USD, held: USD, shared: USD, sessions: int
) -> None:
    need = Need(fixed, w, in_flight, burn, reserve)
    plan = plan_grant(need, held, [shared], shared, sessions)
    after = held + plan.delta
    aside = set_aside(need, after, plan.final)
    assert 0 <= aside <= reserve
    holdings = Holdings(after, fixed, USD(0), in_flight, 300, aside=aside)
    if plan.sufficient:
        assert may_respond(holdings, w, 10).allowed


def test_the_gate_spends_it_only_when_it_is_not_aside() -> None:
    answering = Holdings(USD("0.30"), USD("0.01"), USD(0), USD(0), 300, aside=USD("0.20"))
    assert may_respond(answering, USD("0.09"), 10).allowed
    assert may_respond(answering, USD("0.091"), 10).reason == "money"
    assert may_respond(Holdings(USD("0.30"), USD("0.01"), USD(0), USD(0), 300), USD("0.29"), 10).allowed
