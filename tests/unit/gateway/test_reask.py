"""Back into the room, wait, or go on elsewhere."""

from dataclasses import replace
from typing import Any

import pytest
from talktime_gateway.reask import (
    AGAIN_SEC,
    HELD_AGAIN_SEC,
    HELD_SEC,
    LAPSE_SEC,
    MEMORY_SEC,
    MISSING_SEC,
    TOLD_SEC,
    UNREACHABLE_SEC,
    Look,
    Missed,
    Way,
    again_in,
    pool_down,
    sick,
    way,
)
from talktime_ledger.wire import DirectoryPool


def look(**changes: Any) -> Look:
    usual = Look(exists=True, for_sec=0.0, cut=False, sick=False, pool_down=False, elsewhere=True)
    return replace(usual, **changes)


@pytest.mark.parametrize(
    ("seen", "answer"),
    [
        (look(), Way.HERE),
        (look(pool_down=True), Way.HERE),  # a planned switch leaves live rooms alone
        (look(sick=True), Way.MOVE),  # Redis still remembers the dead node's room
        (look(sick=True, elsewhere=False), Way.HERE),
        (look(cut=True), Way.MOVE),
        (look(cut=True, elsewhere=False), Way.HERE),
        (look(exists=None), Way.WAIT),
        (look(exists=None, for_sec=UNREACHABLE_SEC), Way.MOVE),
        (look(exists=None, for_sec=99, elsewhere=False), Way.WAIT),
        (look(exists=None, pool_down=True), Way.WAIT),  # restarted at once, it may answer in a moment
        (look(exists=None, pool_down=True, for_sec=TOLD_SEC), Way.MOVE),
        (look(exists=None, sick=True), Way.WAIT),
        (look(exists=None, sick=True, for_sec=TOLD_SEC), Way.MOVE),
        (look(exists=None, cut=True), Way.MOVE),  # that server does not come back
        (look(exists=False), Way.WAIT),  # restarted a moment ago: its clients bring the room back
        (look(exists=False, for_sec=MISSING_SEC), Way.MOVE),
        (look(exists=False, for_sec=MISSING_SEC, elsewhere=False), Way.MOVE),
        (look(exists=False, sick=True), Way.MOVE),
        (look(exists=False, cut=True), Way.MOVE),
    ],
)
def test_ways(seen: Look, answer: Way) -> None:
    assert way(seen) is answer


@pytest.mark.parametrize(
    ("seen", "seconds"),
    [
        (look(), 0),
        (look(exists=None), AGAIN_SEC),
        (look(exists=None, for_sec=UNREACHABLE_SEC - 0.1), 0.1),
        (look(exists=None, for_sec=UNREACHABLE_SEC), 0),
        (look(exists=None, elsewhere=False), 0),  # nowhere to go: no look would change that
        (look(exists=None, sick=True), AGAIN_SEC),
        (look(exists=None, sick=True, for_sec=TOLD_SEC - 0.1), 0.1),
        (look(exists=None, sick=True, for_sec=TOLD_SEC), 0),
        (look(exists=None, cut=True), 0),
        (look(exists=False), 0),  # longer than a request may take
    ],
)
def test_a_young_silence_is_looked_at_again_within_the_request(seen: Look, seconds: float) -> None:
    assert again_in(seen) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("seen", "held_sec", "seconds"),
    [
        (look(), 0.0, HELD_AGAIN_SEC),
        (look(elsewhere=False), 1.0, HELD_AGAIN_SEC),  # the operator may yet open the way to the fallback
        (look(), HELD_SEC - 0.1, 0.1),
        (look(), HELD_SEC + 1, 0),
        (look(sick=True), 0.0, 0),  # moves
        (look(exists=False), 0.0, 0),
        (look(exists=None), 9.0, AGAIN_SEC),
    ],
)
def test_who_hears_nothing_in_a_room_that_is_there_is_held_for_a_while(
    seen: Look, held_sec: float, seconds: float
) -> None:
    assert again_in(seen, held_sec) == pytest.approx(seconds)


def test_looking_again_ends_in_a_move_within_little_more_than_the_silence_it_takes() -> None:
    silent, now = Missed(), 10.0
    while (wait := again_in(seen := look(exists=None, for_sec=silent.note("eu", False, now)))) > 0:
        now += wait
    assert way(seen) is Way.MOVE
    assert now - 10.0 == pytest.approx(UNREACHABLE_SEC)


def test_a_silence_of_long_ago_is_no_evidence_now() -> None:
    silent = Missed(LAPSE_SEC)
    silent.note("eu", False, 10)
    assert silent.note("eu", False, 10 + LAPSE_SEC) == LAPSE_SEC
    assert silent.note("eu", False, 11 + 2 * LAPSE_SEC) == 0


def pool_of(*nodes: dict[str, object]) -> DirectoryPool:
    told = {"namespace": "t", "name": "eu", "publicURL": "wss://a", "internalURL": "ws://a", "nodes": nodes}
    return DirectoryPool.model_validate(told)


def node(state: str, node_id: str = "ND_1", **more: object) -> dict[str, object]:
    return {"name": node_id.lower(), "nodeID": node_id, "state": state, **more}


@pytest.mark.parametrize(
    ("state", "is_sick"), [("Ready", False), ("Unknown", False), ("Draining", False), ("Sick", True), ("Moving", False)]
)
def test_a_node_is_sick_when_the_operator_says_so(state: str, is_sick: bool) -> None:
    pool = pool_of(node(state))
    assert sick(pool, "ND_1", answers=False) is is_sick
    assert sick(pool, "ND_2", answers=False) is False
    assert sick(None, "ND_1", answers=False) is False


@pytest.mark.parametrize(
    ("nodes", "answers", "is_sick"),
    [
        ([node("Sick", silent=True)], True, False),  # the only one there is: it has just answered
        ([node("Sick", silent=True)], False, True),
        ([node("Sick", silent=False)], True, True),  # answers, and its media path is lost
        ([node("Sick")], True, True),  # from an operator that does not say
        ([node("Sick", silent=True), node("Ready", "ND_2")], True, True),  # another node's answer
    ],
)
def test_a_silence_that_is_over_is_no_sickness(nodes: list[dict[str, object]], answers: bool, is_sick: bool) -> None:
    assert sick(pool_of(*nodes), "ND_1", answers=answers) is is_sick


@pytest.mark.parametrize(
    ("active", "health", "down"),
    [
        ("Fallback", "bad", True),
        ("Fallback", "unknown", True),
        ("Fallback", "good", False),  # its nodes answer again, and new rooms wait for that to last
        ("SelfHosted", "bad", False),
    ],
)
def test_a_pool_is_down_while_the_operator_says_so(active: str, health: str, down: bool) -> None:
    told = pool_of(node("Ready")).model_copy(update={"active": active, "health": health})
    assert pool_down(told) is down


def test_missing_counts_from_the_first_look_until_it_is_found_or_forgotten() -> None:
    missed = Missed()
    assert missed.note("s", False, 10) == 0
    assert missed.note("s", False, 13) == 3
    assert missed.note("s", True, 14) == 0
    assert missed.note("s", False, 15) == 0
    assert missed.note("s", False, 16 + MEMORY_SEC) == 0
