"""What the guests' events of a fault say: when words came again, who moved, which agent should have been silent."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from bench.failovers.figures import (
    NEVER,
    Event,
    Sample,
    answered_after_being_replaced,
    new_interview,
    quantile,
    restored,
    result,
    sample,
    words_again,
)


def told(*rows: tuple[float, str, str], **more: Any) -> list[Event]:
    return [{"at": at, "who": who, "what": what, **more} for at, who, what in rows]


@pytest.mark.parametrize(
    ("rows", "breaks", "at"),
    [
        ([(11, "reconnecting"), (14, "moved"), (16, "heard"), (20, "heard")], True, 16),
        ([(10.1, "heard"), (11, "reconnecting"), (14, "moved"), (16, "heard")], True, 16),  # what was in the buffer
        ([(11, "reconnecting"), (12, "reconnected"), (13, "heard"), (14, "reconnecting"), (15, "moved")], True, None),
        ([(11, "reconnecting"), (12, "reconnected"), (13, "heard")], True, 13),
        ([(11, "reconnecting"), (12, "back"), (13, "heard")], True, 13),  # the same room again
        ([(9, "moved"), (11, "heard")], True, None),  # it never broke: nothing was proven
        ([(11, "heard")], False, 11),
        ([(10.5, "heard"), (11, "reconnecting"), (14, "reconnected"), (15, "heard")], False, 15),
        ([], False, None),
    ],
)
def test_words_count_only_on_a_connection_that_is_good_again(
    rows: list[tuple[float, str]], breaks: bool, at: float | None
) -> None:
    events = told(*((when, "a", what) for when, what in rows), (10.2, "b", "heard"))
    assert words_again(sorted(events, key=lambda e: e["at"]), "a", 10, breaks=breaks) == at


def test_a_new_interview_is_there_when_both_are_in_the_room() -> None:
    events = told((1, "n", "token"), (2, "n", "joined"))
    assert new_interview(events, "n") is None
    assert new_interview([*events, *told((1.5, "n", "agents"), count=0), *told((3, "n", "agents"), count=1)], "n") == 3
    assert new_interview([*events, *told((1.5, "n", "agents"), count=1)], "n") == 2


def test_a_sample_names_who_moved_and_how_many_agents_one_guest_saw() -> None:
    events = [
        *told((1, "a", "token"), session="s1", server_url="ws://own"),
        *told((9, "a", "agents"), count=2),
        *told((11, "a", "reconnecting"), (14, "a", "moved")),
        *told((15, "a", "agents"), count=1),
        *told((16.5, "a", "heard")),
        *told((10.5, "n", "token"), session="s2", server_url="ws://cloud"),
        *told((12, "n", "joined")),
        *told((13, "n", "agents"), count=1),
    ]
    one = sample(events, 10, ["a"], "n")
    assert (one.new, one.new_server, one.again) == (3, "ws://cloud", {"a": 6.5})
    assert (one.moved, one.disturbed, one.ended) == ({"a"}, {"a"}, frozenset())
    assert one.most_agents == 1, "before the fault is another matter"
    assert one.sessions == {"a": "s1", "n": "s2"}


def asked(*rows: tuple[str, bool]) -> list[Event]:
    return [{"event": "response.create", "provider_session": one, "closing": closing} for one, closing in rows]


def test_an_agent_that_asks_after_its_successor_is_found_and_a_rendered_goodbye_is_not_one() -> None:
    owner = {"p1": "s", "p2": "s", "render": "s", "q1": "t"}
    in_order = asked(("p1", False), ("render", True), ("p1", False), ("q1", False), ("p2", False), ("p2", False))
    assert answered_after_being_replaced(in_order, owner) == set()
    assert answered_after_being_replaced([*in_order, *asked(("p1", False))], owner) == {"s"}


def test_restored_are_sessions_whose_later_agent_got_items_from_before() -> None:
    log = [{"event": "conversation.item.create", "provider_session": "p2", "item_id": "before_1"}]
    assert restored(log, {"p2": "s"}) == {"s"}
    assert restored([{**log[0], "item_id": "item_1"}], {"p2": "s"}) == set()


def test_who_never_came_back_counts_as_the_whole_wait() -> None:
    one = Sample(2.0, "", {"a": 5.0, "b": None}, frozenset("a"), frozenset("ab"), frozenset(), 2, {})
    figures = result([one], double=1, given_back=1, money={"lost": Decimal(0), "double": Decimal("0.01")})
    assert (figures["resume_p95_s"], figures["not_resumed"], figures["double_agents"]) == (NEVER, 1, 2)
    assert (figures["kills"], figures["new_session_p95_s"], figures["double_posted_usd"]) == (1, 2.0, "0.01")


@pytest.mark.parametrize(("share", "value"), [(0.5, 10), (0.95, 19), (1.0, 20), (0.0, 1)])
def test_quantiles_are_samples(share: float, value: float) -> None:
    assert quantile([float(number) for number in range(20, 0, -1)], share) == value
    assert quantile([], share) is None
