"""The bench's own parts: the article's enforcer as printed, traces that can be paid for, verdicts that can fail."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import overshoot
from bench.enforcers import peers, study
from bench.enforcers.ours import Counted, Outcome
from bench.enforcers.published import BudgetEnforcer, BudgetStatus, MendedEnforcer
from bench.enforcers.trace import draw
from bench.enforcers.worker import Job, Result

BOUNDS = study.bounds()


@pytest.mark.parametrize(
    ("spent", "cost", "published", "mended"),
    [
        (0.0, 0.0, BudgetStatus.OK, BudgetStatus.OK),
        (0.0, 2.5, BudgetStatus.SOFT_LIMIT, BudgetStatus.SOFT_LIMIT),
        (0.0, 3.0, BudgetStatus.HARD_LIMIT, BudgetStatus.HARD_LIMIT),
        (1200.0, 0.0, BudgetStatus.SOFT_LIMIT, BudgetStatus.SOFT_LIMIT),
        (1499.0, 1.0, BudgetStatus.HARD_LIMIT, BudgetStatus.HARD_LIMIT),
        (1499.0, 2.5, BudgetStatus.SOFT_LIMIT, BudgetStatus.HARD_LIMIT),
    ],
)
def test_a_soft_session_hides_an_empty_project_only_as_published(
    spent: float, cost: float, published: BudgetStatus, mended: BudgetStatus
) -> None:
    assert BudgetEnforcer(1500.0, spent, 3.0).check(cost) is published
    assert MendedEnforcer(1500.0, spent, 3.0).check(cost) is mended


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_no_response_of_a_trace_costs_more_than_its_worst_case(seed: int) -> None:
    for visit in draw(seed, 20, BOUNDS).visits:
        assert visit.goodbye_cost <= BOUNDS.goodbye
        for turn in visit.turns:
            assert turn.cost <= BOUNDS.response(turn.context_before, turn.heard_sec)
            assert turn.heard_cost <= BOUNDS.transcription(turn.heard_sec)


def test_a_seed_is_a_trace() -> None:
    assert draw(7, 50, BOUNDS) == draw(7, 50, BOUNDS)
    assert draw(7, 50, BOUNDS) != draw(8, 50, BOUNDS)


def test_one_session_is_kept_by_everybody_and_500_by_nobody_who_only_looks() -> None:
    alone, crowd = draw(1, 1, BOUNDS), draw(1, 500, BOUNDS)
    assert crowd.spent == Decimal(1350)
    for enforcer in peers.PEERS.values():
        assert peers.billed_under(alone, enforcer) - alone.spent <= study.SESSION_LIMIT
        assert peers.overshoot(crowd, enforcer) > 0
    assert peers.overshoot(crowd, peers.snapshot) > 3 * peers.overshoot(crowd, peers.Polled)


def test_a_refused_session_costs_nothing() -> None:
    trace = draw(1, 50, BOUNDS)

    class Never:
        def check(self, session_cost: float) -> BudgetStatus:
            return BudgetStatus.HARD_LIMIT

    assert peers.billed_under(trace, lambda books: Never()) == trace.spent


GOOD = {"truth": Decimal(1499), "usable": Decimal("0.999")}


@pytest.mark.parametrize(
    ("counted", "outcome", "words"),
    [
        ({}, {}, []),
        ({}, {"overshoot": Decimal("0.000000001")}, ["overshoot"]),
        ({"false_refusals": 1}, {}, ["false refusals"]),
        ({"usable": Decimal("0.98")}, {}, ["usable ratio"]),
        ({"usable": None}, {}, ["usable ratio"]),
        ({}, {"reserved_after": Decimal("0.000000001")}, ["reserved after"]),
        ({"differing_replies": 1}, {}, ["a repeat got another reply"]),
        ({}, {"adds_up": False}, ["books"]),
    ],
)
def test_each_bar_can_be_missed(counted: dict[str, object], outcome: dict[str, object], words: list[str]) -> None:
    kept = {
        "overshoot": Decimal(0),
        "posted": Decimal(1499),
        "reserved_after": Decimal("0E-9"),
        "unmetered": Decimal(0),
        "adds_up": True,
    }
    ours = Outcome(Counted(**{**GOOD, **counted}), **{**kept, **outcome})  # type: ignore[arg-type]
    overs = {name: Decimal(1) for name in peers.PEERS}
    told = overshoot.figures([Result(Job(0, 1, 500, http=False), overs, ours, 10, 0)], 1.0)
    assert overshoot.missed(told, []) == words
    assert overshoot.missed(told, ["a session posted something else"]) == [*words, "posted is not what was billed"]
