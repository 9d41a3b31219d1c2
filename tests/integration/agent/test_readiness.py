"""An agent pod is ready when its LiveKit knows the worker: a dispatch before that would be dropped."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from livekit.protocol import agent
from talktime_agent.settings import AgentSettings
from talktime_agent.worker import build_server


class LiveKit:
    """A LiveKit as a worker sees it: takes its registration, and answers when it is let."""

    def __init__(self) -> None:
        self.asked, self.let, self.hang_up = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def worker(self, request: web.Request) -> web.WebSocketResponse:
        channel = web.WebSocketResponse()
        await channel.prepare(request)
        await channel.receive_bytes()
        self.asked.set()
        await self.let.wait()
        known = agent.RegisterWorkerResponse(worker_id="AW_1")
        await channel.send_bytes(agent.ServerMessage(register=known).SerializeToString())
        await self.hang_up.wait()
        return channel


@pytest.fixture
async def livekit() -> AsyncIterator[tuple[LiveKit, str]]:
    one, app = LiveKit(), web.Application()
    app.router.add_get("/agent", one.worker)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield one, f"ws://127.0.0.1:{runner.addresses[0][1]}"
    one.let.set()
    one.hang_up.set()
    await runner.cleanup()


def settings(url: str, folder: Path) -> AgentSettings:
    with socket.socket() as taken, socket.socket() as other:
        taken.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = {"http_port": taken.getsockname()[1], "metrics_port": other.getsockname()[1]}
    return AgentSettings(
        project="research/study",
        ledger_url="http://127.0.0.1:1",
        agent_name="tt-research-study",
        LIVEKIT_URL=url,
        LIVEKIT_API_KEY="key",
        LIVEKIT_API_SECRET="a secret that is long enough for it",
        spool_dir=folder,
        http_host="127.0.0.1",
        idle_processes=0,
        **ports,
    )


async def test_a_worker_is_ready_once_livekit_has_registered_it_and_stays_so(
    livekit: tuple[LiveKit, str], tmp_path: Path
) -> None:
    server, url = livekit
    chosen = settings(url, tmp_path)
    worker = build_server(chosen, lambda: False)
    registered = asyncio.Event()
    worker.on("worker_registered", lambda *_: registered.set())
    running = asyncio.create_task(worker.run())
    try:
        async with aiohttp.ClientSession() as http, asyncio.timeout(180):

            async def status() -> int:
                async with http.get(f"http://127.0.0.1:{chosen.http_port}/") as answer:
                    return answer.status

            await server.asked.wait()
            assert await status() == 503
            server.let.set()
            await registered.wait()
            assert await status() == 200
            # A LiveKit that goes away meanwhile makes no pod unready: its sessions go on, and no other pod had one.
            server.asked.clear()
            server.let.clear()
            server.hang_up.set()
            await server.asked.wait()
            assert await status() == 200
    finally:
        await worker.aclose()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
