"""session.ended over a network of receivers that are not all well: one that never ends holds up itself only."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from talktime_agent.budgeted import Budgeted
from talktime_agent.clock import system_clock
from talktime_agent.push import PodLink
from talktime_agent.spool import Spool
from talktime_ledger import wire
from talktime_ledger.server import postbox

from .conftest import GATEWAY, OPERATOR, Stand, agent_of, opening, project_push

HEAD = b"HTTP/1.1 200 OK\r\n"
GOOD = HEAD + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
# A body of which a byte comes now and then, and never the last.
ENDLESS = HEAD + b"Content-Length: 100000\r\n\r\n"


@asynccontextmanager
async def receiver(answer: bytes, drip: bytes = b"") -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook that answers so, and then drips for ever."""
    got: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.split(b"content-length:")[1].split(b"\r\n")[0]
        got.append(json.loads(await reader.readexactly(int(length))))
        with contextlib.suppress(ConnectionError):
            writer.write(answer)
            while drip:
                writer.write(drip)
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", got
    finally:
        server.close()


async def ended(stand: Stand, project: str, sessions: int = 1) -> None:
    """So many sessions of the Project are over."""
    for _ in range(sessions):
        request, agent = opening(project), stand.client(agent_of(project))
        await stand.client(GATEWAY).open_session(request)
        await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))
        await agent.close(request.session_id, wire.Close(epoch=1, n=1, reason="done"))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.05)


async def errors(stand: Stand, project: str) -> list[str | None]:
    rows = await stand.sql(
        """SELECT o.last_error FROM outbox o JOIN projects p ON p.id = o.project_id
           WHERE p.name = $1 AND o.delivered_at IS NULL""",
        project,
    )
    return [row["last_error"] for row in rows]


async def test_a_receiver_that_drips_holds_up_no_other_project(stand: Stand) -> None:
    async with receiver(HEAD, b"X-More: 1\r\n") as (bad, _), receiver(GOOD) as (good, got):
        operator = stand.client(OPERATOR)
        await operator.put_project("study", "sick", project_push(webhook=bad))
        await operator.put_project("study", "well", project_push(webhook=good))
        await ended(stand, "sick", 6)
        for count in (1, 2, 3):
            await ended(stand, "well")
            await until(lambda count=count: len(got) == count)
        assert await errors(stand, "sick") == [None] * 6, "its first attempts are still on their way"


async def test_an_attempt_ends_well_within_the_lease(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    assert postbox.ATTEMPT_SEC <= postbox.LEASE_SEC / 2
    monkeypatch.setattr(postbox, "ATTEMPT_SEC", 0.5)
    async with receiver(HEAD, b"X-More: 1\r\n") as (url, got):
        await stand.client(OPERATOR).put_project("study", "sick", project_push(webhook=url))
        await ended(stand, "sick")
        await until(lambda: len(got) == 2)
    assert await errors(stand, "sick") == ["no answer within 0.5 s"]


async def test_the_status_is_the_answer_and_the_body_is_not_waited_for(stand: Stand) -> None:
    async with receiver(ENDLESS, b".") as (url, got):
        await stand.client(OPERATOR).put_project("study", "long", project_push(webhook=url))
        await ended(stand, "long", 2)
        async with asyncio.timeout(60):
            while await errors(stand, "long"):  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(0.1)
        assert len(got) == 2


async def test_the_close_of_the_agent_itself_is_what_post_processing_hears(stand: Stand, tmp_path: Path) -> None:
    """From `Budgeted`, as an interview ends, to the webhook; nothing on the way is played."""
    async with receiver(GOOD) as (url, got):
        await stand.client(OPERATOR).put_project("study", "limit", project_push(generation=2, webhook=url))
        session = await stand.client(GATEWAY).open_session(opening(participant_key="p-17"))
        agent, clock = stand.client(agent_of("limit")), system_clock()
        sent_at = clock.monotonic()
        told = await agent.attach(session.session_id, wire.Attach(epoch=1, worker="pod/job"))
        spool = Spool(tmp_path, session.session_id, 1, clock.wall().timestamp())
        budget = Budgeted(
            agent, told, SecretStr("sk-none"), spool, clock, PodLink(tmp_path), sent_at=sent_at, use_interval=600
        )
        budget.start(answer=lambda: None)
        budget.till.turn()
        budget.till.event("closing_finished")
        budget.end("budget")
        await budget.settle("budget")
        await until(lambda: bool(got))
    [event] = got
    data = event["data"]
    assert (event["type"], event["subject"]) == ("dev.talktime.session.ended", str(session.session_id))
    assert (data["namespace"], data["project"], data["participant_key"]) == ("study", "limit", "p-17")
    assert (data["close_reason"], data["turns"], data["total_usd"]) == ("budget", 1, "0")
    assert "closing_finished" in {one["name"] for one in data["events"]}
