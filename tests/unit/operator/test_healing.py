"""A sick node is restarted only when that costs nobody anything and may mend something, and not for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_operator.pools.healing import (
    LONGEST,
    MOST,
    RECOVERED,
    SPEECHLESS,
    Past,
    Patient,
    Ward,
    decide,
    parse_past,
    render_past,
)
from talktime_operator.pools.health import Answer, Cause

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def ward(*patients: Patient, **changes: Any) -> Ward:
    return replace(Ward(patients, any_good=True, any_starting=False, cause=Cause.ONE_NODE), **changes)


def sick(answer: Answer, rooms: int | None = None, seconds: float = 60.0, name: str = "a") -> Patient:
    return Patient(name, answer, seconds, rooms)


@pytest.mark.parametrize(
    ("given_ward", "reason"),
    [
        # Serves nobody: whatever it holds.
        (ward(sick(Answer.HUNG)), "NodeRestarted"),
        (ward(sick(Answer.REFUSED, 7)), "NodeRestarted"),
        (ward(sick(Answer.HUNG), any_good=False, cause=Cause.ALL_NODES), "NodeRestarted"),
        # Serves somebody, or may.
        (ward(sick(Answer.NO_ROOMS, 0)), "NodeRestarted"),
        (ward(sick(Answer.NO_ROOMS, 1)), "LiveSessions"),
        (ward(sick(Answer.NO_ROOMS)), "SessionsUnknown"),
        (ward(sick(Answer.WRONG)), "SessionsUnknown"),
        (ward(sick(Answer.STALE)), "SessionsUnknown"),
        (ward(sick(Answer.NO_MEDIA, 0)), "NodeRestarted"),
        (ward(sick(Answer.NO_MEDIA, 2)), "LiveSessions"),
        # A restart does not mend it.
        (ward(sick(Answer.NO_MEDIA, 0), any_good=False, cause=Cause.MEDIA), "NoMediaAnywhere"),
        (ward(sick(Answer.SILENT, 0)), "MachineAway"),
        (ward(replace(sick(Answer.HUNG), machine_away=True)), "MachineAway"),
        (ward(sick(Answer.NO_ROOMS, 0), any_good=False, cause=Cause.REDIS), "RedisAway"),
        (ward(sick(Answer.HUNG), any_good=False, cause=Cause.REDIS), "RedisAway"),
        (ward(sick(Answer.HUNG), any_good=False, cause=Cause.NETWORK), "OwnNetwork"),
        # Not yet, and not two at once.
        (ward(sick(Answer.HUNG, seconds=59)), "NoSickNode"),
        (ward(sick(Answer.HUNG), any_starting=True), "OneAtATime"),
        (ward(), "NoSickNode"),
    ],
)
def test_who_is_restarted(given_ward: Ward, reason: str) -> None:
    made = decide(given_ward, {}, MINUTE, NOW)
    assert made.finding.reason == reason
    assert (made.restart == "a") == (reason == "NodeRestarted")
    assert made.finding.message or reason == "NoSickNode"


def test_the_one_that_is_sick_for_longest_goes_first_and_alone() -> None:
    made = decide(ward(sick(Answer.HUNG, name="a"), sick(Answer.HUNG, seconds=99, name="b")), {}, MINUTE, NOW)
    assert (made.restart, sorted(made.past)) == ("b", ["b"])


def test_it_is_looked_at_again_when_its_time_has_come() -> None:
    assert decide(ward(sick(Answer.HUNG, seconds=20)), {}, MINUTE, NOW).again == 40


def test_never_is_never() -> None:
    assert decide(ward(sick(Answer.HUNG)), {}, None, NOW).restart == ""


@pytest.mark.parametrize(
    ("count", "since", "restart"),
    [
        (1, timedelta(seconds=119), ""),
        (1, timedelta(seconds=120), "a"),
        (2, timedelta(seconds=239), ""),
        (2, timedelta(seconds=240), "a"),
        (MOST, timedelta(hours=5), ""),
    ],
)
def test_each_wait_is_twice_the_one_before_and_there_is_an_end(count: int, since: timedelta, restart: str) -> None:
    made = decide(ward(sick(Answer.HUNG)), {"a": Past(count, NOW - since)}, MINUTE, NOW)
    assert made.restart == restart
    if count == MOST:
        assert made.finding.reason == "GaveUp"
    elif not restart:
        assert made.again == pytest.approx((MINUTE * 2**count - since).total_seconds())


def test_a_node_that_is_well_again_starts_from_nought() -> None:
    past = {"a": Past(3, NOW - RECOVERED), "b": Past(1, NOW - MINUTE)}
    made = decide(ward(), past, MINUTE, NOW)
    assert sorted(made.past) == ["b"]
    assert made.finding.reason == "NodeRestarted"
    assert sorted(decide(ward(sick(Answer.SILENT)), past, MINUTE, NOW).past) == ["a", "b"]


def test_what_is_remembered_survives_the_status() -> None:
    past = {"a": Past(2, NOW, "hangs"), "b": Past(1, NOW)}
    assert parse_past({"restarts": render_past(past)}) == past
    assert parse_past({"restarts": [{"node": "a"}, {"node": "b", "count": 1, "last": "soon"}]}) == {}


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Answer)), st.sampled_from([None, 0, 3]), st.sampled_from(list(Cause))),
        min_size=1,
        max_size=200,
    ),
    st.integers(10, 600),
)
def test_however_sick_it_is_the_steps_are_bounded(story: list[tuple[Answer, int | None, Cause]], first: int) -> None:
    """Law: never for Redis or our network, never with live sessions on a server that serves, at most MOST in a row,
    and never two within the first wait."""
    past: dict[str, Past] = {}
    restarts: list[datetime] = []
    now, after = NOW, timedelta(seconds=first)
    for answer, rooms, cause in story:
        now += timedelta(seconds=first / 2)
        made = decide(ward(sick(answer, rooms, seconds=1e6), cause=cause), past, after, now)
        past = parse_past({"restarts": render_past(made.past)})
        if made.restart:
            assert cause not in (Cause.REDIS, Cause.NETWORK)
            assert answer in SPEECHLESS or rooms == 0
            assert not restarts or now - restarts[-1] >= min(after, LONGEST)
            restarts.append(now)
    assert len(restarts) <= MOST
