"""What is told of a drain that its deadline ended: who was moved, in the same session, knowing what was said, by one
agent; and who was not to notice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from bench import asked, bars
from bench.drain_rounds.moves import NEVER, Moves, again, agents_at_end, result, wrong
from bench.drains import BARS
from bench.failovers.figures import Event


def told(*rows: tuple[float, str, str], **more: Any) -> list[Event]:
    return [{"at": at, "who": who, "what": what, **more} for at, who, what in rows]


@pytest.mark.parametrize(
    ("rows", "seconds"),
    [
        ([(50, "reconnecting"), (54, "back"), (58, "heard")], 8),
        ([(12, "heard"), (50, "reconnecting"), (54, "back")], None),  # words from before the break are none
        ([(12, "heard"), (60, "heard")], None),  # never broke: nobody was moved
        ([(5, "reconnecting"), (6, "reconnected"), (12, "heard")], None),  # before the act: not its doing
        ([(50, "reconnecting"), (51, "reconnected"), (53, "reconnecting"), (57, "back"), (60, "heard")], 10),
    ],
)
def test_silence_is_from_the_first_break_until_words_on_a_good_connection(
    rows: list[tuple[float, str]], seconds: float | None
) -> None:
    assert again(told(*((at, "a", what) for at, what in rows)), "a", 10) == seconds


def test_agents_at_the_end_are_what_each_guest_saw_last() -> None:
    events = [
        *told((1, "a", "agents"), count=1),
        *told((9, "a", "agents"), count=2),
        *told((3, "b", "agents"), count=1),
    ]
    assert agents_at_end(events, ["a", "b", "c"]) == {"a": 2, "b": 1, "c": 0}


GOOD = Moves(
    node="sfu-0",
    guests=("a",),
    others=("b", "c"),
    sessions={"a": "s1", "b": "s2", "c": "s3"},
    gone=31.0,
    again={"a": 8.0},
    counted=1,
    agents={"a": 1, "b": 1, "c": 1},
    disturbed=("b",),
)
ROWS = [{"id": "s1", "epoch": 2, "close_reason": "participant_left"}]


def test_a_rest_that_goes_on_elsewhere_is_right_and_others_may_have_had_to_connect_anew() -> None:
    assert wrong(GOOD, {"s1"}, ROWS) == []
    assert (GOOD.moved, GOOD.unmoved) == ({"s1"}, {"s2", "s3"})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"again": {"a": None}}, "a did not hear an agent again"),
        ({"stayed": ("a",)}, "a is still on sfu-0"),
        ({"ended": ("c",)}, "c: its interview ended"),
        ({"renamed": ("a",)}, "a came into another session"),
        ({"silent": ("b",)}, "b did not talk on, on the other node"),
        ({"most_agents": 2}, "2 agents in a room"),
        ({"agents": {"a": 2, "b": 1, "c": 1}}, "a had 2 agents at the end"),
        ({"gone": None}, "sfu-0 has not gone"),
        ({"counted": None}, "status.lastDrain of sfu-0 says None moved, not 1"),
        ({"counted": 0}, "status.lastDrain of sfu-0 says 0 moved, not 1"),
        ({"wrong": ("sfu-0 drains for Update, not ScaleDown",)}, "sfu-0 drains for Update, not ScaleDown"),
    ],
)
def test_anything_else_is_wrong(more: dict[str, Any], words: str) -> None:
    assert wrong(replace(GOOD, **more), {"s1"}, ROWS) == [words]


def test_the_next_agent_knows_what_was_said_and_the_ledger_knows_of_it() -> None:
    assert wrong(GOOD, set(), ROWS) == ["a: the next agent did not know what had been said"]
    same = [{"id": "s1", "epoch": 1, "close_reason": "room_closed"}]
    assert wrong(GOOD, {"s1"}, same) == ["a: epoch 1, closed as room_closed"]
    assert wrong(GOOD, {"s1"}, []) == ["a: epoch 0, closed as unknown to the ledger"]


def test_the_figures_count_who_was_moved_and_who_never_came_back_as_the_whole_wait() -> None:
    worse = replace(GOOD, again={"a": None}, stayed=("a",), gone=None, most_agents=2, silent=("c",))
    found = result([GOOD, worse], restored={"s1"}, double={"s2"})
    assert (found["rounds"], found["interviews"], found["on_the_node"], found["moved"]) == (2, 6, 2, 1)
    assert (found["not_resumed"], found["resume_p95_s"], found["resume_median_s"]) == (1, NEVER, 8.0)
    assert (found["gone_after_deadline_most_s"], found["double_agents"]) == (NEVER, 1)
    assert (found["others"], found["others_disturbed"], found["others_silent"]) == (4, 2, 1)


def test_fewer_drains_than_asked_for_are_told() -> None:
    wanted = Counter({"scale-down": 20, "upgrade": 5}) + Counter({"deadline_moves": 3})
    assert asked.short(wanted, Counter({"scale-down": 20, "upgrade": 4})) == {
        "upgrade": {"asked": 5, "ran": 4},
        "deadline_moves": {"asked": 3, "ran": 0},
    }


def test_the_bars_read_the_figures_of_the_deadline() -> None:
    found = {"cut": 0, "deadline_moves": result([replace(GOOD, again={"a": None})], {"s1"}, set())}
    assert bars.missed(found, BARS) == ["deadline_moves.not_resumed 1, bar == 0"]
