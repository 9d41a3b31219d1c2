"""Agents that were stopped, machines that were suspended, clocks that are set: nothing starts that is not ours."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest
from talktime_agent.clock import session_clock, steady_seconds, system_clock
from talktime_agent.close import may_delete_room, may_speak
from talktime_agent.limits import Step, next_step, situation
from talktime_ledger.core.gate import Decision
from talktime_ledger.resources.project import OnLedgerOutage

from tests.unit.agent.virtual import AT, BEGIN, Books, Talk, now, run, wall


class Sleeper:
    """A steady clock that goes on while the process does not: SIGSTOP, or a suspended machine."""

    def __init__(self) -> None:
        self.slept = 0.0

    def __call__(self) -> float:
        return now() + self.slept


def sleepy(directory: Path, books: Books) -> tuple[Talk, Sleeper]:
    """A session whose process may stop while the time goes on."""
    steady = Sleeper()
    talk = Talk(books, directory, steady=steady)
    return talk, steady


def test_an_agent_that_wakes_up_after_it_was_fenced_says_nothing_learns_it_and_leaves_the_room_alone(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        books = Books()
        talk, steady = sleepy(tmp_path, books)
        talk.start()
        await asyncio.sleep(60)
        spoken, asked = len(talk.answered_at), len(books.asked)
        steady.slept, books.epoch = 400.0, 2  # the watcher gave the session to another agent meanwhile
        assert talk.till.may_respond() == Decision(False, "validity")
        talk.turns.respond()
        assert await talk.ended == "fenced"
        assert (len(talk.answered_at), len(books.asked)) == (spoken, asked + 1)
        assert talk.till.account.fenced
        assert not talk.till.account.may_render(books.goodbye, steady()).allowed
        assert not may_speak("fenced", talk.till.valid)
        assert not may_delete_room("fenced", talk.till.valid)
        assert await talk.leave()
        assert sorted(books.posted) == sorted(talk.billed), "what it billed before counts"
        assert books.closed is None, "the session goes on with its new agent"

    run(scene())


def test_who_slept_through_the_validity_and_cannot_ask_leaves_without_a_word_and_without_ending_the_room(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        books = Books()
        talk, steady = sleepy(tmp_path, books)
        talk.start()
        await asyncio.sleep(60)
        spoken = len(talk.answered_at)
        steady.slept, books.mode = 400.0, "refusing"
        assert await talk.ended == "ledger_outage"
        assert len(talk.answered_at) == spoken
        assert not talk.till.valid
        assert not may_speak("ledger_outage", talk.till.valid)
        assert not may_delete_room("ledger_outage", talk.till.valid)

    run(scene())


def test_who_slept_and_is_still_the_one_goes_on_after_the_next_grant(tmp_path: Path) -> None:
    async def scene() -> None:
        books = Books()
        talk, steady = sleepy(tmp_path, books)
        talk.start()
        await asyncio.sleep(60)
        spoken = len(talk.answered_at)
        steady.slept = 310.0
        now_is = situation(
            talk.till, talk.charger, wrap_up_told=False, wrapped_up=False, on_outage=OnLedgerOutage.DRAIN
        )
        assert next_step(now_is) == (Step.GO_ON, ""), "it asks first"
        await asyncio.sleep(30)
        assert not talk.ended.done()
        assert len(talk.answered_at) > spoken
        talk.stop()

    run(scene())


@pytest.mark.parametrize("reason", ["budget", "ledger_outage", "provider_error"])
def test_a_spoken_end_is_spoken_and_the_room_goes_while_the_session_is_ours(reason: str) -> None:
    assert may_speak(reason, valid=True)
    assert may_delete_room(reason, valid=True)
    assert not may_speak("participant_left", valid=True)
    assert not may_delete_room("fenced", valid=True)


def test_the_steady_clock_counts_suspension() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= steady_seconds() <= time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize("jump", [timedelta(hours=5), timedelta(hours=-5)])
def test_a_wall_clock_that_is_set_changes_nothing(tmp_path: Path, jump: timedelta) -> None:
    async def scene() -> None:
        books = Books()
        shift = timedelta()
        talk = Talk(books, tmp_path, clock=lambda: wall() + shift)
        talk.start()
        await asyncio.sleep(60)
        before = len(talk.answered_at)
        shift = jump
        await asyncio.sleep(120)
        assert not talk.ended.done()
        assert len(talk.answered_at) == before + 15
        assert talk.clock.wall() == AT + timedelta(seconds=now() - BEGIN), "usages keep their time, and their price"
        assert talk.till.elapsed_sec == pytest.approx(now() - BEGIN)
        talk.stop()

    run(scene())


def test_a_session_begins_with_the_machines_time() -> None:
    clock = session_clock(lambda: AT, lambda: 7.0)
    assert (clock.wall(), clock.monotonic()) == (AT, 7.0)
    assert system_clock().wall().tzinfo is not None
