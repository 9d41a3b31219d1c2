"""Time, a front door and Rooms that a test holds in its hand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from livekit.rtc import DisconnectReason
from livekit.rtc._proto import stats_pb2

CLIENTS = Path(__file__).parents[3] / "clients"
Answer = tuple[int, dict[str, str], dict[str, Any]]


def token(room: str) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"video": {"room": room}}).encode()).decode().rstrip("=")
    return f"e30.{body}.sig"


A = ("wss://a", token("r1"))
B = ("wss://b", token("r1"))
C = ("wss://c", token("r1"))


def place(where: tuple[str, str], **more: Any) -> Answer:
    return 201, {}, {"server_url": where[0], "participant_token": where[1], **more}


async def settle() -> None:
    """All that can happen without time has happened."""
    for _ in range(60):
        await asyncio.sleep(0)


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.time = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.time + seconds, done))
        await done

    async def to(self, end: float) -> None:
        await self._run(end, lambda: False)
        self.time = end

    async def until(self, condition: Callable[[], object]) -> None:
        """Fails when that is not so within ten minutes."""
        await self._run(self.time + 600, condition)
        assert condition(), "that never came"

    async def _run(self, end: float, condition: Callable[[], object]) -> None:
        await settle()
        while not condition():
            self._sleepers = sorted((one for one in self._sleepers if not one[1].done()), key=lambda one: one[0])
            if not self._sleepers or self._sleepers[0][0] > end:
                return
            self.time, done = self._sleepers[0]
            done.set_result(None)
            await settle()


class Front:
    """The front door: gives the answers in this order, the last one again and again; keeps what was asked, and when.

    An answer that is a Future is given when that is done.
    """

    def __init__(self, clock: Clock, *answers: Answer | asyncio.Future[Answer]) -> None:
        self.url = "https://front/token"
        self.at: list[float] = []
        self.waiting: list[bool] = []
        self._clock = clock
        self._answers = list(answers)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Front]:
        yield self

    @contextlib.asynccontextmanager
    async def post(self, url: str, *, json: Any, headers: Mapping[str, str]) -> AsyncIterator[SimpleNamespace]:
        assert (url, json) == (self.url, {"room_name": "r1"})
        assert headers["X-Talktime-Previous-Token"]
        self.at.append(self._clock.time)
        self.waiting.append(headers.get("X-Talktime-Waiting") == "true")
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        status, more, told = await asyncio.shield(answer) if isinstance(answer, asyncio.Future) else answer

        async def body() -> dict[str, Any]:
            return told

        yield SimpleNamespace(status=status, headers=more, json=body)


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

    async def disconnect(self, *, reason: int = DisconnectReason.CLIENT_INITIATED) -> None:
        self.did.append("disconnect")
        self.reason = reason
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


def pair(answers: int, received: int = 0) -> stats_pb2.RtcStats:
    """A candidate pair in a Room's statistics. `received`: bytes."""
    it = stats_pb2.CandidatePairStats(responses_received=answers, bytes_received=received, requests_received=received)
    return stats_pb2.RtcStats(candidate_pair=stats_pb2.RtcStats.CandidatePair(candidate_pair=it))


class HearingRoom(Room):
    """One with statistics: at each look another check has been answered, unless it is silent; reports always come."""

    def __init__(self, *, silent: bool = False) -> None:
        super().__init__()
        self.silent = silent
        self.stats: Callable[[], Any] = lambda: SimpleNamespace(
            publisher_stats=[], subscriber_stats=[pair(self._answers, self._bytes)]
        )
        self._answers, self._bytes = 10, 1000

    async def get_rtc_stats(self) -> Any:
        self._answers += 0 if self.silent else 1
        self._bytes += 100
        return self.stats()


class Rooms:
    """Makes these Rooms, one after the other; keeps those that were told of as moved to."""

    def __init__(self, *rooms: Room) -> None:
        self.moved: list[Room] = []
        self._made = iter(rooms)

    def __call__(self) -> Room:
        return next(self._made)

    async def on_moved(self, room: Room) -> None:
        self.moved.append(room)
