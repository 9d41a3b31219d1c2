"""Opening interviews: reserve at the ledger, make the room, hand out the token."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from uuid import UUID

from talktime_ledger.client import Conflict, LedgerClient, LedgerError, Refused
from talktime_ledger.wire import Close, DirectoryProvider, MediaChoice, Session, SessionOpen

from . import providers, refusals, tokens
from .admission import Caller
from .credentials import new_session_id
from .directory import View
from .media import Media, Route, Sfu
from .metrics import Metrics
from .places import Issued, Places, mark
from .problems import Problem
from .rooms import SfuUnavailable

log = logging.getLogger(__name__)

ROOM_ATTEMPTS = 2
"""A node may have died a moment ago, before the operator could tell: the second attempt avoids it."""

WITH_FALLBACK = 3
"""Two of the pool's nodes, then its fallback; with one node that is two attempts."""

DELETE_SEC = 0.3
"""A room that was perhaps made is deleted at once if that goes quickly; else the watcher finds it."""

WAIT_SEC = 2


@dataclass(frozen=True)
class Guest:
    """Who is to be interviewed: display name, the caller's key for this person, the hash of the ticket shown."""

    name: str = ""
    key: str | None = None
    ticket: str | None = None


class Back(Enum):
    """What became of a session whose room was not made."""

    DONE = auto()
    KEPT = auto()
    UNKNOWN = auto()


class Interviews:
    """Acts for the front door. Every method raises Problem."""

    def __init__(self, ledger: LedgerClient, media: Media, places: Places, metrics: Metrics, random: Random) -> None:
        self._ledger = ledger
        self._media = media
        self._places = places
        self._metrics = metrics
        self._random = random

    def ready_for(self, view: View, caller: Caller) -> Route:
        """Everything that can be known without the ledger: pool, keys, a place for a room. Raises 402, 429 or 503."""
        route = self._media.for_new(view, caller.project)
        self._places.next_room(route)
        return route

    async def open(self, caller: Caller, route: Route, guest: Guest) -> Issued:
        """A new session with its room. A ticket is used up by it, or stays good."""
        failure: SfuUnavailable | None = None
        tried: set[str] = set()
        for _ in range(WITH_FALLBACK if route.fallback is not None else ROOM_ATTEMPTS):
            sfu, node_id = self._places.next_room(route)
            if route.fallback is not None and mark(sfu, node_id) in tried:
                break
            tried.add(mark(sfu, node_id))
            session = await self._reserve(caller, sfu, route, node_id, guest)
            try:
                await self._places.make_room(caller, sfu, session, node_id)
            except SfuUnavailable as error:
                failure = error
                back = await self._give_back(sfu, session)
                if back is Back.UNKNOWN and guest.ticket is not None:
                    break  # a second try would find the ticket used
                if back is not Back.KEPT:
                    continue
            return self._places.participant(caller, sfu, session, session.participant_identity, guest.name)
        raise Problem(503, "RoomFailed", "the media servers did not take the room", retry_after=WAIT_SEC) from failure

    async def _reserve(self, caller: Caller, sfu: Sfu, route: Route, node_id: str, guest: Guest) -> Session:
        """Open at the ledger, with the first provider it accepts."""
        project, session_id = caller.project, new_session_id()
        media = MediaChoice(mode=sfu.mode, pool=route.pool.name, node_id=node_id)
        refused = Problem(503, "NoProvider", "the project offers no provider for new sessions", retry_after=30)
        for provider in providers.order(project.providers, self._random):
            try:
                session = await self._open_at_ledger(caller, media, session_id, provider, guest)
            except LedgerError as error:
                refused = refusals.of_open(error)
                if isinstance(error, Refused) and error.reason in refusals.TRY_NEXT:
                    continue
                break
            self._metrics.sessions.labels(project.namespace, project.name, provider.name).inc()
            return session
        raise refused

    async def _open_at_ledger(
        self, caller: Caller, media: MediaChoice, session_id: str, provider: DirectoryProvider, guest: Guest
    ) -> Session:
        request = SessionOpen(
            session_id=UUID(session_id),
            namespace=caller.project.namespace,
            project=caller.project.name,
            provider=provider.name,
            participant_key=guest.key,
            ticket_sha256=guest.ticket,
            media=media,
            observers=tokens.OBSERVERS,
            participant_identity=tokens.PARTICIPANT,
        )
        return await self._ledger.open_session(request)

    async def _give_back(self, sfu: Sfu, session: Session) -> Back:
        """Money and ticket at once, then the room, which may have been made after its answer was given up.

        What is left over here, the watcher finds within the join timeout.
        """
        back = Back.DONE
        try:
            await self._ledger.close(session.session_id, Close(epoch=session.epoch, reason="room_failed"))
        except Conflict:
            # The room was made after all and its agent is there: the session lives (law 5).
            return Back.KEPT
        except LedgerError as error:
            log.warning("closing failed: %s", error, extra={"session": session.session_id})
            back = Back.UNKNOWN
        with contextlib.suppress(SfuUnavailable, TimeoutError):
            async with asyncio.timeout(DELETE_SEC):
                await sfu.rooms.delete(session.session_id)
        return back
