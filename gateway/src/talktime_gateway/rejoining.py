"""A participant of a running session asks again: back into its room, wait, or go on elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from talktime_ledger.client import LedgerClient, LedgerError
from talktime_ledger.wire import Claim, MediaChoice, Session

from . import tokens
from .admission import Caller
from .directory import View
from .media import Media, Route, Sfu
from .metrics import Metrics
from .places import Issued, Places, mark, same
from .problems import Problem
from .reask import LAPSE_SEC, Look, Missed, Way, again_in, pool_down, sick, way
from .rooms import SfuUnavailable
from .running import running_session
from .takeover import take_over

log = logging.getLogger(__name__)

WAIT_SEC = 2

LOOK_SEC = 1.5
"""A participant waits meanwhile, and may be told to wait."""


@dataclass(frozen=True)
class Asker:
    """Who asks, with the token used before. ``waiting``: has, or is still making, a connection on which nothing is
    heard."""

    caller: Caller
    room: str
    previous: str | None
    name: str = ""
    waiting: bool = False


class Rejoining:
    """Answers. Raises Problem: 425 means wait."""

    def __init__(
        self,
        ledger: LedgerClient,
        media: Media,
        places: Places,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._media = media
        self._places = places
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep
        self._missed = Missed()
        self._silent = Missed(LAPSE_SEC)

    async def rejoin(self, asker: Asker, view_now: Callable[[], Awaitable[View]]) -> Issued:
        """201 back into its room or into a new one. ``view_now``: the directory as the ledger has it now."""
        caller, room = asker.caller, asker.room
        if asker.previous is None:
            detail = "field 'room_name' is accepted only with the previous token of that room"
            raise Problem(400, "FieldRejected", detail, extra={"field": "room_name"})
        session = await running_session(self._ledger, caller, room)
        wait = Problem(425, "RoomNotReachable", "the room cannot be reached now: ask again", retry_after=WAIT_SEC)
        began, identity = self._clock(), ""
        while True:
            view = await view_now()
            sfu, route = self._media.of(view, session), self._media.route(view, caller.project)
            known = [one for one in (sfu, *((route.own, route.fallback) if route else ())) if one is not None]
            if not known:
                raise wait
            identity = identity or _previous_identity(known, asker.previous, room)
            look, place = await self._look(view, session, sfu, route)
            wait_sec = again_in(look, self._clock() - began if asker.waiting else None)
            if wait_sec <= 0:
                break
            await self._sleep(wait_sec)
        match way(look):
            case Way.HERE if sfu is not None:
                return replace(self._places.participant(caller, sfu, session, identity, asker.name), moved=False)
            case Way.MOVE if place is not None and route is not None:
                if look.exists is None and sfu is not None:
                    self._places.failed(sfu)
                stale = bool(look.exists) and sfu is not None and same(place[0], sfu)
                return await self._move(asker, identity, route, place, session, wait, stale=stale)
            case _:
                raise wait

    async def _look(
        self, view: View, session: Session, sfu: Sfu | None, route: Route | None
    ) -> tuple[Look, tuple[Sfu, str] | None]:
        """What is seen now, and where the next room would be made."""
        now, room = self._clock(), session.session_id
        exists = await self._exists(sfu, room)
        place = self._elsewhere(route, sfu if exists is None else None)
        pool = view.pool_named(session.media.pool)
        # Whoever asks for another room of the same LiveKit has seen the same silence.
        silent_sec = self._silent.note(mark(sfu, "") if sfu else room, exists is not None, now)
        # A question that was not answered was silence, too; a refusal comes at once.
        silent_sec += self._clock() - now
        missing_sec = self._missed.note(room, exists is not False, now)
        own, node_id = session.media.mode == "selfhosted", session.media.node_id
        look = Look(
            exists,
            silent_sec if exists is None else missing_sec,
            own and view.was_cut(node_id, now),
            own and sick(pool, node_id, answers=exists is not None),
            own and pool is not None and pool_down(pool),
            place is not None and _differs(place, sfu, node_id, answers=exists is not None),
        )
        return look, place

    async def _exists(self, sfu: Sfu | None, room: str) -> bool | None:
        """Whether the room is there; None when its LiveKit does not say."""
        if sfu is None:
            return None
        try:
            async with asyncio.timeout(LOOK_SEC):
                return room in await sfu.rooms.names([room])
        except (SfuUnavailable, TimeoutError):
            return None

    def _elsewhere(self, route: Route | None, silent: Sfu | None) -> tuple[Sfu, str] | None:
        """Where the session's next room would be made, not where ``silent`` is; None when no place takes one now."""
        try:
            return self._places.next_room(route, silent, live=True) if route is not None else None
        except Problem:
            return None

    async def _move(
        self,
        asker: Asker,
        identity: str,
        route: Route,
        place: tuple[Sfu, str],
        session: Session,
        wait: Problem,
        *,
        stale: bool,
    ) -> Issued:
        """The same session in a new room elsewhere: its old agent is fenced before the next one is asked for.

        ``stale``: the same LiveKit still names the old room.
        """
        sfu, node_id = place
        media = MediaChoice(mode=sfu.mode, pool=route.pool.name, node_id=node_id)
        try:
            if stale:
                await take_over(sfu.rooms, session.session_id, node_id)
            claimed = await self._ledger.claim(
                session.session_id, Claim(epoch=session.epoch + 1, reason="moved", media=media)
            )
        except (LedgerError, SfuUnavailable) as error:
            # Another replica was quicker, or the ledger is away: the next answer tells.
            raise wait from error
        self._missed.note(session.session_id, True, self._clock())
        try:
            if stale:
                await sfu.rooms.delete(session.session_id)
            await self._places.make_room(asker.caller, sfu, claimed, node_id)
        except SfuUnavailable as error:
            raise wait from error
        log.warning("moved to %s, epoch %d", mark(sfu, node_id), claimed.epoch, extra={"session": session.session_id})
        self._metrics.watcher.labels("moved").inc()
        issued = self._places.participant(asker.caller, sfu, claimed, identity, asker.name)
        return replace(issued, moved=True)


def _previous_identity(known: list[Sfu], previous: str, room: str) -> str:
    """Who asked before; the token may be of the LiveKit the session has left. Raises Problem 401."""
    for sfu in known:
        with contextlib.suppress(tokens.PreviousTokenInvalid):
            return tokens.previous_identity(sfu.keys, previous, room)
    raise Problem(401, "PreviousTokenInvalid", "the previous token is not one of this room")


def _differs(place: tuple[Sfu, str], sfu: Sfu | None, node_id: str, *, answers: bool) -> bool:
    """Whether a place is another than where the room was; where the LiveKit does not answer, no node of it is."""
    if sfu is None or not same(place[0], sfu):
        return True
    return answers and place[1] != node_id
