"""Back into the room, wait, or go on elsewhere."""

import pytest
from talktime_gateway.reask import (
    AGAIN_SEC,
    HELD_AGAIN_SEC,
    HELD_SEC,
    LAPSE_SEC,
    MEMORY_SEC,
    MISSING_SEC,
    UNREACHABLE_SEC,
    Look,
    Missed,
    Way,
    again_in,
    node_gone,
    way,
)
from talktime_ledger.wire import DirectoryPool


def look(**changes: object) -> Look:
    told = {"exists": True, "for_sec": 0.0, "node_gone": False, "pool_down": False, "elsewhere": True, **changes}
    return Look(**told)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "answer"),
    [
        (look(), Way.HERE),
        (look(pool_down=True), Way.HERE),  # a planned switch leaves live rooms alone
        (look(node_gone=True), Way.MOVE),  # Redis still remembers the dead node's room
        (look(node_gone=True, elsewhere=False), Way.HERE),
        (look(exists=None), Way.WAIT),
        (look(exists=None, for_sec=UNREACHABLE_SEC), Way.MOVE),
        (look(exists=None, for_sec=99, elsewhere=False), Way.WAIT),
        (look(exists=None, pool_down=True), Way.MOVE),
        (look(exists=None, node_gone=True), Way.MOVE),
        (look(exists=False), Way.WAIT),  # restarted a moment ago: its clients bring the room back
        (look(exists=False, for_sec=MISSING_SEC), Way.MOVE),
        (look(exists=False, for_sec=MISSING_SEC, elsewhere=False), Way.MOVE),
        (look(exists=False, node_gone=True), Way.MOVE),
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
        (look(exists=None, node_gone=True), 0),
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
        (look(node_gone=True), 0.0, 0),  # moves
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


@pytest.mark.parametrize(
    ("state", "gone"), [("Ready", False), ("Unknown", False), ("Draining", False), ("Sick", True), ("Moving", True)]
)
def test_a_node_is_gone_when_the_operator_says_so(state: str, gone: bool) -> None:
    node = {"name": "n", "nodeID": "ND_1", "state": state}
    pool = DirectoryPool.model_validate(
        {"namespace": "t", "name": "eu", "publicURL": "wss://a", "internalURL": "ws://a", "nodes": [node]}
    )
    assert node_gone(pool, "ND_1") is gone
    assert node_gone(pool, "ND_2") is False
    assert node_gone(None, "ND_1") is False


def test_missing_counts_from_the_first_look_until_it_is_found_or_forgotten() -> None:
    missed = Missed()
    assert missed.note("s", False, 10) == 0
    assert missed.note("s", False, 13) == 3
    assert missed.note("s", True, 14) == 0
    assert missed.note("s", False, 15) == 0
    assert missed.note("s", False, 16 + MEMORY_SEC) == 0
