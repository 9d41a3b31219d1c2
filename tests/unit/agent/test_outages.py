"""PostgreSQL or the ledger away for 60 s and for 10 minutes: Drain, Terminate, outage reserve. Virtual time."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from talktime_agent.facts import Billed
from talktime_agent.limits import is_outage
from talktime_agent.recovery import Recovery
from talktime_agent.spool import recover
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.usage import Usage, UsageKind
from talktime_ledger.resources.project import OnLedgerOutage

from tests.unit.agent.virtual import ANSWER, MODEL, Books, Talk, now, run, wall


def started(books: Books, directory: Path, **more: Any) -> Talk:
    """An interview that talks on as long as it is paid for."""
    talk = Talk(books, directory, **more)
    talk.start()
    return talk


async def away(books: Books, mode: str, seconds: float) -> None:
    """The ledger is gone for so long."""
    books.mode = mode
    await asyncio.sleep(seconds)
    books.mode = "answering"


async def replay(books: Books, directory: Path) -> list[str]:
    """One look of the worker main; the rooms it deleted."""
    rooms: list[str] = []

    async def delete_room(name: str) -> None:
        rooms.append(name)

    ledger: Any = books
    await Recovery(ledger, directory, delete_room=delete_room, replayed=lambda: None).once()
    return rooms


@pytest.mark.parametrize("mode", ["refusing", "hanging", "forgetful"])
def test_a_minute_without_the_ledger_is_not_noticed_and_every_usage_is_posted_once(tmp_path: Path, mode: str) -> None:
    async def scene() -> None:
        books = Books()
        talk = started(books, tmp_path)
        await asyncio.sleep(60)
        await away(books, mode, 60)
        await asyncio.sleep(60)
        assert not talk.ended.done()
        gaps = [after - before for before, after in zip(talk.answered_at, talk.answered_at[1:], strict=False)]
        assert max(gaps) == pytest.approx(8.0), "no answer came late"
        assert len(talk.answered_at) == 22
        talk.end("participant_left")
        assert await talk.leave()
        assert sorted(books.posted) == sorted(talk.billed)
        assert books.total == ANSWER * 22
        assert (books.twice, books.reserved) == ([], 0)
        assert not talk.spool.path.exists()

    run(scene())


@pytest.mark.parametrize("mode", ["refusing", "hanging"])
def test_drain_talks_to_the_end_of_the_validity_then_ends_in_order_and_the_spool_is_posted_once_later(
    tmp_path: Path, mode: str
) -> None:
    async def scene() -> None:
        books = Books(limit=Decimal(2), w=Decimal("0.20"))  # enough is held for as long as it is valid
        talk = started(books, tmp_path)
        await asyncio.sleep(60)
        outage = asyncio.create_task(away(books, mode, 600))
        began = now()
        last_grant = books.asked[-1]
        assert await talk.ended == "ledger_outage"
        assert 250 < talk.ended_at - began < 300
        assert talk.till.valid, "the goodbye is said while the session is ours"
        longest = talk.till.bounds.longest_response_sec
        assert talk.answered_at[-1] <= last_grant + 300 - longest
        assert not await talk.leave()
        assert books.total < ANSWER * len(talk.billed)
        await replay(books, tmp_path)
        assert talk.spool.path.exists(), "still away: kept for the next look"
        await outage
        assert await replay(books, tmp_path) == ["s1"]
        assert books.closed == "ledger_outage"
        assert sorted(books.posted) == sorted(talk.billed)
        assert (books.twice, books.reserved, books.total) == ([], 0, ANSWER * len(talk.billed))
        assert await replay(books, tmp_path) == [], "nothing is left to replay"

    run(scene())


def test_drain_ends_when_what_is_held_is_used_up_before_its_validity(tmp_path: Path) -> None:
    async def scene() -> None:
        books = Books(w=Decimal("0.03"))
        talk = started(books, tmp_path)
        await asyncio.sleep(60)
        books.mode = "refusing"
        began, held = now(), talk.till.account.grant
        assert await talk.ended == "ledger_outage"
        assert 20 < talk.ended_at - began < 250
        assert talk.till.account.not_settled <= held.reserved - held.goodbye
        assert talk.till.account.holdings(now()).free < talk.till.wanted(), "it talked as long as it was paid"

    run(scene())


@pytest.mark.parametrize(("mode", "soonest", "latest"), [("refusing", 20, 25), ("hanging", 20, 30)])
def test_terminate_ends_once_the_ledger_is_known_to_be_away(
    tmp_path: Path, mode: str, soonest: float, latest: float
) -> None:
    async def scene() -> None:
        books = Books(limit=Decimal(2), w=Decimal("0.20"))
        talk = started(books, tmp_path, on_outage=OnLedgerOutage.TERMINATE)
        await asyncio.sleep(61)
        books.mode = mode
        tried = len(books.asked)
        assert await talk.ended == "ledger_outage"
        first = books.asked[tried]
        assert soonest <= talk.ended_at - first <= latest
        assert talk.till.valid, "with the closing line, not with a cut"

    run(scene())


@pytest.mark.parametrize("on_outage", list(OnLedgerOutage))
@pytest.mark.parametrize(("pace", "starves"), [(8.0, False), (0.5, True)])
def test_a_restart_of_the_ledger_is_no_outage(
    tmp_path: Path, pace: float, starves: bool, on_outage: OnLedgerOutage
) -> None:
    async def scene() -> None:
        books = Books(limit=Decimal(5))
        talk = started(books, tmp_path, on_outage=on_outage, pace=pace, speaks=pace / 4)
        starved = False
        for _ in range(5):
            await asyncio.sleep(30)
            await away(books, "refusing", 16)
            starved |= talk.till.starved
        assert not talk.ended.done()
        assert starved is starves, "who holds nothing any more waits"
        talk.stop()

    run(scene())


@pytest.mark.parametrize(
    ("attempts", "seconds", "known"), [(2, 60, False), (3, 19.9, False), (3, 20, True), (1000, 5, False)]
)
def test_an_outage_is_several_attempts_over_some_time(attempts: int, seconds: float, known: bool) -> None:
    assert is_outage(attempts, seconds) is known


def answers_in_an_outage(directory: Path, reserve: str) -> int:
    async def scene() -> int:
        books = Books(reserve=Decimal(reserve))
        talk = started(books, directory)
        await asyncio.sleep(60)
        before = len(talk.answered_at)
        books.mode = "refusing"
        assert await talk.ended == "ledger_outage"
        talk.stop()
        return len(talk.answered_at) - before

    return run(scene())


def test_the_outage_reserve_is_what_is_talked_on_with(tmp_path: Path) -> None:
    without = answers_in_an_outage(tmp_path / "without", "0")
    reserved = answers_in_an_outage(tmp_path / "with", "0.02")
    assert reserved - without == pytest.approx(int(Decimal("0.02") / ANSWER), abs=1)


def test_the_outage_reserve_is_not_touched_while_the_ledger_answers_and_ordinary_at_the_end(tmp_path: Path) -> None:
    async def scene() -> None:
        books = Books(limit=Decimal("0.30"), reserve=Decimal("0.10"))
        talk = started(books, tmp_path)
        assert talk.till.account.grant.outage_reserve == books.reserve
        while not talk.ended.done():
            await asyncio.sleep(1)
            account = talk.till.account
            held = account.grant.reserved - account.not_settled - account.in_flight - account.grant.goodbye
            assert held >= account.grant.outage_reserve, "kept aside in every moment"
        assert talk.till.account.grant.outage_reserve == 0, "nothing beyond will come: ordinary money"
        assert talk.ended.result() == "budget"
        await talk.leave()
        unspent = books.limit - books.total
        assert unspent < talk.till.wanted() + books.goodbye, (
            "ends between limit - W - C and limit, as without a reserve"
        )

    run(scene())


def test_a_turn_that_is_not_paid_waits_for_a_ledger_that_restarts_and_is_then_answered(tmp_path: Path) -> None:
    async def scene() -> None:
        books = Books()
        talk = started(books, tmp_path, pace=3600)
        await asyncio.sleep(30)
        talk.till.request("long", talk.till.account.holdings(now()).free)
        talk.till._lost.add("long")  # its usage is lost: the money is spoken for
        books.mode = "refusing"
        talk.turns.respond()
        await asyncio.sleep(9)
        assert (talk.answered_at, talk.ended.done()) == ([], False)
        books.mode = "answering"
        await asyncio.sleep(3)
        assert len(talk.answered_at) == 1
        talk.stop()

    run(scene())


def test_the_late_answer_to_an_old_request_does_not_end_a_session_that_the_next_one_pays(tmp_path: Path) -> None:
    async def scene() -> None:
        books = Books()
        talk = started(books, tmp_path, pace=3600)
        await asyncio.sleep(30)
        books.mode = "refusing"
        talk.charger.kick()
        await asyncio.sleep(2)
        assert not talk.charger.reachable
        free = talk.till.account.holdings(now()).free
        tokens = {Meter.AUDIO_OUT: int(free * 1_000_000 / 20)}
        talk.till.apply([Billed(Usage("late", UsageKind.RESPONSE, "primary", MODEL, tokens, wall()))])
        talk.turns.respond()
        await asyncio.sleep(4)
        books.mode = "answering"
        await asyncio.sleep(6)
        assert "late" in books.posted
        assert (len(talk.answered_at), talk.ended.done()) == (1, False)
        talk.stop()

    run(scene())


def test_a_kick_storm_while_the_ledger_is_away_makes_no_request_storm(tmp_path: Path) -> None:
    async def scene() -> None:
        books = Books()
        talk = started(books, tmp_path, pace=3600)
        await asyncio.sleep(30)
        books.mode = "refusing"
        asked = len(books.asked)
        for _ in range(600):
            talk.charger.kick()
            await asyncio.sleep(0.1)
        assert len(books.asked) - asked < 20
        talk.stop()

    run(scene())


def test_a_job_that_is_killed_in_an_outage_owes_its_open_response_at_its_bound_and_pays_once(tmp_path: Path) -> None:
    async def scene() -> None:
        books = Books()
        talk = started(books, tmp_path)
        await asyncio.sleep(60)
        books.mode = "refusing"
        await asyncio.sleep(21)
        assert not talk.till.quiet
        open_ones = dict(talk.till.account.holds)
        unsettled = [usage.key for usage in talk.till.rest()[0]]
        assert unsettled
        talk.killed()
        await asyncio.sleep(600)
        await replay(books, tmp_path)
        assert not books.lost
        copy = talk.spool.path.read_text()
        # The answer to the first replay is lost: the spool stays, and is replayed again.
        books.mode = "forgetful"
        assert await replay(books, tmp_path) == []
        assert (books.lost, books.closed) == (True, None), "the session waits for the next agent"
        once = dict(books.posted)
        books.mode = "answering"
        assert await replay(books, tmp_path) == [], "and so does its room"
        assert books.posted == once
        assert {key: once[key] for key in open_ones} == open_ones
        assert set(unsettled) <= set(once)
        assert set(once) == {*talk.billed, *open_ones}
        left = recover(copy.splitlines())
        assert left is not None
        assert left.n >= books.n

    run(scene())
