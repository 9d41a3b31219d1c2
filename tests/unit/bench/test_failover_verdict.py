"""What is lawful under which fault: where guests and newcomers may be, what may stir, what the next agent must know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench import asked, bars
from bench.failover import BARS, chosen, missed, wanted
from bench.failovers.figures import Sample
from bench.failovers.variants import VARIANTS, Place
from bench.failovers.verdict import wrong

PLACES: dict[str, Place] = {"ws://own": "pool", "ws://cloud": "fallback"}


def stayed(**more: Any) -> Sample:
    """Nothing happened to the guest, and the newcomer came into the pool."""
    calm = Sample(1.0, "ws://own", {"a": 5.0}, frozenset(), frozenset(), frozenset(), 1, {"a": "s"})
    return replace(calm, servers={"a": "ws://own"}, **more)


def moved(**more: Any) -> Sample:
    """The guest is at the fallback, as the newcomer is."""
    gone = {"moved": frozenset("a"), "disturbed": frozenset("a"), "new_server": "ws://cloud"}
    return replace(stayed(), **{**gone, "servers": {"a": "ws://cloud"}, **more})


LAWFUL = {
    "killed": moved(agreed=3.0),
    "restarted": stayed(disturbed=frozenset("a")),
    "frozen": moved(),
    "udp": moved(),
    "redis": stayed(new_server="ws://cloud", switches=0, sfu_restarted=False),
    "apiserver": moved(),
    "operator": moved(),
    "gateway": stayed(restaffed={"a": 3.0}, last_agents={"a": 1}),
    "job": stayed(new=None, awaited=False, restaffed={"a": 3.0}, last_agents={"a": 1}),
    "pod": stayed(new=None, awaited=False, restaffed={"a": 8.0}, last_agents={"a": 1}),
}


def found(name: str, restored: tuple[str, ...] = ("s",), **more: Any) -> list[str]:
    return wrong(VARIANTS[name], [replace(LAWFUL[name], **more)], PLACES, restored)


def test_every_variant_has_a_round_in_which_nothing_is_wrong() -> None:
    assert set(LAWFUL) == set(VARIANTS)
    for name in VARIANTS:
        assert found(name) == [], name


@pytest.mark.parametrize("name", VARIANTS)
def test_an_interview_that_ends_or_is_not_heard_again_is_wrong_under_every_fault(name: str) -> None:
    assert found(name, ended=frozenset("a")) == [f"{name}1: a: its interview ended"]
    assert f"{name}1: a did not hear an agent again" in found(name, again={"a": None})
    assert found(name, renamed=frozenset("a")) == [f"{name}1: a came into another session"]
    assert found(name, most_agents=2) == [f"{name}1: 2 agents in a room"]


@pytest.mark.parametrize("name", ["restarted", "redis", "gateway", "job", "pod"])
def test_nobody_may_move_where_the_sfu_stays(name: str) -> None:
    assert f"{name}1: a moved" in found(name, moved=frozenset("a"), servers={"a": "ws://cloud"})


@pytest.mark.parametrize("name", ["killed", "frozen", "udp", "apiserver", "operator"])
def test_everybody_must_move_where_the_sfu_is_lost(name: str) -> None:
    stays = found(name, moved=frozenset(), servers={"a": "ws://own"})
    assert stays == [f"{name}1: a is at pool, not at fallback"]
    assert found(name, servers={"a": "ws://nowhere"}) == [f"{name}1: a is at ws://nowhere, not at fallback"]


@pytest.mark.parametrize(
    ("name", "server", "lawful"),
    [
        ("killed", "ws://own", False),
        ("killed", "ws://cloud", True),
        ("restarted", "ws://own", True),
        ("restarted", "ws://cloud", True),
        ("redis", "ws://cloud", True),  # one by one, while the pool stays
        ("redis", "ws://own", False),
        ("gateway", "ws://own", True),
        ("gateway", "ws://cloud", False),
    ],
)
def test_a_newcomer_is_where_it_should_be(name: str, server: str, lawful: bool) -> None:
    assert (found(name, new_server=server) == []) is lawful


def test_a_newcomer_that_gets_no_interview_is_wrong_where_one_comes() -> None:
    assert found("redis", new=None) == ["redis1: the newcomer got no interview"]


@pytest.mark.parametrize("name", ["redis", "gateway", "job", "pod"])
def test_a_connection_must_not_break_where_nothing_of_it_was_touched(name: str) -> None:
    assert found(name, disturbed=frozenset("a")) == [f"{name}1: a: its connection broke"]


@pytest.mark.parametrize("more", [{"switches": 2}, {"switches": None}, {"sfu_restarted": True}])
def test_without_redis_neither_pool_nor_sfu_may_stir(more: dict[str, Any]) -> None:
    assert len(found("redis", **more)) == 1


@pytest.mark.parametrize("name", ["killed", "gateway", "job", "pod"])
def test_the_next_agent_must_know_what_was_said(name: str) -> None:
    assert found(name, restored=()) == [f"{name}1: a: the next agent did not know what had been said"]


@pytest.mark.parametrize("name", ["restarted", "redis"])
def test_who_keeps_its_agent_needs_no_memory(name: str) -> None:
    assert found(name, restored=()) == []


@pytest.mark.parametrize(("at_the_end", "words"), [(0, "a had 0 agents at the end"), (2, "a had 2 agents at the end")])
def test_a_killed_agent_has_one_successor_at_the_end(at_the_end: int, words: str) -> None:
    assert found("job", last_agents={"a": at_the_end}) == [f"job1: {words}"]
    assert "job1: a got no other agent" in found("job", restaffed={"a": None}, again={"a": None})


def test_front_doors_and_status_must_come_to_agree() -> None:
    assert found("killed", agreed=None) == ["killed1: front doors and the pool's status never said the same"]


def test_a_run_that_ends_early_says_what_is_missing() -> None:
    todo = [chosen("killed:20"), chosen("redis:5"), chosen("job:5")]
    short = asked.short(wanted(todo), {"killed": 20, "redis": 2})
    assert short == {"redis": {"asked": 5, "ran": 2}, "job": {"asked": 5, "ran": 0}}
    assert asked.in_words(short) == ["redis is short: asked 5, ran 2", "job is short: asked 5, ran 0"]
    assert asked.short({"killed": 2}, {"killed": 2}) == {}


def test_a_variant_named_twice_has_its_larger_number() -> None:
    assert wanted([chosen("job:2"), chosen("job:5")]) == {"job": 5}


def test_a_missed_bar_is_wrong_few_kills_are_not() -> None:
    told = {"kills": 2, "resume_p95_s": 12.5, "job": {"kills": 1, "restaffed_p95_s": 4.0}}
    assert missed(told) == ["bar missed: resume_p95_s 12.5, bar <= 12"]


def test_every_variant_has_bars() -> None:
    nested = {path.partition(".")[0] for path in BARS if "." in path}
    assert nested == set(VARIANTS)
    assert bars.met(20, BARS["kills"])
