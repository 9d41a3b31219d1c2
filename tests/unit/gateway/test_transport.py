"""What a replica remembers of connections: cumulative, the same from every replica, bounded where nobody looked."""

from dataclasses import replace

from talktime_gateway.rooms import Present
from talktime_gateway.transport import PER_REPORT, Sightings
from talktime_ledger.wire import OpenConnection

POOL = ("talktime", "eu")
PARTICIPANT = Present("participant-1", "PA_1", 100.0, agent=False)
AGENT = Present("agent-x", "PA_2", 90.5, agent=True)
OBSERVER = Present("observer-1", "PA_3", 159.9, agent=False)


def look(sightings: Sightings, present: list[Present], at: float, took: float = 0.0, room: str = "room") -> None:
    sightings.looked(room, POOL, "selfhosted", present, at, at + took)


def seen(sightings: Sightings) -> dict[str, int]:
    report = sightings.report("room")
    return dict(report.participant_seconds) if report else {}


def gone(sightings: Sightings) -> dict[str, int]:
    report = sightings.report("room", only_news=True)
    return dict(report.gone_seconds) if report else {}


def video(sightings: Sightings) -> dict[str, int]:
    report = sightings.report("room")
    return dict(report.video_seconds) if report else {}


def filming(tracks: int) -> Present:
    return replace(PARTICIPANT, videos=tracks)


def known(seen: int = 50, video: int = 0) -> OpenConnection:
    """The participant, as the ledger remembers."""
    return OpenConnection(key="participant-1/PA_1", joined_at_ms=100_000, seen_sec=seen, video_sec=video)


def test_every_connection_counts_from_its_own_join_agents_and_observers_too() -> None:
    sightings = Sightings()
    look(sightings, [PARTICIPANT, AGENT, OBSERVER], 160.0)
    assert seen(sightings) == {"participant-1/PA_1": 60, "agent-x/PA_2": 69, "observer-1/PA_3": 0}


def test_two_replicas_say_the_same_whatever_they_saw_before() -> None:
    old, new = Sightings(), Sightings()
    for at in (110.0, 125.0, 140.0):
        look(old, [PARTICIPANT], at)
    look(new, [PARTICIPANT], 140.0)
    assert seen(old) == seen(new) == {"participant-1/PA_1": 40}


def test_an_unknown_or_future_join_time_counts_nothing() -> None:
    sightings = Sightings()
    look(sightings, [Present("a", "PA_1", 0.0, agent=False), Present("b", "PA_2", 200.0, agent=False)], 100)
    assert seen(sightings) == {"b/PA_2": 0}


def test_who_vanished_was_there_at_the_last_look_and_gone_at_the_answer_of_the_next() -> None:
    sightings = Sightings()
    look(sightings, [PARTICIPANT, AGENT], 150.0, took=0.5)
    assert sightings.report("room", only_news=True) is None
    look(sightings, [AGENT], 155.0, took=0.5)
    report = sightings.report("room", only_news=True)
    assert report is not None
    assert report.participant_seconds == {"participant-1/PA_1": 50, "agent-x/PA_2": 64}
    assert report.gone_seconds == {"participant-1/PA_1": 56}


def test_an_absence_is_told_until_the_ledger_has_it_and_then_no_more() -> None:
    sightings = Sightings()
    look(sightings, [PARTICIPANT], 150.0)
    look(sightings, [], 155.0)
    look(sightings, [], 160.0)
    report = sightings.report("room")
    assert report is not None
    assert report.gone_seconds == {"participant-1/PA_1": 55}, "the first known absence, however late it is told"
    sightings.told("room", report)
    assert sightings.report("room") is None
    assert sightings.on(POOL) == {}


def test_who_is_back_before_it_was_told_was_not_gone() -> None:
    sightings = Sightings()
    look(sightings, [PARTICIPANT], 150.0)
    look(sightings, [], 155.0)
    report = sightings.report("room")
    assert report is not None
    look(sightings, [PARTICIPANT], 160.0)
    sightings.told("room", report)
    assert (seen(sightings), gone(sightings)) == ({"participant-1/PA_1": 60}, {})


def test_an_exact_leave_leaves_no_absence_to_tell() -> None:
    sightings = Sightings()
    look(sightings, [PARTICIPANT], 150.0)
    sightings.left("room", "participant-1/PA_1")
    sightings.left("room", "participant-1/PA_1")
    look(sightings, [], 155.0)
    assert sightings.report("room") is None


def test_a_joined_connection_that_no_round_ever_saw_is_bounded_too() -> None:
    sightings = Sightings()
    sightings.joined("room", POOL, "cloud", "participant-1/PA_9", 100.2, 101.0)
    look(sightings, [], 105.0)
    assert gone(sightings) == {"participant-1/PA_9": 5}


def test_a_finished_room_ends_its_connections_unless_they_were_seen_later() -> None:
    sightings = Sightings()
    look(sightings, [PARTICIPANT], 150.0)
    sightings.finished("room", 140.0)
    assert gone(sightings) == {}, "an old event, told again"
    sightings.finished("room", 152.0)
    look(sightings, [], 155.0)
    assert gone(sightings) == {"participant-1/PA_1": 52}


def test_rooms_of_pools_that_are_no_more_are_forgotten() -> None:
    sightings = Sightings()
    look(sightings, [PARTICIPANT], 150.0)
    sightings.only({POOL})
    assert sightings.on(POOL) == {"room": "selfhosted"}
    sightings.only(set())
    assert sightings.on(POOL) == {}


def test_a_storm_of_reconnects_is_told_in_parts() -> None:
    sightings = Sightings()
    many = [Present("participant-1", f"PA_{n}", 100.0, agent=False) for n in range(PER_REPORT + 5)]
    look(sightings, many, 110.0)
    look(sightings, [AGENT], 115.0)
    told = 0
    while (report := sightings.report("room", only_news=True)) is not None:
        assert len(report.participant_seconds) <= PER_REPORT
        told += len(report.gone_seconds)
        sightings.told("room", report)
    assert told == PER_REPORT + 5
    assert seen(sightings) == {"agent-x/PA_2": 24}


def test_a_camera_counts_from_look_to_look_and_is_told_with_the_connection() -> None:
    sightings = Sightings()
    look(sightings, [filming(0)], 110.0)
    look(sightings, [filming(1)], 115.0)  # on since some time after 110
    look(sightings, [filming(1)], 120.0)
    look(sightings, [filming(0)], 125.0)  # off some time after 120
    look(sightings, [filming(0)], 600.0)
    report = sightings.report("room")
    assert report is not None
    assert report.video_seconds == {"participant-1/PA_1": 15}
    assert report.joined_at_ms == {"participant-1/PA_1": 100_000}


def test_two_tracks_count_twice_and_without_video_nothing_is_told() -> None:
    sightings = Sightings()
    look(sightings, [filming(2), AGENT], 110.0)
    assert video(sightings) == {"participant-1/PA_1": 20}


def test_video_of_who_is_gone_counts_until_that_was_known_and_once() -> None:
    sightings = Sightings()
    look(sightings, [filming(1)], 110.0)
    look(sightings, [], 115.0, took=0.5)
    look(sightings, [], 120.0)
    assert video(sightings) == {"participant-1/PA_1": 16}
    look(sightings, [filming(1)], 125.0)  # it was there after all
    assert video(sightings) == {"participant-1/PA_1": 25}


def test_an_exact_leave_takes_its_video_along() -> None:
    sightings = Sightings()
    look(sightings, [filming(1), AGENT], 110.0)
    assert sightings.video_of("room", "participant-1/PA_1", 112.0) == {"participant-1/PA_1": 12}
    assert sightings.video_of("room", "agent-x/PA_2", 112.0) == {}
    assert sightings.video_of("elsewhere", "participant-1/PA_1", 112.0) == {}


def test_two_replicas_say_the_same_of_a_camera_that_was_always_on() -> None:
    old, new = Sightings(), Sightings()
    for at in (110.3, 125.7, 140.0):
        look(old, [filming(1)], at)
    look(new, [filming(1)], 140.0)
    assert video(old) == video(new) == {"participant-1/PA_1": 40}


def test_who_left_while_every_replica_was_away_is_bounded_by_the_next_look() -> None:
    sightings = Sightings()
    sightings.remembered("room", POOL, "selfhosted", [known(seen=50)])
    assert sightings.on(POOL) == {"room": "selfhosted"}, "a closed session's room is looked into, too"
    look(sightings, [AGENT], 300.0, took=0.2)
    report = sightings.report("room", only_news=True)
    assert report is not None
    assert report.participant_seconds["participant-1/PA_1"] == 50
    assert report.gone_seconds == {"participant-1/PA_1": 201}


def test_who_is_still_there_was_never_gone() -> None:
    sightings = Sightings()
    sightings.remembered("room", POOL, "selfhosted", [known(seen=50)])
    look(sightings, [PARTICIPANT], 300.0)
    assert (seen(sightings), gone(sightings)) == ({"participant-1/PA_1": 200}, {})


def test_what_a_replica_saw_itself_is_newer_than_what_the_ledger_remembers() -> None:
    sightings = Sightings()
    look(sightings, [filming(1)], 200.0)
    sightings.remembered("room", POOL, "selfhosted", [known(seen=50, video=50)])
    assert (seen(sightings), video(sightings)) == ({"participant-1/PA_1": 100}, {"participant-1/PA_1": 100})


def test_remembered_video_goes_on_from_where_it_was() -> None:
    sightings = Sightings()
    sightings.remembered("room", POOL, "selfhosted", [known(seen=50, video=10)])
    look(sightings, [filming(0)], 160.0)
    look(sightings, [filming(0)], 300.0)
    assert video(sightings) == {"participant-1/PA_1": 20}, "10, and at most one track until the first look"


def test_nothing_remembered_is_no_room() -> None:
    sightings = Sightings()
    sightings.remembered("room", POOL, "selfhosted", [])
    assert sightings.on(POOL) == {}
