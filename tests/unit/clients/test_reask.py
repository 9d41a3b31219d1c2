"""The client helpers against a fake front door: wait when told to wait, move when told to, end when it has ended."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp import web

CLIENTS = Path(__file__).parents[3] / "clients"


def _token(room: str) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"video": {"room": room}}).encode()).decode().rstrip("=")
    return f"e30.{body}.sig"


@pytest.fixture(scope="module")
def client() -> ModuleType:
    spec = importlib.util.spec_from_file_location("talktime_resume", CLIENTS / "talktime_resume.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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


MOVED = (201, {}, {"server_url": "wss://b", "participant_token": _token("r1")})


async def test_it_waits_as_told_and_moves(client: ModuleType, door: Callable[..., Any]) -> None:
    front, naps = (
        await door((425, {"Retry-After": "2"}, {}), (503, {"Retry-After": "7"}, {}), (500, {}, {}), MOVED),
        Naps(),
    )
    async with aiohttp.ClientSession() as http:
        entry = await client.reask(http, front.url, {"Authorization": "Bearer tts_x"}, _token("r1"), sleep=naps)
    assert (entry.server_url, entry.participant_token) == ("wss://b", _token("r1"))
    assert naps.slept == [2.0, 7.0, 2.0]
    headers, body = front.asked[0]
    assert body == {"room_name": "r1"}
    assert headers["X-Talktime-Previous-Token"] == _token("r1")
    assert headers["Authorization"] == "Bearer tts_x"


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_it_stops_where_asking_is_of_no_use(client: ModuleType, door: Callable[..., Any], status: int) -> None:
    front, naps = await door((status, {}, {})), Naps()
    async with aiohttp.ClientSession() as http:
        assert await client.reask(http, front.url, {}, _token("r1"), sleep=naps) is None
    assert naps.slept == []


async def test_it_asks_again_without_a_network_until_its_patience_is_over(client: ModuleType) -> None:
    clock = [0.0]

    async def nap(seconds: float) -> None:
        clock[0] += seconds

    async with aiohttp.ClientSession() as http:
        url = "http://127.0.0.1:9/token"
        assert await client.reask(http, url, {}, _token("r"), patience_sec=10, sleep=nap, now=lambda: clock[0]) is None
    assert clock[0] == 10


class Room:
    """As much of a livekit Room as the helper touches."""

    def __init__(self, *, hangs: bool = False, fails: bool = False, opens: asyncio.Event | None = None) -> None:
        self.handlers: dict[str, Callable[..., None]] = {}
        self.did: list[Any] = []
        self.left = asyncio.Event()
        self._hangs = hangs
        self._opens = opens
        self._fails = fails

    def on(self, event: str, handler: Callable[..., None]) -> None:
        self.handlers[event] = handler

    async def disconnect(self) -> None:
        self.did.append("disconnect")
        self.left.set()
        if self._hangs:
            await asyncio.Event().wait()
        self.handlers["disconnected"]()

    async def connect(self, url: str, token: str) -> None:
        self.did.append((url, token))
        await asyncio.sleep(0)
        if self._opens is not None:
            await self._opens.wait()
        if self._fails:
            raise ConnectionError("no media")


A = ("wss://a", _token("r1"))
B = ("wss://b", _token("r1"))


@pytest.mark.parametrize("hangs", [False, True])
async def test_who_keeps_reconnecting_is_moved_once_to_a_room_of_its_own(
    client: ModuleType, door: Callable[..., Any], hangs: bool
) -> None:
    front, naps = await door((425, {}, {}), MOVED), Naps()
    first, second = rooms = [Room(hangs=hangs), Room()]
    to_be_made = iter(rooms)
    moved: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def on_moved(room: Any) -> None:
        moved.set_result(room)

    keeper = client.Keeper(lambda: next(to_be_made), front.url, {}, on_moved=on_moved, sleep=naps)
    await keeper.connect(*A)
    first.handlers["reconnecting"]()
    first.handlers["reconnecting"]()
    assert await asyncio.wait_for(moved, 10) is second
    assert keeper.room is second
    first.handlers["disconnected"]()
    assert (first.did, second.did) == ([A, "disconnect"], [B])
    assert naps.slept == [3.0, 2.0]
    assert len(front.asked) == 2, "of the room that was left nothing is heard any more"
    assert not keeper.ended.done()


async def test_who_cannot_enter_at_first_asks_again_and_is_not_called_moved(
    client: ModuleType, door: Callable[..., Any]
) -> None:
    front, naps = await door((425, {}, {}), MOVED), Naps()
    first, second = rooms = [Room(fails=True), Room()]
    to_be_made = iter(rooms)
    told: list[Any] = []

    async def on_moved(room: Any) -> None:
        told.append(room)

    keeper = client.Keeper(lambda: next(to_be_made), front.url, {}, on_moved=on_moved, sleep=naps)
    await keeper.connect(*A)
    assert keeper.room is second
    assert (first.did, second.did, told) == ([A], [B], [])
    assert naps.slept == [2.0, 2.0]


async def test_who_waits_at_a_door_that_does_not_open_asks_again_and_leaves_it_when_it_does(
    client: ModuleType, door: Callable[..., Any]
) -> None:
    front, naps = await door(MOVED), Naps()
    opens = asyncio.Event()
    first, second = rooms = [Room(opens=opens), Room()]
    to_be_made = iter(rooms)
    keeper = client.Keeper(lambda: next(to_be_made), front.url, {}, sleep=naps, enter_sec=0.5)
    await keeper.connect(*A)
    assert keeper.room is second
    assert (first.did, second.did) == ([A], [B])
    opens.set()
    await asyncio.wait_for(first.left.wait(), 60)
    assert keeper.room is second
    assert (first.did, second.did) == ([A, "disconnect"], [B])
    assert len(front.asked) == 1


async def test_an_interview_that_ended_before_anybody_was_in_it_says_what_failed(
    client: ModuleType, door: Callable[..., Any]
) -> None:
    front, naps = await door((404, {}, {})), Naps()
    keeper = client.Keeper(lambda: Room(fails=True), front.url, {}, sleep=naps)
    with pytest.raises(ConnectionError, match="no media"):
        await keeper.connect(*A)
    assert keeper.ended.done()


@pytest.mark.parametrize("when", ["while it asks", "while it enters"])
async def test_who_hangs_up_on_the_way_is_not_brought_back(
    client: ModuleType, door: Callable[..., Any], when: str
) -> None:
    front, naps = await door(MOVED), Naps()
    first, second = rooms = [Room(), Room()]
    to_be_made = iter(rooms)
    moved: list[Any] = []

    async def on_moved(room: Any) -> None:
        moved.append(room)

    def new_room() -> Room:
        room = next(to_be_made)
        if room is second and when == "while it enters":
            hanging_up.append(asyncio.ensure_future(keeper.stop()))
        return room

    async def nap(seconds: float) -> None:
        await naps(seconds)
        if when == "while it asks":
            hanging_up.append(asyncio.ensure_future(keeper.stop()))

    hanging_up: list[asyncio.Future[None]] = []
    keeper = client.Keeper(new_room, front.url, {}, on_moved=on_moved, sleep=nap)
    await keeper.connect(*A)
    first.handlers["reconnecting"]()
    await asyncio.wait_for(keeper.ended, 60)
    await asyncio.gather(*hanging_up)
    await asyncio.sleep(0.05)
    assert moved == []
    assert second.did in ([], [B, "disconnect"])


async def test_where_it_could_not_be_told_it_asks_again(client: ModuleType, door: Callable[..., Any]) -> None:
    front, naps = await door(MOVED, MOVED), Naps()
    rooms = [Room(), Room(), Room()]
    to_be_made = iter(rooms)
    told: list[Any] = []
    done = asyncio.Event()

    async def on_moved(room: Any) -> None:
        told.append(room)
        if len(told) == 1:
            raise RuntimeError("the microphone could not be published")
        done.set()

    keeper = client.Keeper(lambda: next(to_be_made), front.url, {}, on_moved=on_moved, sleep=naps)
    await keeper.connect(*A)
    rooms[0].handlers["disconnected"]()
    await asyncio.wait_for(done.wait(), 60)
    assert told == rooms[1:]
    assert naps.slept == [0.0, 2.0]


async def test_a_connection_that_heals_moves_nothing(client: ModuleType, door: Callable[..., Any]) -> None:
    front, room = await door(), Room()
    keeper = client.Keeper(lambda: room, front.url, {})
    await keeper.connect(*A)
    room.handlers["reconnecting"]()
    await asyncio.sleep(0)
    room.handlers["reconnected"]()
    await asyncio.sleep(0)
    assert (front.asked, room.did) == ([], [A])


async def test_the_end_of_the_interview_is_told(client: ModuleType, door: Callable[..., Any]) -> None:
    front, room = await door((404, {}, {})), Room()
    keeper = client.Keeper(lambda: room, front.url, {})
    await keeper.connect(*A)
    room.handlers["disconnected"]()
    await asyncio.wait_for(keeper.ended, 60)
    assert room.did == [A]


async def test_who_hangs_up_is_not_asked_for(client: ModuleType, door: Callable[..., Any]) -> None:
    front, room = await door(), Room()
    keeper = client.Keeper(lambda: room, front.url, {})
    await keeper.connect(*A)
    await keeper.stop()
    assert keeper.ended.done()
    assert (front.asked, room.did) == ([], [A, "disconnect"])


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed here")
def test_the_javascript_helper() -> None:
    done = subprocess.run(
        ["node", "--test", str(CLIENTS / "talktime-resume.test.mjs")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
