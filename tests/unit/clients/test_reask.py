"""The client helpers against a fake front door: wait when told to wait, move when told to, end when it has ended."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.unit.clients.fakes import CLIENTS, token


class Door:
    """Answers in the given order; keeps what was asked."""

    def __init__(self, *answers: tuple[int, dict[str, str], Any]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[dict[str, str], Any]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((dict(request.headers), await request.json()))
        status, headers, body = self.answers.pop(0)
        return web.json_response(body, status=status, headers=headers)


@pytest.fixture
async def door() -> AsyncIterator[Callable[..., Any]]:
    runners: list[web.AppRunner] = []

    async def make(*answers: tuple[int, dict[str, str], Any]) -> Door:
        told = Door(*answers)
        app = web.Application()
        app.router.add_post("/token", told.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
        return told

    yield make
    for runner in runners:
        await runner.cleanup()


class Naps:
    """Sleeps that only write down how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


MOVED = (201, {}, {"server_url": "wss://b", "participant_token": token("r1")})


async def test_it_waits_as_told_and_moves(client: ModuleType, door: Callable[..., Any]) -> None:
    front, naps = (
        await door((425, {"Retry-After": "2"}, {}), (503, {"Retry-After": "7"}, {}), (500, {}, {}), MOVED),
        Naps(),
    )
    async with aiohttp.ClientSession() as http:
        entry = await client.reask(http, front.url, {"Authorization": "Bearer tts_x"}, token("r1"), sleep=naps)
    assert (entry.server_url, entry.participant_token) == ("wss://b", token("r1"))
    assert naps.slept == [2.0, 7.0, 2.0]
    headers, body = front.asked[0]
    assert body == {"room_name": "r1"}
    assert headers["X-Talktime-Previous-Token"] == token("r1")
    assert "X-Talktime-Waiting" not in headers
    assert headers["Authorization"] == "Bearer tts_x"


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_it_stops_where_asking_is_of_no_use(client: ModuleType, door: Callable[..., Any], status: int) -> None:
    front, naps = await door((status, {}, {})), Naps()
    async with aiohttp.ClientSession() as http:
        assert await client.reask(http, front.url, {}, token("r1"), sleep=naps) is None
    assert naps.slept == []


async def test_it_asks_again_without_a_network_until_its_patience_is_over(client: ModuleType) -> None:
    clock = [0.0]

    async def nap(seconds: float) -> None:
        clock[0] += seconds

    async with aiohttp.ClientSession() as http:
        url = "http://127.0.0.1:9/token"
        assert await client.reask(http, url, {}, token("r"), patience_sec=10, sleep=nap, now=lambda: clock[0]) is None
    assert clock[0] == 10


@pytest.mark.parametrize(("field", "elsewhere"), [({"moved": True}, True), ({"moved": False}, False), ({}, True)])
async def test_who_waits_says_so_and_is_told_whether_the_interview_has_moved(
    client: ModuleType, door: Callable[..., Any], field: dict[str, bool], elsewhere: bool
) -> None:
    front, naps = await door((425, {"Retry-After": "1"}, {}), (201, {}, {**MOVED[2], **field})), Naps()
    async with aiohttp.ClientSession() as http:
        entry = await client.reask(http, front.url, {}, token("r1"), waiting=True, sleep=naps)
    assert [headers["X-Talktime-Waiting"] for headers, _ in front.asked] == ["true", "true"]
    assert entry.is_elsewhere("wss://a") is elsewhere
    assert entry.is_elsewhere("wss://b") is field.get("moved", False), "without the field the servers are compared"


async def test_who_waits_is_told_of_the_end_and_takes_no_refusal_for_it(
    client: ModuleType, door: Callable[..., Any]
) -> None:
    front, naps = await door((403, {}, {}), (404, {}, {})), Naps()
    async with aiohttp.ClientSession() as http:
        assert await client.reask(http, front.url, {}, token("r1"), waiting=True, sleep=naps) is None
    assert naps.slept == [math.inf], "refused: never again"


@pytest.mark.parametrize("answer", [(201, {}, {"hello": "world"}), (201, {}, []), (503, {"Retry-After": "soon"}, {})])
async def test_what_is_no_answer_of_the_front_door_is_asked_again(
    client: ModuleType, door: Callable[..., Any], answer: Any
) -> None:
    front, naps = await door(answer, MOVED), Naps()
    async with aiohttp.ClientSession() as http:
        assert (await client.reask(http, front.url, {}, token("r1"), sleep=naps)).server_url == "wss://b"
    assert naps.slept == [2.0]


def test_the_javascript_helper() -> None:
    node = Path(sys.executable).with_name("node")
    done = subprocess.run(
        [node, "--test", str(CLIENTS / "talktime-resume.test.mjs")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
