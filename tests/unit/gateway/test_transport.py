"""Participant-seconds: cumulative per connection, the same from every replica."""

from talktime_gateway.rooms import Present
from talktime_gateway.transport import participant_seconds


def test_every_connection_counts_from_its_own_join() -> None:
    present = [
        Present("participant-1", "PA_1", 100.0, agent=False),
        Present("agent-x", "PA_2", 90.5, agent=True),
        Present("observer-1", "PA_3", 159.9, agent=False),
    ]
    assert participant_seconds(present, 160.0) == {
        "participant-1/PA_1": 60,
        "agent-x/PA_2": 69,
        "observer-1/PA_3": 0,
    }


def test_an_unknown_or_future_join_time_counts_nothing() -> None:
    assert participant_seconds([Present("a", "PA_1", 0.0, agent=False), Present("b", "PA_2", 200.0, False)], 100) == {}
