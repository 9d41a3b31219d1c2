"""The watcher's decisions: phantom sessions go, used ones stay, missing data decides nothing."""

import pytest
from talktime_gateway.rooms import Dispatch, Present
from talktime_gateway.watch import Act, Alone, Seen, decide, needs_dispatch

TALKER = Present("participant-1", "PA_1", 100.0, agent=False)
AGENT = Present("agent-AJ_1", "PA_2", 100.0, agent=True)
OBSERVER = Present("observer-1", "PA_3", 100.0, agent=False)


def seen(**changes: object) -> Seen:
    values: dict[str, object] = {
        "age_sec": 300.0,
        "attached": False,
        "room_exists": True,
        "present": (),
        "alone_sec": 0.0,
        **changes,
    }
    return Seen(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("situation", "act"),
    [
        (seen(room_exists=False), Act.CLOSE_GONE),
        (seen(room_exists=False, age_sec=59), Act.NOTHING),
        (seen(room_exists=False, attached=True), Act.NOTHING),
        (seen(alone_sec=61), Act.CLOSE_NO_SHOW),
        (seen(alone_sec=61, present=(AGENT, OBSERVER)), Act.CLOSE_NO_SHOW),
        (seen(alone_sec=10), Act.NOTHING),
        (seen(alone_sec=61, age_sec=30), Act.NOTHING),
        (seen(present=(TALKER, AGENT)), Act.NOTHING),
        (seen(present=(TALKER, AGENT), attached=True), Act.NOTHING),
        (seen(present=(TALKER, OBSERVER)), Act.REDISPATCH),
        (seen(present=(TALKER, AGENT), lost=True), Act.REDISPATCH),  # the lost one, which LiveKit still shows
        (seen(present=(TALKER,), attached=True), Act.NOTHING),
        (seen(attached=True, alone_sec=61, present=(AGENT,)), Act.NOTHING),
        (seen(attached=True, alone_sec=121, present=(AGENT, OBSERVER)), Act.DELETE_ROOM),
    ],
)
def test_decisions(situation: Seen, act: Act) -> None:
    assert decide(situation, join_timeout=60) is act


@pytest.mark.parametrize(
    ("dispatches", "again"),
    [
        ([], True),
        ([Dispatch("d", "", alive=False, created_at=990)], True),
        ([Dispatch("d", "", alive=False, created_at=998)], False),
        ([Dispatch("d", "", alive=True, created_at=990)], False),
        ([Dispatch("d", "", alive=True, created_at=960)], True),
        ([Dispatch("d", "", alive=False, created_at=900), Dispatch("e", "", alive=False, created_at=999)], False),
    ],
)
def test_a_dispatch_nobody_took_is_repeated(dispatches: list[Dispatch], again: bool) -> None:
    assert needs_dispatch(dispatches, now=1000, after_sec=5) is again


def test_time_alone_counts_from_the_first_look_and_restarts_when_somebody_comes() -> None:
    alone = Alone()
    assert alone.seconds("s", 5) == 0
    alone.note({"s": False}, 10)
    alone.note({"s": False}, 40)
    assert alone.seconds("s", 40) == 30
    alone.note({"s": True}, 50)
    assert alone.seconds("s", 55) == 0
    alone.note({"s": False}, 60)
    assert alone.seconds("s", 61) == 1
