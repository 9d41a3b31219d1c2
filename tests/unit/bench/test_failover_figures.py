"""What the guests' events of a fault say: when words came again, who moved, which agent should have been silent."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from bench.failovers.figures import (
    NEVER,
    Event,
    Sample,
    agreed,
    answered_after_being_replaced,
    new_interview,
    quantile,
    restaffed_at,
    restored,
    result,
    sample,
    whole,
    words_again,
)


def told(*rows: tuple[float, str, str], **more: Any) -> list[Event]:
    return [{"at": at, "who": who, "what": what, **more} for at, who, what in rows]


@pytest.mark.parametrize(
    ("rows", "breaks", "at"),
    [
        ([(11, "reconnecting"), (14, "moved"), (16, "heard"), (20, "heard")], True, 16),
        ([(10.1, "heard"), (11, "reconnecting"), (14, "moved"), (16, "heard")], True, 16),  # what was in the buffer
        ([(11, "reconnecting"), (12, "reconnected"), (13, "heard"), (14, "reconnecting"), (15, "moved")], True, None),
        ([(11, "reconnecting"), (12, "reconnected"), (13, "heard")], True, 13),
        ([(11, "reconnecting"), (12, "back"), (13, "heard")], True, 13),  # the same room again
        ([(9, "moved"), (11, "heard")], True, None),  # it never broke: nothing was proven
        ([(11, "heard")], False, 11),
        ([(10.5, "heard"), (11, "reconnecting"), (14, "reconnected"), (15, "heard")], False, 15),
        ([], False, None),
    ],
)
def test_words_count_only_on_a_connection_that_is_good_again(
    rows: list[tuple[float, str]], breaks: bool, at: float | None
) -> None:
    events = told(*((when, "a", what) for when, what in rows), (10.2, "b", "heard"))
    assert words_again(sorted(events, key=lambda e: e["at"]), "a", 10, breaks=breaks) == at


def test_a_new_interview_is_there_when_both_are_in_the_room() -> None:
    events = told((1, "n", "token"), (2, "n", "joined"))
    assert new_interview(events, "n") is None
    assert new_interview([*events, *told((1.5, "n", "agents"), count=0), *told((3, "n", "agents"), count=1)], "n") == 3
    assert new_interview([*events, *told((1.5, "n", "agents"), count=1)], "n") == 2


def agents(at: float, who: str, *names: str) -> list[Event]:
    return told((at, who, "agents"), count=len(names), names=list(names))


def test_a_sample_names_who_moved_and_how_many_agents_one_guest_saw() -> None:
    events = [
        *told((1, "a", "token"), session="s1", server_url="ws://own"),
        *agents(9, "a", "one", "two"),
        *told((11, "a", "reconnecting")),
        *told((14, "a", "moved"), session="s1", server_url="ws://cloud"),
        *agents(15, "a", "three"),
        *told((16.5, "a", "heard")),
        *told((10.5, "n", "token"), session="s2", server_url="ws://cloud"),
        *told((12, "n", "joined"), server_url="ws://cloud"),
        *agents(13, "n", "four"),
    ]
    one = sample(events, 10, ["a"], "n")
    assert (one.new, one.new_server, one.again) == (3, "ws://cloud", {"a": 6.5})
    assert (one.moved, one.disturbed, one.ended) == ({"a"}, {"a"}, frozenset())
    assert (one.servers, one.renamed) == ({"a": "ws://cloud"}, frozenset())
    assert one.most_agents == 1, "before the fault is another matter"
    assert one.sessions == {"a": "s1", "n": "s2"}
    assert one.whole


def test_a_newcomer_is_where_it_got_in_not_where_it_was_sent_first() -> None:
    sent = told((10.5, "n", "token"), session="s2", server_url="ws://own")
    assert sample(sent, 10, [], "n").new_server == "ws://own"
    got_in = told((27, "n", "joined"), server_url="ws://cloud")
    assert sample([*sent, *got_in], 10, [], "n").new_server == "ws://cloud"


def test_where_no_newcomer_comes_none_is_waited_for() -> None:
    events = told((11, "a", "heard"))
    one = sample(events, 10, ["a"], None, breaks=False)
    assert one.whole
    assert (one.new, one.awaited) == (None, False)
    assert not sample(events, 10, ["a"], "n", breaks=False).whole


def test_who_comes_back_into_another_session_is_named() -> None:
    events = [
        *told((1, "a", "token"), session="s1", server_url="ws://own"),
        *told((12, "a", "moved"), session="s9", server_url="ws://cloud"),
    ]
    assert sample(events, 10, ["a"], None).renamed == {"a"}


@pytest.mark.parametrize(
    ("after", "at"),
    [
        ([agents(13, "a"), agents(14.5, "a", "next")], 14.5),
        ([agents(12, "a", "old", "next")], 12),  # the old one is still shown: a second agent, and told as such
        ([agents(11, "a", "old")], None),  # only looked at again
        ([agents(11, "a")], None),
        ([agents(11, "b", "next")], None),
    ],
)
def test_the_next_agent_is_one_that_was_not_there_before(after: list[list[Event]], at: float | None) -> None:
    events = [*agents(2, "a", "old"), *(event for told in after for event in told)]
    assert restaffed_at(events, "a", 10) == at


def test_words_of_who_lost_its_agent_count_from_the_next_one_on() -> None:
    before = [*told((1, "a", "token"), session="s", server_url="own"), *agents(2, "a", "old")]
    late_words = told((10.1, "a", "heard"))
    only_old = sample([*before, *late_words], 10, ["a"], None, breaks=False, hit=["a"])
    assert (only_old.again, only_old.restaffed, only_old.whole) == ({"a": None}, {"a": None}, False)
    after = [*agents(12, "a"), *agents(14, "a", "next"), *told((15, "a", "heard"))]
    one = sample([*before, *late_words, *after], 10, ["a"], None, breaks=False, hit=["a"])
    assert (one.again, one.restaffed, one.last_agents) == ({"a": 5}, {"a": 4}, {"a": 1})
    assert one.whole


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(14.0, 3.5), (10.2, 0.3), (None, None)],
)
def test_front_doors_and_status_agree_once_both_say_fallback(said: float | None, seconds: float | None) -> None:
    events = [
        *told((1, "a", "token"), server_url="own"),
        *told((10.5, "n", "token"), server_url="cloud"),
        *told((12, "a", "moved"), server_url="cloud"),
    ]
    found = agreed(events, 10, "cloud", said)
    assert found == (None if seconds is None else pytest.approx(seconds))
    assert agreed(events[:1], 10, "cloud", 14.0) is None, "nobody was sent there"


def asked(*rows: tuple[str, bool]) -> list[Event]:
    return [{"event": "response.create", "provider_session": one, "closing": closing} for one, closing in rows]


def test_an_agent_that_asks_after_its_successor_is_found_and_a_rendered_goodbye_is_not_one() -> None:
    owner = {"p1": "s", "p2": "s", "render": "s", "q1": "t"}
    in_order = asked(("p1", False), ("render", True), ("p1", False), ("q1", False), ("p2", False), ("p2", False))
    assert answered_after_being_replaced(in_order, owner) == set()
    assert answered_after_being_replaced([*in_order, *asked(("p1", False))], owner) == {"s"}


def test_restored_are_sessions_whose_later_agent_got_items_from_before() -> None:
    log = [{"event": "conversation.item.create", "provider_session": "p2", "item_id": "before_1"}]
    assert restored(log, {"p2": "s"}) == {"s"}
    assert restored([{**log[0], "item_id": "item_1"}], {"p2": "s"}) == set()


MONEY = {"lost": Decimal(0), "double": Decimal("0.01")}


def figures(*samples: Sample, agrees: bool = False) -> dict[str, Any]:
    return result(samples, double=1, given_back=1, money=MONEY, home="own", agrees=agrees)


def test_who_never_came_back_counts_as_the_whole_wait() -> None:
    one = Sample(2.0, "", {"a": 5.0, "b": None}, frozenset("a"), frozenset("ab"), frozenset(), 2, {})
    found = figures(one)
    assert (found["resume_p95_s"], found["not_resumed"], found["double_agents"]) == (NEVER, 1, 2)
    assert (found["kills"], found["new_session_p95_s"], found["double_posted_usd"]) == (1, 2.0, "0.01")
    assert (found["disturbed"], found["newcomers_elsewhere"]) == (2, 0)
    assert "restaffed_p95_s" not in found


def quiet(**more: Any) -> Sample:
    return replace(Sample(1.0, "own", {"a": 5.0}, frozenset(), frozenset(), frozenset(), 1, {}), **more)


def test_a_killed_agent_counts_by_its_successor_and_one_that_never_came_as_the_whole_wait() -> None:
    one = quiet(new=None, awaited=False, restaffed={"a": 2.0, "b": 4.0})
    found = figures(one, replace(one, restaffed={"a": None}))
    assert (found["restaffed"], found["restaffed_p95_s"], found["restaffed_median_s"]) == (3, NEVER, 4.0)
    assert "new_session_p95_s" not in found, "nobody new came"


def test_agreement_counts_where_it_was_looked_for() -> None:
    assert "agreed_p95_s" not in figures(quiet())
    assert figures(quiet(agreed=3.5), quiet(agreed=2.0), agrees=True)["agreed_p95_s"] == 3.5
    assert figures(quiet(agreed=3.5), quiet(), agrees=True)["agreed_p95_s"] == NEVER


def test_what_stirred_is_counted_where_nothing_may() -> None:
    assert "pool_switches" not in figures(quiet())
    found = figures(quiet(switches=0, sfu_restarted=False), quiet(switches=2, sfu_restarted=True, new_server="cloud"))
    assert (found["pool_switches"], found["sfu_restarts"], found["newcomers_elsewhere"]) == (2, 1, 1)


def test_every_variant_stands_under_its_name_and_the_killed_sfus_figures_at_the_top() -> None:
    found = whole({"killed": figures(quiet()), "redis": figures(quiet(switches=0))})
    assert list(found) == ["kills", "new_session_p95_s", "resume_p95_s", "lost_usd", "double_agents", "killed", "redis"]
    assert found["killed"]["kills"] == found["kills"] == 1
    assert list(whole({"redis": figures(quiet())})) == ["redis"], "a part says whose figures they are"


@pytest.mark.parametrize(("share", "value"), [(0.5, 10), (0.95, 19), (1.0, 20), (0.0, 1)])
def test_quantiles_are_samples(share: float, value: float) -> None:
    assert quantile([float(number) for number in range(20, 0, -1)], share) == value
    assert quantile([], share) is None
