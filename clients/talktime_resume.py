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
meanwhile, nothing is asked any more; an ask that is under way is heard to its end, for it may be what moves the
interview.

The SDK is slow to notice that only the media's path (UDP) is cut, the front door is not. So it is asked, too, with
`X-Talktime-Waiting: true`, when entering takes more than 2 s, and when the checks of a connected Room's path have had
no answer for 4 s, until that is over. 201 says with `moved` whether to connect with what came, or to keep what there
is.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
from livekit.rtc import DisconnectReason

FIRST_SEC = 3.0
EVERY_SEC = 2.0
PATIENCE_SEC = 120.0
LEAVE_SEC = 2.0
ENTER_SEC = 15.0
"""What the SDK gives one try; it makes three of them, and its server may be known to be sick after the first."""
WAIT_SEC, AGAIN_SEC = 2.0, 1.0
"""Of those: until the front door is asked, and after it has said that the room is where it was."""
LOOK_SEC, STATS_SEC, SILENT_SEC = 1.0, 1.0, 4.0
"""WebRTC checks its path every 2.5 s; a look may see an answer a second late."""
GONE = 404
USELESS = frozenset({400, 401, 403, GONE})


@dataclass(frozen=True)
class Entry:
    """Where to connect."""

    server_url: str
    participant_token: str
    moved: bool | None = None
    """Whether that is elsewhere; an older front door does not say so."""

    def is_elsewhere(self, server_url: str) -> bool:
        """Seen from the server that the client knows."""
        return self.server_url != server_url if self.moved is None else self.moved


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
    waiting: bool = False,
    patience_sec: float = PATIENCE_SEC,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Entry | None:
    """Asks until there is an answer; None when the interview has ended, asking is of no use, or the patience is over.

    ``headers`` carry the credential used before (or the ticket is in ``url``); ``token``: the one used so far.
    ``waiting``: there is a connection, or one in the making. That is cut by no refusal and no impatience of ours: only
    an end is None, and who is refused asks no more until it is cancelled.
    """
    until = math.inf if waiting else now() + patience_sec
    more = {**headers, "X-Talktime-Previous-Token": token, **({"X-Talktime-Waiting": "true"} if waiting else {})}
    body = {"room_name": room_of(token)}
    while now() < until:
        wait = EVERY_SEC
        try:
            async with http.post(url, json=body, headers=more) as answer:
                if answer.status == 201:
                    told = await answer.json()
                    return Entry(told["server_url"], told["participant_token"], told.get("moved"))
                if answer.status == GONE or (answer.status in USELESS and not waiting):
                    return None
                wait = math.inf if answer.status in USELESS else float(answer.headers.get("Retry-After") or EVERY_SEC)
        except (aiohttp.ClientError, TimeoutError, LookupError, TypeError, ValueError):
            pass  # no network, or not the front door's own answer: ask again
        await sleep(wait)
    return None


class HeardAgainError(Exception):
    """There is nothing to ask about any more."""


class Silence:
    """How long there has been no answer. Only what was seen to grow can fall silent."""

    def __init__(self) -> None:
        self._total: int | None = None
        self._grew_at = math.inf

    def seconds(self, now: float, total: int | None) -> float:
        """``total``: answers so far; None: unknown, which is no silence."""
        if total is None:
            return 0.0
        if self._total is not None and total > self._total:
            self._grew_at = now
        self._total = total
        return max(0.0, now - self._grew_at)


async def answered(room: Any) -> int | None:
    """Checks of the Room's paths that were answered, by its own statistics; None where there are none (an older SDK).

    What else comes in says nothing: a server that gets nothing from here goes on sending reports.
    """
    try:
        stats = await asyncio.wait_for(room.get_rtc_stats(), STATS_SEC)
    except Exception:
        return None
    both = (*stats.publisher_stats, *stats.subscriber_stats)
    pairs = [one.candidate_pair.candidate_pair for one in both if one.HasField("candidate_pair")]
    return sum(pair.responses_received for pair in pairs) if pairs else None


async def leave(room: Any, *, comes_back: bool = False) -> None:
    """Hangs up; a server that hangs does not answer that. ``comes_back``: on another connection, so that a goodbye that
    comes through is not taken for the end of the interview.
    """
    why = {"reason": DisconnectReason.USER_UNAVAILABLE} if comes_back else {}
    try:
        leaving = room.disconnect(**why)
    except TypeError:
        leaving = room.disconnect()  # an older SDK gives no reason: the agent waits 4 s for who says goodbye
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(leaving, LEAVE_SEC)


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
        now: Callable[[], float] = time.monotonic,
        enter_sec: float = ENTER_SEC,
    ) -> None:
        self._new_room = new_room
        self._url = url
        self._headers = dict(headers)
        self._server_url = ""
        self._token = ""
        self._on_moved = on_moved
        self._sleep = sleep
        self._now = now
        self._enter_sec = enter_sec
        self._asking: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None  # asks about a silent Room
        self._heard = asyncio.Event()  # again, while that asks
        self._mended = asyncio.Event()  # by itself, while the front door is asked about a lost connection
        self._watching: asyncio.Task[None] | None = None
        self._silence = Silence()
        self._tasks: set[asyncio.Task[None]] = set()
        self._moving = False
        self._stopped = False
        self.room: Any = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, server_url: str, token: str) -> None:
        """Into the interview, with what the front door answered; where that fails the front door is asked again.

        Raises what ``Room.connect`` raised (TimeoutError: nothing for 15 s) when the interview has ended meanwhile.
        """
        try:
            await self._enter(Entry(server_url, token))
        except Exception:
            if self._stopped or not await self._entered(await self._answer(EVERY_SEC)):
                raise

    async def stop(self) -> None:
        """The participant hangs up: nothing is asked any more, the room is left."""
        self._over()
        if self.room is not None:
            await leave(self.room)

    # -- entering ------------------------------------------------------------------------------------------------------

    async def _enter(self, entry: Entry) -> None:
        self._server_url, self._token = entry.server_url, entry.participant_token
        room = self._new_room()

        # Of a room that was left nothing is heard any more.
        def present(act: Callable[[], None]) -> Callable[..., None]:
            return lambda *_: act() if self.room is room else None

        room.on("reconnecting", present(lambda: self._lost(FIRST_SEC)))
        room.on("reconnected", present(self._healed))
        room.on("disconnected", present(self._gone))
        elsewhere = await self._connected(room)
        if elsewhere is not None:
            await self._enter(elsewhere)
            return
        self.room = room
        self._silence = Silence()
        if self._stopped:
            # Who has hung up meanwhile is not brought back.
            self._keep(leave(room))
        elif self._watching is None:
            self._watching = asyncio.ensure_future(self._watch())

    async def _connected(self, room: Any) -> Entry | None:
        """Where the interview has moved before the Room was in, if so. TimeoutError when it takes too long, or is over.

        A connection that was given up and comes late is hung up.
        """
        entering = asyncio.ensure_future(room.connect(self._server_url, self._token))
        patience = asyncio.ensure_future(self._sleep(self._enter_sec))
        asking = asyncio.ensure_future(self._elsewhere(WAIT_SEC, AGAIN_SEC))
        try:
            await asyncio.wait({entering, patience, asking}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            entering.cancel()
            raise
        finally:
            patience.cancel()
            asking.cancel()
        # An answer that comes together with the connection counts: the interview is no longer where that leads.
        if entering.done() and not asking.done():
            entering.result()
            return None

        async def given_up() -> None:
            with contextlib.suppress(Exception):
                await entering
                await leave(room)

        self._keep(given_up())
        if not asking.done():
            raise TimeoutError(f"no connection to {self._server_url} within {self._enter_sec:.0f} s")
        elsewhere = asking.result()
        if elsewhere is None:
            self._over()
            raise TimeoutError(f"the interview was over before there was a connection to {self._server_url}")
        return elsewhere

    # -- asking --------------------------------------------------------------------------------------------------------

    async def _answer(
        self, after_sec: float, *, waiting: bool = False, sleep: Callable[[float], Awaitable[None]] | None = None
    ) -> Entry | None:
        sleep = sleep or self._sleep
        await sleep(after_sec)
        async with aiohttp.ClientSession() as http:
            ask = partial(reask, http, self._url, self._headers, self._token, sleep=sleep, now=self._now)
            return await ask(waiting=waiting)

    async def _elsewhere(
        self, after_sec: float, every_sec: float, sleep: Callable[[float], Awaitable[None]] | None = None
    ) -> Entry | None:
        """Where the interview is, as soon as that is not the present server; None when it is over."""
        while not self._stopped:
            entry = await self._answer(after_sec, waiting=True, sleep=sleep)
            if entry is None or entry.is_elsewhere(self._server_url):
                return None if self._stopped else entry
            after_sec = every_sec
        return None

    async def _entered(self, entry: Entry | None) -> bool:
        """Into what was answered, or what is answered when that fails; False when the interview is over."""
        while entry is not None and not self._stopped:
            self._moving = True
            self._drop()
            left, self.room = self.room, None
            if left is not None:
                # Before the next is entered: as long as it lives it comes back under the same name, and puts that out.
                self._keep(leave(left, comes_back=True))
            try:
                await self._enter(entry)
                return not self._stopped
            except Exception:
                entry = None
            finally:
                self._moving = False
            if not self._stopped:
                entry = await self._answer(EVERY_SEC)
        self._asking = None
        self._over()
        return False

    async def _move(self, entry: Entry | None) -> None:
        if await self._entered(entry):
            self._asking = None
            self._keep(self._tell(self.room))

    async def _tell(self, room: Any) -> None:
        if self._on_moved is not None:
            try:
                await self._on_moved(room)
            except Exception:
                self._lost(EVERY_SEC)

    # -- when to ask ---------------------------------------------------------------------------------------------------

    def _lost(self, after_sec: float) -> None:
        if self._asking:
            self._mended.clear()
        elif not (self._moving or self._stopped):
            self._heard.set()
            self._mended = asyncio.Event()
            self._asking = asyncio.ensure_future(self._ask(after_sec))

    async def _ask(self, after_sec: float) -> None:
        mended = self._mended
        try:
            entry = await self._answer(after_sec, sleep=partial(self._unless, mended))
        except HeardAgainError:
            self._asking = None
            return
        if mended.is_set() and (entry is None or not entry.is_elsewhere(self._server_url)):
            self._asking = None
            return
        await self._move(entry)

    async def _unless(self, heard: asyncio.Event, seconds: float) -> None:
        """Between two asks is where to stop: one that is under way may be what moves the interview."""
        over = [asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(heard.wait())]
        try:
            await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in over:
                one.cancel()
        if heard.is_set():
            raise HeardAgainError

    def _healed(self) -> None:
        self._heard.set()
        self._mended.set()
        self._silence = Silence()

    def _gone(self) -> None:
        self._drop()
        self._forget()
        self._healed()
        self._lost(0.0)

    async def _watch(self) -> None:
        """Whether the Room's path is answered, once a second."""
        while True:
            await self._sleep(LOOK_SEC)
            silence, total = self._silence, await answered(self.room)
            silent = silence.seconds(self._now(), total) >= SILENT_SEC
            if not silent:
                self._heard.set()
            elif silence is self._silence and not (self._moving or self._asking or self._waiting):
                self._waiting = asyncio.ensure_future(self._ask_silently())

    async def _ask_silently(self) -> None:
        heard = self._heard = asyncio.Event()
        try:
            entry = await self._elsewhere(0.0, EVERY_SEC, partial(self._unless, heard))
        except HeardAgainError:
            self._waiting = None
            return
        if self._asking is not None:
            # The connection broke meanwhile; this is the answer to both.
            self._asking.cancel()
        # From here on it is a move like any other, which no sound ends.
        self._asking, self._waiting = self._waiting, None
        if entry is None:
            self._keep(leave(self.room))
        await self._move(entry)

    def _drop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _forget(self) -> None:
        """Asks no more about a lost connection."""
        if self._asking is not None and not self._moving:
            self._asking.cancel()
            self._asking = None

    def _over(self) -> None:
        self._stopped = True
        self._drop()
        self._forget()
        self._healed()
        if self._watching is not None:
            self._watching.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
