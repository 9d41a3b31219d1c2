"""The ledger as a process of its own: kill -9 loses nothing that was answered and counts nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from decimal import Decimal

from fastapi import FastAPI
from talktime_ledger import wire
from talktime_ledger.client import LedgerClient

from .conftest import (
    GATEWAY,
    ISSUER,
    OPERATOR,
    TRANSCRIBE,
    Issuer,
    Stand,
    agent_of,
    free_port,
    opening,
    project_push,
    rate_card,
    until_ready,
    usage,
)


async def serve(database_url: str, issuer: Issuer, port: int) -> asyncio.subprocess.Process:
    """`python -m talktime_ledger serve`, when it is ready."""
    environment = {
        **os.environ,
        "TALKTIME_DATABASE_URL": database_url,
        "TALKTIME_PORT": str(port),
        "TALKTIME_HOST": "127.0.0.1",
        "TALKTIME_JWT_ISSUER": ISSUER,
        "TALKTIME_JWKS_FILE": str(issuer.jwks_file),
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "talktime_ledger", "serve", env=environment, stdout=asyncio.subprocess.DEVNULL
    )


async def test_kill_9_between_commit_and_reply(database_url: str, issuer: Issuer) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = await serve(database_url, issuer, port)
    stand = Stand(url, database_url, issuer, FastAPI())
    patient = {"patience_sec": 300.0, "timeout_sec": 10.0}
    try:
        operator, gateway = stand.client(OPERATOR, **patient), stand.client(GATEWAY, **patient)
        agent = stand.client(agent_of("limit"), **patient)
        await operator.put_rate_card("mini", rate_card())
        await operator.put_rate_card("transcribe", rate_card("gpt-4o-mini-transcribe", TRANSCRIBE))
        await operator.put_project("study", "limit", project_push())
        requests = [opening() for _ in range(4)]
        await asyncio.gather(*(gateway.open_session(request) for request in requests))

        async def talk(client: LedgerClient, request: wire.SessionOpen) -> Decimal:
            session_id = request.session_id
            await client.attach(session_id, wire.Attach(epoch=1, worker="w"))
            for n in range(1, 16):
                grant = await client.use(session_id, wire.Use(epoch=1, n=n, usages=(usage(f"r{n}", 50),)))
                assert grant.n == n
            closed = await client.close(session_id, wire.Close(epoch=1, n=16, reason="done"))
            return closed.posted

        talks = [asyncio.create_task(talk(agent, request)) for request in requests]
        for _ in range(2):
            await asyncio.sleep(0.3)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            process = await serve(database_url, issuer, port)
        assert await asyncio.gather(*talks) == [Decimal("0.015")] * 4
        account = await stand.account()
        assert (account["posted"], account["reserved"]) == (Decimal("0.06"), 0)
        await stand.assert_laws()
    finally:
        process.terminate()
        await process.wait()
        for client in stand.clients:
            await client.aclose()


async def test_a_replica_that_stops_ends_its_streams_and_waits_for_nobody(database_url: str, issuer: Issuer) -> None:
    port = free_port()
    process = await serve(database_url, issuer, port)
    stand = Stand(f"http://127.0.0.1:{port}", database_url, issuer, FastAPI())
    try:
        operator = stand.client(OPERATOR, patience_sec=300.0)
        await operator.put_project("study", "limit", project_push())
        await until_ready(stand.url)
        pushes = aiter(stand.client(agent_of("limit")).push("study", "limit"))
        assert (await anext(pushes)).event == "resync"
        process.send_signal(signal.SIGTERM)
        # uvicorn would cancel the stream after 10 s, with an error in its log.
        async with asyncio.timeout(9):
            assert await process.wait() in (0, -signal.SIGTERM)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        for client in stand.clients:
            await client.aclose()


async def test_migrate_is_a_command(own_postgres: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(f"{own_postgres}/postgres")
    await connection.execute("CREATE DATABASE by_command")
    environment = {**os.environ, "TALKTIME_DATABASE_URL": f"{own_postgres}/by_command"}

    async def run() -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "talktime_ledger", "migrate", env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        return await process.wait()

    assert await asyncio.gather(run(), run()) == [0, 0], "two at once: the advisory lock lets one work"
    await connection.execute("DROP DATABASE by_command WITH (FORCE)")
    await connection.close()
