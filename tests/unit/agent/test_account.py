"""The account: what may start depends on what is held, and nothing is lost between hold and settlement."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from talktime_agent.account import Account, Granted

W = Decimal("0.02")


def grant(**changes: object) -> Granted:
    usual = Granted(
        reserved=Decimal("0.10"),
        goodbye=Decimal("0.01"),
        posted=Decimal(0),
        limit=Decimal("0.50"),
        valid_sec=300,
        final=False,
        limit_state="ok",
    )
    return replace(usual, **changes)


def account(**changes: object) -> Account:
    return Account.opened(grant(**changes), sent_at=1000.0)


def allowed(held: Account, now: float = 1000.0) -> bool:
    return held.may_respond(W, 10, now).allowed


def test_a_response_may_start_when_its_worst_case_is_held() -> None:
    assert allowed(account())


def test_the_goodbye_is_usable_for_nothing_else() -> None:
    assert allowed(account(reserved=W + Decimal("0.01")))
    assert not allowed(account(reserved=W + Decimal("0.009")))


def test_what_is_in_flight_is_spoken_for() -> None:
    held = account(reserved=Decimal("0.05")).held("r1", W)
    assert held.may_respond(W, 10, 1000.0).reason == ""
    assert not allowed(held.held("r2", W))
    assert allowed(held.held("r2", W).released("r2"))


def test_the_real_cost_takes_the_place_of_the_bound() -> None:
    held = account().held("request", W).renamed("request", "s/r1").billed("s/r1", Decimal("0.004"))
    assert held.holds == {}
    assert held.not_settled == held.spent == Decimal("0.004")


def test_an_answer_settles_what_its_request_carried_and_no_more() -> None:
    held = account().billed("a", Decimal("0.004")).billed("b", Decimal("0.005"))
    later = held.granted(grant(posted=Decimal("0.004")), 1020.0, ["a"])
    assert later.unsettled == {"b": Decimal("0.005")}
    assert later.spent == Decimal("0.009")
    assert later.valid_until == 1320.0


def test_validity_counts_from_sending_and_must_outlast_the_longest_response() -> None:
    assert allowed(account(), now=1274.0)
    decision = account().may_respond(W, 10, 1276.0)
    assert (decision.allowed, decision.reason) == (False, "validity")


def test_the_hard_limit_is_final_and_short() -> None:
    short = account(final=True, reserved=Decimal("0.02"))
    assert short.exhausted(W, 1000.0)
    assert not account(final=False, reserved=Decimal("0.02")).exhausted(W, 1000.0)


def test_a_fenced_or_closing_session_starts_nothing() -> None:
    assert account().fence().may_respond(W, 10, 1000.0).reason == "fenced"
    assert account().close().may_respond(W, 10, 1000.0).reason == "closing"


def test_the_goodbye_may_be_rendered_out_of_c() -> None:
    assert account(reserved=Decimal("0.01")).may_render(Decimal("0.01"), 1000.0).allowed
    assert not account(reserved=Decimal("0.01")).held("r1", W).may_render(Decimal("0.01"), 1000.0).allowed


def test_more_is_asked_for_before_it_is_short() -> None:
    assert account(reserved=Decimal("0.035")).short(W, 1000.0)
    assert not account(reserved=Decimal("0.045")).short(W, 1000.0)
    assert not account(reserved=Decimal("0.035"), final=True).short(W, 1000.0)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["hold", "bill", "free"])), max_size=30))
def test_no_sequence_lets_open_bounds_pass_what_is_reserved(steps: list[tuple[str, str]]) -> None:
    held = account()
    for key, step in steps:
        if step == "hold" and allowed(held) and key not in held.holds and key not in held.unsettled:
            held = held.held(key, W)
        elif step == "bill" and key in held.holds:
            held = held.billed(key, W)
        elif step == "free":
            held = held.released(key)
        assert held.in_flight + held.not_settled + held.grant.goodbye <= held.grant.reserved
