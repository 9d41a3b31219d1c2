"""Seconds of connections: what is known, what is lost, what the two media bill of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.transport import (
    AUDIO_BYTES_PER_SEC,
    CLOUD_BYTES,
    VIDEO_BYTES_PER_SEC,
    Company,
    Connection,
    ahead,
    billed,
    egress_bytes,
    lost,
    merged,
    metered,
)
from talktime_ledger.desk.connections import Kept, told
from talktime_ledger.wire import Transport

SECONDS = st.integers(0, 7200)
SIGHTINGS = st.builds(Connection, seen=SECONDS)
SECOND, VIDEO, BYTES = Meter.PARTICIPANT_SECONDS, Meter.VIDEO_TRACK_SECONDS, Meter.EGRESS_BYTES
TALKER, AGENT, SECOND_AGENT, WATCHER = "participant-1/PA_1", "agent-AJ_1/PA_2", "agent-AJ_2/PA_4", "observer-1/PA_3"


@pytest.mark.parametrize(
    ("lasted", "own", "cloud"),
    [
        (0, 0, 60),
        (1, 1, 60),
        (10, 10, 60),
        (59, 59, 60),
        (60, 60, 60),
        (61, 61, 120),
        (119, 119, 120),
        (1800,) * 3,
    ],
)
def test_cloud_bills_begun_minutes_and_an_own_sfu_its_seconds(lasted: int, own: int, cloud: int) -> None:
    assert (billed(lasted, cloud=False), billed(lasted, cloud=True)) == (own, cloud)


def test_a_reconnect_of_ten_seconds_costs_a_minute_on_cloud_only() -> None:
    four = [Connection(50, cloud=True), Connection(10, cloud=True), Connection(50), Connection(10)]
    connections = {f"participant-1/PA_{number}": one for number, one in enumerate(four)}
    assert metered(connections, cloud=True)[SECOND] == 120
    assert metered(connections, cloud=False)[SECOND] == 60


@pytest.mark.parametrize(
    ("keys", "speakers", "listeners"),
    [
        ([], 0, 0),
        ([TALKER], 1, 1),
        ([TALKER, AGENT], 2, 2),
        ([TALKER, "participant-1/PA_9", AGENT], 2, 2),
        ([TALKER, AGENT, SECOND_AGENT], 2, 2),
        ([TALKER, AGENT, WATCHER, "observer-2/PA_5"], 2, 4),
        ([TALKER, "participant-2/PA_6", AGENT], 3, 3),
    ],
)
def test_who_speaks_and_who_listens(keys: list[str], speakers: int, listeners: int) -> None:
    """A reconnect is no other person, and the agent that follows one that died does not speak beside it."""
    assert Company.of(keys) == Company(speakers, listeners)


@pytest.mark.parametrize(
    ("key", "connection", "expected"),
    [
        (TALKER, Connection(100), 100 * AUDIO_BYTES_PER_SEC),
        (AGENT, Connection(100), 100 * AUDIO_BYTES_PER_SEC),
        (WATCHER, Connection(100), 100 * 2 * AUDIO_BYTES_PER_SEC),
        (TALKER, Connection(100, video=40), 100 * AUDIO_BYTES_PER_SEC + 40 * 2 * VIDEO_BYTES_PER_SEC),
        (TALKER, Connection(1, cloud=True), CLOUD_BYTES),
        (TALKER, Connection(1000, cloud=True), 2 * CLOUD_BYTES),
    ],
)
def test_traffic_of_a_connection_is_what_it_heard_and_its_video_to_the_others(
    key: str, connection: Connection, expected: int
) -> None:
    assert egress_bytes(key, connection, connection.seen, Company(speakers=2, listeners=3)) == expected


def test_half_an_hour_for_two_is_54_megabytes() -> None:
    both = {TALKER: Connection(1800), AGENT: Connection(1800)}
    assert metered(both, cloud=False) == {SECOND: 3600, VIDEO: 0, BYTES: 54_000_000}


def test_lost_time_has_traffic_too() -> None:
    company = Company(2, 2)
    unseen = Connection(45, gone=60)
    assert lost(TALKER, unseen, company) == {SECOND: 15, BYTES: 15 * AUDIO_BYTES_PER_SEC}
    assert lost(TALKER, merged(unseen, Connection(left=52)), company) == {}


@pytest.mark.parametrize(
    ("connection", "certain", "lost"),
    [
        (Connection(45), 45, 0),
        (Connection(45, gone=60), 45, 15),
        (Connection(45, gone=60, left=52), 52, 0),
        (Connection(45, gone=45), 45, 0),
        (Connection(0, left=3), 3, 0),
        (Connection(52, left=51), 52, 0),
        (Connection(45, gone=60, cloud=True), 60, 0),
        (Connection(55, gone=70, cloud=True), 60, 60),
        (Connection(55, gone=70, left=58, cloud=True), 60, 0),
    ],
)
def test_what_is_certain_and_what_is_at_most_lost(connection: Connection, certain: int, lost: int) -> None:
    assert (connection.metered, connection.lost) == (certain, lost)


def test_of_two_replicas_the_tighter_word_counts() -> None:
    one, other = Connection(45, gone=60), Connection(48, gone=63)
    assert merged(one, other) == merged(other, one) == Connection(48, gone=60)


def test_an_absence_before_a_sighting_was_none() -> None:
    assert merged(Connection(45, gone=60), Connection(75)) == Connection(75)


def test_the_medium_of_a_connection_is_the_one_it_was_first_told_with() -> None:
    assert merged(Connection(10), Connection(20, cloud=True)) == Connection(20)


@given(st.lists(SIGHTINGS, min_size=1), SECONDS, st.randoms())
def test_order_and_repeats_change_nothing(sightings: list[Connection], slack: int, random: object) -> None:
    """As long as nobody is seen after the absence: then any order, and any of them twice, comes to the same."""
    end = max(s.seen for s in sightings) + slack
    told_of = [*sightings, Connection(gone=end), Connection(left=end)]
    shuffled = [*told_of, *told_of[:2]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    def all_of(words: list[Connection]) -> Connection:
        whole = words[0]
        for word in words[1:]:
            whole = merged(whole, word)
        return whole

    assert all_of(shuffled).lasted == all_of(told_of).lasted == end
    assert all_of(shuffled).lost == 0


@given(SECONDS, SECONDS, SECONDS, st.booleans())
def test_the_bound_covers_any_leave_between_sighting_and_absence(seen: int, a: int, b: int, cloud: bool) -> None:
    left, gone = seen + min(a, b), seen + max(a, b)
    bounded = Connection(seen, gone, cloud=cloud)
    exact = merged(bounded, Connection(left=left))
    assert bounded.metered <= exact.metered <= bounded.metered + bounded.lost
    assert exact.metered == billed(left, cloud=cloud)
    assert exact.lost == 0


@given(st.lists(st.builds(Connection, seen=SECONDS, gone=st.none() | SECONDS, left=st.none() | SECONDS), min_size=2))
def test_what_is_certain_never_falls(words: list[Connection]) -> None:
    whole = words[0]
    for word in words[1:]:
        after = merged(whole, word)
        assert after.metered >= whole.metered
        whole = after


CONNECTIONS = st.builds(
    Connection,
    seen=SECONDS,
    gone=st.none() | SECONDS,
    left=st.none() | SECONDS,
    cloud=st.booleans(),
    video=st.integers(0, 9000),
)
KEYS = st.sampled_from([TALKER, "participant-1/PA_8", "participant-2/PA_6", AGENT, SECOND_AGENT, WATCHER, "bare"])


@given(st.dictionaries(KEYS, CONNECTIONS), KEYS, CONNECTIONS)
def test_no_meter_falls_whoever_comes_and_whatever_is_learned(
    room: dict[str, Connection], key: str, word: Connection
) -> None:
    later = room | {key: merged(room[key], word) if key in room else word}
    for cloud in (False, True):
        before, after = metered(room, cloud=cloud), metered(later, cloud=cloud)
        assert all(after[meter] >= before[meter] >= 0 for meter in before)


@given(
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(0, 500),
    st.integers(0, 80),
    st.booleans(),
)
def test_what_is_held_ahead_covers_the_next_while_of_any_room(
    participants: int, observers: int, tracks: int, age: int, more: int, cloud: bool
) -> None:
    """Whoever is in it and for however long: a room that is not fuller, looked at again after at most so many s."""
    held = ahead(participants, observers, 80, tracks, cloud=cloud)
    keys = ["agent-AJ_1/a", *(f"participant-{n}/b" for n in range(participants))]
    keys += [f"observer-{n}/c" for n in range(observers)]

    def at(seconds: int) -> dict[Meter, int]:
        videos = {key: tracks * seconds for key in keys if key.startswith("participant")}
        room = {key: Connection(seconds, cloud=cloud, video=videos.get(key, 0)) for key in keys}
        return metered(room, cloud=cloud)

    before, after = at(age), at(age + more)
    assert all(after[meter] - before[meter] <= held[meter] for meter in held)


@pytest.mark.parametrize(
    "raw",
    [
        0,
        60,
        {"seen": 60, "gone": 70, "lost_usd": "0.000006667", "lost_account": None,
         "lost_meters": {"participant_seconds": 10, "egress_bytes": 150_000}},
        {"seen": 60, "joined_ms": 1_764_400_000_123, "cloud": True, "video": 12, "bytes": 900_000},
    ],
)  # fmt: skip
def test_a_session_keeps_its_connections_as_they_are(raw: object) -> None:
    assert Kept.of(raw).raw() == raw


def test_a_bound_that_was_kept_without_meters_was_one_of_seconds() -> None:
    old = Kept.of({"seen": 60, "gone": 70, "lost_usd": "0.000006667", "lost_account": 3})
    assert (old.meters, old.account_id) == ({SECOND: 10}, 3)


def test_a_report_names_each_connection_once() -> None:
    request = Transport(
        participant_seconds={"a/1": 5, "a/2": 9},
        gone_seconds={"a/1": 8},
        left_seconds={"a/3": 4},
        video_seconds={"a/2": 7},
        joined_at_ms={"a/2": 1000},
    )
    assert told(request) == {
        "a/1": Connection(5, 8),
        "a/2": Connection(9, video=7, joined_ms=1000),
        "a/3": Connection(0, None, 4),
    }
