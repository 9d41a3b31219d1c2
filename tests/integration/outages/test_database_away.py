"""The agent's till and charging loop against the real ledger, whose PostgreSQL freezes, dies and comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from talktime_agent.clock import steady_seconds
from talktime_agent.recovery import Recovery
from talktime_ledger.client import LedgerClient, LedgerError
from talktime_ledger.resources.project import OnLedgerOutage
from talktime_ledger.wire import Attach, Claim, Close

from tests.integration.ledger.conftest import GATEWAY, OPERATOR, Stand, agent_of, opening, project_push
from tests.integration.outages.conftest import Postgres
from tests.unit.agent.virtual import ANSWER, Talk


async def interview(stand: Stand, agent: LedgerClient, directory: Path, **more: Any) -> Talk:
    """A session of the real ledger, talking about once a second."""
    session = await stand.client(GATEWAY).open_session(opening())
    sent = steady_seconds()
    told = await agent.attach(session.session_id, Attach(epoch=1, worker="w"))
    assert steady_seconds() - sent < 5
    talk = Talk(
        agent,
        directory,
        told=told,
        session_id=session.session_id,
        clock=lambda: datetime.now(UTC),
        steady=steady_seconds,
        pace=1.0,
        speaks=0.3,
        **more,
    )
    talk.start()
    return talk


async def replay(agent: LedgerClient, directory: Path) -> list[str]:
    """One look of the worker main; the rooms it deleted."""
    rooms: list[str] = []

    async def delete_room(name: str) -> None:
        rooms.append(name)

    await Recovery(agent, directory, delete_room=delete_room, replayed=lambda: None).once()
    return rooms


async def keys(stand: Stand, session_id: str) -> Counter[str]:
    """How often each usage of a session stands in the books."""
    rows = await stand.sql("SELECT key FROM usage_events WHERE session_id = $1", session_id)
    return Counter(row["key"] for row in rows)


async def until_posted(talk: Talk, seconds: float = 120) -> None:
    """The ledger answers again and has everything."""
    async with asyncio.timeout(seconds):
        while not talk.charger.reachable or talk.till.owes:  # noqa: ASYNC110 - it comes over HTTP
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", ["freezes", "crashes"])
async def test_sessions_go_on_and_every_usage_is_posted_once(
    stand: Stand, postgres: Postgres, tmp_path: Path, how: str
) -> None:
    # W and a minute of burn are held: with these caps enough for the outage, as in any real session.
    await stand.client(OPERATOR).put_project(
        "study", "limit", project_push(generation=2, caps={"contextTokens": 8000, "responseSeconds": 20})
    )
    agent = stand.client(agent_of("limit"))
    talks = [await interview(stand, agent, tmp_path) for _ in range(3)]
    await asyncio.sleep(3)
    heard = [len(talk.answered_at) for talk in talks]
    (postgres.freeze if how == "freezes" else postgres.crash)()
    async with asyncio.timeout(60):  # nobody waits for the ledger, which nobody reaches: on they talk
        while any(
            talk.charger.reachable or len(talk.answered_at) < before + 5
            for talk, before in zip(talks, heard, strict=True)
        ):
            assert not any(talk.ended.done() for talk in talks)
            await asyncio.sleep(0.1)
    killed = talks.pop()
    killed.killed()
    opened = dict(killed.till.account.holds)
    assert await replay(stand.client(agent_of("limit"), patience_sec=0.5), tmp_path) == []
    (postgres.thaw if how == "freezes" else postgres.start)()
    for talk in talks:
        await until_posted(talk)
        assert not talk.ended.done()
    # The job died meanwhile: its spool is replayed, and once more as if the first time had not been noticed.
    copy = killed.spool.path.read_bytes()
    for _ in range(2):
        killed.spool.path.write_bytes(copy)
        assert await replay(agent, tmp_path) == [], "its room waits for the next agent"
        assert not killed.spool.path.exists()
    for talk in talks:
        talk.end("participant_left")
        assert await talk.leave()
    console = stand.client(GATEWAY)
    for talk in talks:
        assert await keys(stand, talk.session_id) == Counter(talk.billed)
        assert (await console.session(talk.session_id)).posted == ANSWER * len(talk.billed)
    assert await keys(stand, killed.session_id) == Counter([*killed.billed, *opened])
    (dead,) = await console.lost_sessions()
    assert (dead.session_id, dead.losses) == (str(killed.session_id), 1)
    await console.close(killed.session_id, Close(epoch=dead.epoch, reason="agent_died"))
    assert dead.posted == ANSWER * len(killed.billed) + sum(opened.values(), Decimal(0))
    await stand.assert_laws()
    assert (await stand.account())["reserved"] == 0


async def test_terminate_ends_in_an_outage_and_the_books_are_right_afterwards(
    stand: Stand, postgres: Postgres, tmp_path: Path
) -> None:
    agent = stand.client(agent_of("limit"), patience_sec=0.5)
    talk = await interview(stand, agent, tmp_path, on_outage=OnLedgerOutage.TERMINATE)
    await asyncio.sleep(2)
    postgres.crash()
    async with asyncio.timeout(120):
        assert await talk.ended == "ledger_outage"
    assert talk.till.valid
    assert not await talk.leave()
    postgres.start()
    async with asyncio.timeout(60):
        while await replay(agent, tmp_path) != [talk.session_id]:  # noqa: ASYNC110 - it comes over HTTP
            await asyncio.sleep(0.2)
    assert await keys(stand, talk.session_id) == Counter(talk.billed)
    assert (await stand.client(GATEWAY).session(talk.session_id)).close_reason == "ledger_outage"
    await stand.assert_laws()
    assert (await stand.account())["reserved"] == 0


async def test_a_fenced_agent_posts_what_it_billed_and_the_session_goes_on_with_the_new_one(
    stand: Stand, tmp_path: Path
) -> None:
    agent = stand.client(agent_of("limit"))
    talk = await interview(stand, agent, tmp_path)
    async with asyncio.timeout(60):
        while not talk.billed or talk.till.owes:  # noqa: ASYNC110 - real time
            await asyncio.sleep(0.1)
    await stand.client(GATEWAY).claim(talk.session_id, Claim(epoch=2, reason="test"))
    async with asyncio.timeout(60):
        assert await talk.ended == "fenced"
    assert talk.till.account.fenced
    spoken = len(talk.answered_at)
    assert await talk.leave()
    await asyncio.sleep(1.5)
    assert len(talk.answered_at) == spoken
    session = await stand.client(GATEWAY).session(talk.session_id)
    assert (session.state, session.epoch) == ("open", 2)
    told = await agent.attach(talk.session_id, Attach(epoch=2, worker="other"))
    assert told.grant.n >= 1
    assert dict.fromkeys(talk.billed, 1).items() <= (await keys(stand, talk.session_id)).items()
    with pytest.raises(LedgerError):
        await agent.attach(talk.session_id, Attach(epoch=1, worker="w"))
    await stand.assert_laws()
