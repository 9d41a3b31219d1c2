"""What is told of drains: which interviews were cut, who talked on, how long a node took to go, in which order acts
come."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from bench.drain_rounds.acts import NODE_DRAIN, SCALE_DOWN, UPGRADE, order
from bench.drain_rounds.figures import NEVER, Drained, Sample, broken, cut_off, result, talked_on, there
from bench.failovers.figures import Event


def told(*rows: tuple[float, str, str], **more: Any) -> list[Event]:
    return [{"at": at, "who": who, "what": what, **more} for at, who, what in rows]


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        ([(11, "heard"), (12, "turn"), (30, "leaving"), (30.1, "ended"), (30.2, "left")], []),
        ([(9, "reconnecting"), (9.5, "reconnected"), (30, "leaving")], []),  # before the act: not its doing
        ([(11, "reconnecting"), (11.3, "reconnected"), (30, "leaving")], ["reconnecting"]),
        ([(11, "reconnecting"), (14, "moved")], ["reconnecting", "moved"]),  # it never hung up
        ([(12, "ended")], ["ended"]),
        ([(12, "failed")], ["failed"]),
    ],
)
def test_cut_is_what_breaks_between_the_act_and_the_guests_own_leaving(
    rows: list[tuple[float, str]], kinds: list[str]
) -> None:
    events = told(*((at, "a", what) for at, what in rows))
    assert broken(events, 10, newcomers=()) == ({"a": kinds} if kinds else {})


def test_a_newcomer_that_is_refused_is_cut() -> None:
    assert broken(told((12, "n", "refused")), 10, newcomers=["n"]) == {"n": ["refused"]}


@pytest.mark.parametrize(
    ("rows", "talked"),
    [
        ([(11, "heard"), (13, "turn")], True),
        ([(9, "turn"), (11, "heard")], False),
        ([(11, "turn")], False),
        ([(9, "heard"), (11, "turn")], False),
    ],
)
def test_talking_on_is_hearing_and_speaking_after_the_drain_began(rows: list[tuple[float, str]], talked: bool) -> None:
    assert talked_on(told(*((at, "a", what) for at, what in rows)), "a", 10) is talked


def test_a_guest_is_there_when_it_has_heard_the_agent() -> None:
    events = told((1, "a", "joined"), (2, "b", "heard"))
    assert not there(events, "a")
    assert there([*events, *told((3, "a", "heard"))], "a")


def test_the_ledger_tells_of_an_interview_that_lost_its_agent_moved_or_was_ended() -> None:
    def row(name: str, epoch: int = 1, losses: int = 0, reason: str = "participant_left") -> dict[str, Any]:
        return {"id": name, "epoch": epoch, "losses": losses, "close_reason": reason}

    rows = [row("whole"), row("moved", epoch=2), row("lost", losses=1), row("over", reason="room_closed")]
    found = cut_off(rows, ["whole", "moved", "lost", "over", "never"])
    assert set(found) == {"moved", "lost", "over", "never"}
    assert found["over"] == "epoch 1, 0 losses, closed as room_closed"


def test_the_result_counts_interviews_once_and_a_node_that_never_went_as_the_whole_wait() -> None:
    def drained(guests: tuple[str, ...], done: float | None) -> Drained:
        return Drained("n", "ND", "ScaleDown", 1.0, guests, left=20.0, done=done, moved=0)

    one = Sample(
        "scale-down", 0.0, [drained(("a",), 32.0)], ("n",), sessions={"a": "s1", "b": "s2", "n": "s3"}, took=60
    )
    two = Sample(
        "upgrade",
        0.0,
        [drained((), 25.0), drained(("c", "d"), None)],
        ("m",),
        astray=("m",),
        cut={"c": ["reconnecting"], "m": ["refused"]},
        sessions={"c": "s4", "d": "s5"},
        took=110,
    )
    three = Sample("node-drain", 0.0, [drained(("e",), 24.0)], sessions={"e": "s6"}, refused=3, took=50)
    money = {"lost": Decimal(0), "double": Decimal("0.01")}
    figures = result([one, two, three], {"s4": "epoch 2", "s6": "closed as room_closed"}, money)
    assert (figures["scale_downs"], figures["upgrades"], figures["node_drains"]) == (1, 1, 1)
    assert (figures["interviews"], figures["cut"]) == (6, 3), "c by both, e by the ledger, m never had a session"
    assert (figures["nodes_drained"], figures["rooms_on_drained_node"], figures["drained_nodes_without_rooms"]) == (
        4,
        4,
        1,
    )
    assert (figures["newcomers"], figures["newcomers_on_draining_node"]) == (2, 1)
    assert (figures["drain_done_p95_s"], figures["upgrade_done_p95_s"], figures["scale_down_done_p95_s"]) == (
        NEVER,
        NEVER,
        12.0,
    )
    assert (figures["evictions_refused"], figures["round_median_s"], figures["double_posted_usd"]) == (3, 60, "0.01")


def test_a_run_that_ends_early_has_some_of_each_act() -> None:
    acts = order(20, 5, 5)
    assert Counter(one.name for one in acts) == {"scale-down": 20, "upgrade": 5, "node-drain": 5}
    for part in range(5):
        assert set(acts[part * 6 : part * 6 + 6]) == {SCALE_DOWN, UPGRADE, NODE_DRAIN}
    assert order(1, 0, 0) == [SCALE_DOWN]
