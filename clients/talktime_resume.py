"""Talktime: go on with an interview whose media server died. One file; needs `livekit` and `aiohttp`.

    first = {"server_url": ..., "participant_token": ...}          # what the front door answered
    keeper = Keeper(room_with_my_handlers, url, headers, on_moved=publish_microphone)
    await keeper.connect(first["server_url"], first["participant_token"])
    await keeper.ended                                             # the interview is over
    await keeper.stop()                                            # or: the participant hangs up

When the connection has been reconnecting for 3 s, or is lost, the front door is asked again, every 2 s (or what
Retry-After says), with the room's name and the old token. 201: connect with what came, in a new Room (the SDK keeps the
participants of one that was left, and one whose server hangs cannot be left); what was published must be published
again. 425, 429, 5xx, no network: wait and ask again. 404: the interview has ended. If the connection heals by itself
meanwhile, nothing moves.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

FIRST_SEC = 3.0
EVERY_SEC = 2.0
PATIENCE_SEC = 120.0
LEAVE_SEC = 2.0
ENTER_SEC = 15.0
"""What the SDK gives one try; it makes three of them, and its server may be known to be sick after the first."""
USELESS = frozenset({400, 401, 403, 404})


@dataclass(frozen=True)
class Entry:
    """Where to connect."""

    server_url: str
    participant_token: str


def room_of(token: str) -> str:
    """The room a LiveKit token is for."""
    part = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return str(claims["video"]["room"])


async def reask(
    http: aiohttp.ClientSession,
    url: str,
    headers: Mapping[str, str],
    token: str,
    *,
    patience_sec: float = PATIENCE_SEC,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Entry | None:
    """Asks until there is an answer; None when the interview has ended, asking is of no use, or the patience is over.

    ``headers`` carry the credential used before (or the ticket is in ``url``); ``token``: the one used so far.
    """
    until = now() + patience_sec
    more = {**headers, "X-Talktime-Previous-Token": token}
    while now() < until:
        wait = EVERY_SEC
        try:
            async with http.post(url, json={"room_name": room_of(token)}, headers=more) as answer:
                if answer.status == 201:
                    told = await answer.json()
                    return Entry(told["server_url"], told["participant_token"])
                if answer.status in USELESS:
                    return None
                wait = float(answer.headers.get("Retry-After") or EVERY_SEC)
        except (aiohttp.ClientError, TimeoutError):
            pass  # no network: ask again
        await sleep(wait)
    return None


async def leave(room: Any) -> None:
    """Hangs up; a server that hangs does not answer that."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(room.disconnect(), LEAVE_SEC)


class Keeper:
    """Holds the ``livekit.rtc.Room`` of an interview (``room``), a new one after each move.

    ``new_room`` makes a Room with the application's handlers on it; ``on_moved`` is given the one that was moved to.
    """

    def __init__(
        self,
        new_room: Callable[[], Any],
        url: str,
        headers: Mapping[str, str],
        *,
        on_moved: Callable[[Any], Awaitable[None]] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        enter_sec: float = ENTER_SEC,
    ) -> None:
        self._new_room = new_room
        self._url = url
        self._headers = dict(headers)
        self._token = ""
        self._on_moved = on_moved
        self._sleep = sleep
        self._enter_sec = enter_sec
        self._asking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._moving = False
        self._stopped = False
        self.room: Any = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, server_url: str, token: str) -> None:
        """Into the interview, with what the front door answered; where that fails the front door is asked again.

        Raises what ``Room.connect`` raised (TimeoutError: nothing for 15 s) when the interview has ended meanwhile.
        """
        self._token = token
        try:
            await self._enter(server_url)
        except Exception:
            if not await self._entered_elsewhere(EVERY_SEC):
                raise

    async def stop(self) -> None:
        """The participant hangs up: nothing is asked any more, the room is left."""
        self._over()
        if self.room is not None:
            await leave(self.room)

    async def _enter(self, server_url: str) -> None:
        room = self._new_room()

        # Of a room that was left nothing is heard any more.
        def present(act: Callable[[], None]) -> Callable[..., None]:
            return lambda *_: act() if self.room is room else None

        room.on("reconnecting", present(lambda: self._lost(FIRST_SEC)))
        room.on("reconnected", present(self._healed))
        room.on("disconnected", present(self._gone))
        await self._connected(room, server_url)
        self.room = room

    async def _connected(self, room: Any, server_url: str) -> None:
        """TimeoutError when it takes too long; one that comes late is hung up."""
        entering = asyncio.ensure_future(room.connect(server_url, self._token))
        try:
            await asyncio.wait({entering}, timeout=self._enter_sec)
        except asyncio.CancelledError:
            entering.cancel()
            raise
        if not entering.done():

            async def given_up() -> None:
                with contextlib.suppress(Exception):
                    await entering
                    await leave(room)

            self._keep(given_up())
            raise TimeoutError(f"no connection to {server_url} within {self._enter_sec:.0f} s")
        entering.result()

    def _over(self) -> None:
        self._stopped = True
        self._healed()
        if not self.ended.done():
            self.ended.set_result(None)

    def _lost(self, after_sec: float) -> None:
        if not (self._moving or self._stopped or self._asking):
            self._asking = asyncio.ensure_future(self._ask(after_sec))

    def _healed(self) -> None:
        if self._asking is not None and not self._moving:
            self._asking.cancel()
            self._asking = None

    def _gone(self) -> None:
        self._healed()
        self._lost(0.0)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, after_sec: float) -> None:
        if await self._entered_elsewhere(after_sec):
            self._asking = None
            self._keep(self._tell(self.room))

    async def _entered_elsewhere(self, after_sec: float) -> bool:
        """Whether there was a place; False when the interview is over."""
        await self._sleep(after_sec)
        async with aiohttp.ClientSession() as http:
            while True:
                entry = await reask(http, self._url, self._headers, self._token, sleep=self._sleep)
                if entry is None or self._stopped:
                    self._asking = None
                    self._over()
                    return False
                self._token = entry.participant_token
                self._moving = True
                left, self.room = self.room, None
                if left is not None:
                    self._keep(leave(left))
                try:
                    await self._enter(entry.server_url)
                except Exception:
                    await self._sleep(EVERY_SEC)
                else:
                    if self._stopped:
                        # Who has hung up meanwhile is not brought back.
                        self._keep(leave(self.room))
                    return not self._stopped
                finally:
                    self._moving = False

    async def _tell(self, room: Any) -> None:
        if self._on_moved is not None:
            try:
                await self._on_moved(room)
            except Exception:
                self._lost(EVERY_SEC)
