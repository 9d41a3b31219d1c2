"""Seconds of connections: what is known, what is lost, what the two media bill of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_ledger.core.transport import Connection, billed, merged, metered
from talktime_ledger.desk.transport import Kept, told
from talktime_ledger.wire import Transport

SECONDS = st.integers(0, 7200)
SIGHTINGS = st.builds(Connection, seen=SECONDS)


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
    connections = [Connection(50, cloud=True), Connection(10, cloud=True), Connection(50), Connection(10)]
    assert metered(connections, cloud=True) == 120
    assert metered(connections, cloud=False) == 60


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


@pytest.mark.parametrize("raw", [0, 60, {"seen": 60, "gone": 70, "lost_usd": "0.000006667", "lost_account": None}])
def test_a_session_keeps_its_connections_as_they_are(raw: object) -> None:
    assert Kept.of(raw).raw() == raw


def test_a_report_names_each_connection_once() -> None:
    request = Transport(participant_seconds={"a/1": 5, "a/2": 9}, gone_seconds={"a/1": 8}, left_seconds={"a/3": 4})
    assert told(request) == {"a/1": Connection(5, 8), "a/2": Connection(9), "a/3": Connection(0, None, 4)}
