"""What becomes of a session that lost its agent."""

import pytest
from talktime_gateway.rooms import Dispatch, Present
from talktime_gateway.watch import RETURN_SEC, Act, Next, Seen, Since, decide, next_of, of_epoch
from talktime_ledger.wire.resume import MOST_LOSSES

TALKER = Present("participant-1", "PA_1", 100.0, agent=False)
GHOST = Present("agent-AJ_1", "PA_2", 100.0, agent=True)


@pytest.mark.parametrize(
    ("losses", "silent", "present", "waited", "step"),
    [
        (1, False, (TALKER, GHOST), 0, Next.RESTAFF),
        (0, True, (TALKER,), 0, Next.RESTAFF),
        (MOST_LOSSES, False, (TALKER,), 0, Next.RESTAFF),
        (MOST_LOSSES + 1, False, (TALKER,), 0, Next.GOODBYE),
        (MOST_LOSSES, True, (TALKER,), 0, Next.GOODBYE),
        (MOST_LOSSES + 1, True, (TALKER,), 0, Next.GIVE_UP),  # who was to say goodbye has died, too
        (MOST_LOSSES + 2, False, (TALKER,), 0, Next.GIVE_UP),
        (MOST_LOSSES + 1, False, (GHOST,), RETURN_SEC + 1, Next.GIVE_UP),
        (1, False, (GHOST,), RETURN_SEC, Next.WAIT),
        (1, False, (GHOST,), RETURN_SEC + 1, Next.GIVE_UP),
    ],
)
def test_a_lost_agent_is_replaced_where_somebody_waits_and_not_for_ever(
    losses: int, silent: bool, present: tuple[Present, ...], waited: float, step: Next
) -> None:
    assert next_of(losses, silent, present, waited) is step


@pytest.mark.parametrize(
    ("exists", "present", "alone", "act"),
    [
        (True, (TALKER,), 0, Act.REDISPATCH),
        (True, (TALKER, GHOST), 0, Act.REDISPATCH),  # if its dispatch is missing: LiveKit shows the lost one
        (True, (), 30, Act.NOTHING),
        (True, (), 61, Act.CLOSE_LOST),
        (False, (), 30, Act.NOTHING),
        (False, (), 61, Act.CLOSE_LOST),
    ],
)
def test_the_census_keeps_a_lost_session_for_its_participant(
    exists: bool, present: tuple[Present, ...], alone: float, act: Act
) -> None:
    seen = Seen(300, attached=False, room_exists=exists, present=present, alone_sec=alone, lost=True)
    assert decide(seen, join_timeout=60) is act


def test_a_dispatch_for_an_earlier_epoch_is_none() -> None:
    old, new = Dispatch("a", "1", alive=True, created_at=1), Dispatch("b", "2", alive=True, created_at=2)
    assert of_epoch([old, new], "2") == [new]


def test_waiting_counts_from_the_first_look() -> None:
    since = Since()
    since.note(["s"], 10)
    since.note(["s"], 15)
    assert since.seconds("s", 20) == 10
    since.note([], 21)
    assert since.seconds("s", 22) == 0
