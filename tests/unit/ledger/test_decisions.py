"""Grants, limits, the gate, sweeping, periods: pure decisions as tables and laws."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from talktime_ledger.core.gate import Holdings, may_render_goodbye, may_respond, renew_soon
from talktime_ledger.core.grants import Need, admit_floor, next_burn, plan_grant
from talktime_ledger.core.limits import (
    Level,
    LimitState,
    Position,
    judge,
    project_soft_ends_live,
    soft_threshold,
    wrap_up_minutes,
)
from talktime_ledger.core.periods import period_of, turns_over
from talktime_ledger.core.sweep import assumed, still_assumed
from talktime_ledger.desk.posting import given_back
from talktime_ledger.resources.project import OnProjectSoft, Period
from talktime_ledger.wire import Unmetered, Usage

USD = Decimal
AMOUNT = st.decimals(0, 10, places=6)


@given(AMOUNT, AMOUNT, AMOUNT, AMOUNT, AMOUNT, st.decimals(-1, 10, places=6), AMOUNT, st.integers(0, 500))
def test_a_grant_never_exceeds_any_room_and_is_never_under_w(
    fixed: USD, w: USD, in_flight: USD, burn: USD, held: USD, shared: USD, room: USD, sessions: int
) -> None:
    need = Need(fixed, w, in_flight, burn)
    plan = plan_grant(need, held, [room], shared, sessions)
    assert plan.delta >= 0
    assert plan.delta <= max(USD(0), min(room, shared))
    assert plan.sufficient == (held + plan.delta >= need.least)
    if plan.delta:
        usable = held + plan.delta >= need.least
        assert usable or held + plan.delta == fixed, "a grant under W is money nobody can use, unless for the goodbye"
    if not plan.sufficient:
        assert plan.final
        assert held + min(room, shared) < need.least, "no refusal while there is enough"


def test_grants_shrink_with_the_number_of_open_sessions() -> None:
    need = Need(USD("0.01"), USD("0.10"), USD(0), USD("0.20"))
    rich = plan_grant(need, USD(0), [USD(5)], USD(5), 2)
    crowded = plan_grant(need, USD(0), [USD(5)], USD(5), 100)
    poor = plan_grant(need, USD(0), [USD(5)], USD("0.12"), 100)
    broke = plan_grant(need, USD(0), [USD(5)], USD("0.10"), 100)
    assert (rich.delta, rich.final) == (USD("0.31"), False)
    assert (crowded.delta, crowded.final) == (USD("0.16"), False)
    assert (poor.delta, poor.final) == (USD("0.1112"), False)
    assert (broke.delta, broke.final, broke.sufficient) == (USD("0.01"), True, False), "the goodbye alone"


def test_the_last_of_a_session_limit_is_final() -> None:
    need = Need(USD("0.01"), USD("0.10"), USD(0), USD("0.20"))
    plan = plan_grant(need, USD("0.02"), [USD("0.10")], USD(5), 1)
    assert (plan.delta, plan.final, plan.sufficient) == (USD("0.10"), True, True)


def test_admit_floor() -> None:
    assert admit_floor(None, USD("0.1"), USD("0.01"), USD(1)) == USD("0.5")
    assert admit_floor(None, USD("0.6"), USD("0.01"), USD(1)) == USD("0.61")
    assert admit_floor(USD("0.2"), USD("0.1"), USD("0.01"), USD(1)) == USD("0.2")
    assert admit_floor(USD("0.05"), USD("0.1"), USD("0.01"), USD(1)) == USD("0.11")


def test_burn_follows_what_is_spent() -> None:
    burn = USD(0)
    for _ in range(30):
        burn = next_burn(burn, USD("0.02"), USD(20))
    assert USD("0.0599") < burn < USD("0.0601")
    assert next_burn(burn, USD(0), USD(0)) == burn


def level(limit: str, posted: str, left: str | None = None, percent: int = 80) -> Level:
    return Level(USD(limit), USD(posted), USD(left) if left else USD(limit) - USD(posted), percent)


EASY = Position(level("1", "0.1"), level("10", "1"), None, USD("0.05"), USD("0.01"))


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        ({}, LimitState.OK, ""),
        ({"session": level("1", "0.8")}, LimitState.SOFT, "SessionSoft"),
        ({"session": level("1", "0.95")}, LimitState.HARD, "SessionHard"),
        ({"session": level("1", "0.93"), "in_flight": USD("0.02")}, LimitState.HARD, "SessionHard"),
        ({"session": level("0.2", "0.05")}, LimitState.SOFT, "SessionSoft"),
        ({"project": level("10", "9.5", "0.05")}, LimitState.HARD, "ProjectHard"),
        ({"project": level("10", "8.5")}, LimitState.OK, ""),
        ({"project_soft_ends_sessions": True}, LimitState.SOFT, "ProjectSoft"),
        ({"paused": True}, LimitState.SOFT, "Paused"),
        ({"paused": True, "session": level("1", "0.95")}, LimitState.HARD, "SessionHard"),
        ({"transport_short": True}, LimitState.HARD, "ProjectHard"),
        ({"participant": level("1", "0.95")}, LimitState.HARD, "ParticipantHard"),
        ({"participant": level("1", "0.82")}, LimitState.SOFT, "ParticipantSoft"),
        ({"session": level("1", "0.8"), "project": level("10", "9.9", "0.02")}, LimitState.HARD, "ProjectHard"),
        ({"session": level("1", "0.99"), "project_soft_ends_sessions": True}, LimitState.HARD, "SessionHard"),
    ],
)
def test_the_chain_of_limits(change: dict[str, object], state: LimitState, reason: str) -> None:
    verdict = judge(replace(EASY, **change))
    assert (verdict.state, verdict.reason) == (state, reason)
    assert bool(verdict.sentence) == (state is not LimitState.OK)


def test_soft_comes_early_enough_for_three_more_responses() -> None:
    assert soft_threshold(level("1", "0"), USD("0.05"), USD("0.01")) == USD("0.8")
    assert soft_threshold(level("1", "0"), USD("0.2"), USD("0.01")) == USD("0.39")


@pytest.mark.parametrize(
    ("left", "burn", "minutes"),
    [
        ("0.5", "0.1", 4),
        ("0.06", "0.1", 1),
        ("5", "0.1", 10),
        # Nobody has talked yet: one worst case (0.05) a minute.
        ("0.5", "0", 3),
        ("0.16", "0", 2),
        ("0.12", "0", 1),
    ],
)
def test_wrap_up_minutes_fit_the_money_left(left: str, burn: str, minutes: int) -> None:
    assert wrap_up_minutes(USD(left), USD("0.05"), USD("0.01"), USD(burn)) == minutes


@pytest.mark.parametrize(
    ("policy", "available", "ends"),
    [
        (OnProjectSoft.WRAP_UP_LIVE, "9", True),
        (OnProjectSoft.WRAP_UP_IF_SHORT, "9", False),
        (OnProjectSoft.WRAP_UP_IF_SHORT, "0.5", True),
        (OnProjectSoft.WRAP_UP_IF_SHORT, "-3", True),
        (OnProjectSoft.NOTIFY, "0", False),
    ],
)
def test_project_soft_policies(policy: OnProjectSoft, available: str, ends: bool) -> None:
    assert project_soft_ends_live(policy, USD(available), USD("0.4"), USD(1)) is ends


HELD = Holdings(USD("0.30"), USD("0.01"), USD("0.02"), USD("0.10"), 200.0)


@pytest.mark.parametrize(
    ("held", "w", "reason"),
    [
        (HELD, "0.17", ""),
        (HELD, "0.170001", "money"),
        (replace(HELD, validity_left_sec=74.0), "0.01", "validity"),
        (replace(HELD, fenced=True), "0", "fenced"),
        (replace(HELD, closing=True), "0", "closing"),
    ],
)
def test_the_gate(held: Holdings, w: str, reason: str) -> None:
    decision = may_respond(held, USD(w), 60)
    assert (decision.allowed, decision.reason) == (not reason, reason)


def test_the_goodbye_is_held_for_nothing_else() -> None:
    empty = Holdings(USD("0.01"), USD("0.01"), USD(0), USD(0), 200.0, closing=True)
    assert not may_respond(replace(empty, closing=False), USD("0.001"), 10).allowed
    assert may_render_goodbye(empty, USD("0.01")).allowed
    assert renew_soon(HELD, USD("0.12")) and not renew_soon(HELD, USD("0.11"))


def test_what_is_assumed_of_a_lost_agent() -> None:
    assert assumed(attached=False, reserved=USD("0.3"), transport=USD("0.02")) == 0
    assert assumed(attached=True, reserved=USD("0.3"), transport=USD("0.02")) == USD("0.28"), "all, the goodbye too"
    assert assumed(attached=True, reserved=USD("0.01"), transport=USD("0.02")) == 0
    assert still_assumed(USD("0.1"), USD("0.03"), final=False) == USD("0.07"), "it may still be talking"
    assert still_assumed(USD("0.1"), USD("0.13"), final=False) == 0
    assert still_assumed(USD("0.1"), USD("-0.02"), final=False) == USD("0.12"), "what it got back it may spend again"
    assert still_assumed(USD("0.1"), USD("0.03"), final=True) == 0


def test_a_resumed_session_gets_at_least_its_goodbye() -> None:
    need = Need(USD("0.01"), USD("0.10"))
    assert plan_grant(need, USD(0), [USD("0.05")], USD(5), 1).delta == USD("0.01")
    assert plan_grant(need, USD(0), [USD("0.009")], USD(5), 1).delta == 0


@pytest.mark.parametrize(
    ("amount", "paid", "parts"),
    [
        ("-0.06", [(1, "0.10")], [(1, "-0.06")]),
        ("-0.06", [(2, "0.05"), (1, "0.01")], [(2, "-0.05"), (1, "-0.01")]),
        ("-0.06", [(2, "-0.01"), (1, "0.10")], [(1, "-0.06")]),
        ("-0.06", [(2, "0.05")], [(2, "-0.05"), (9, "-0.01")]),
    ],
)
def test_what_is_given_back_goes_to_the_budgets_that_paid(
    amount: str, paid: list[tuple[int, str]], parts: list[tuple[int, str]]
) -> None:
    found = given_back(USD(amount), [(account, USD(share)) for account, share in paid], 9)
    assert found == [(account, USD(share)) for account, share in parts]


def test_periods_are_utc_months() -> None:
    turn = datetime(2026, 12, 1, 0, 0, 10, tzinfo=UTC)
    assert period_of(Period.TOTAL, turn) == "total"
    assert period_of(Period.MONTHLY, turn) == "2026-12"
    assert not turns_over("2026-12", "2026-12", True, turn)
    assert turns_over("2026-11", "2026-12", True, turn)
    assert not turns_over("2026-11", "2026-12", False, turn), "what is in flight belongs to the old month"
    assert turns_over("2026-11", "2026-12", False, turn.replace(minute=6))


@pytest.mark.parametrize("body", [Unmetered, Usage])
def test_nobody_but_the_ledger_books_under_the_keys_of_its_assumptions(body: type[Unmetered | Usage]) -> None:
    told = {"kind": "response", "provider": "p", "model": "m", "meters": {}, "occurred_at": "2026-11-22T12:00:00Z"}
    more = told if body is Usage else {"usd": "0.01"}
    assert body.model_validate({"key": "assume/1", **more}).key == "assume/1"
    with pytest.raises(ValidationError, match="ledger's own"):
        body.model_validate({"key": "assumed/1", **more})
