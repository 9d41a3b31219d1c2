"""The rounds in the background: directory, transport, and the watcher over open sessions and their rooms.

Every replica makes them. All acts are safe to repeat: closing and deleting are idempotent, participant-seconds are
cumulative per connection, and a new dispatch needs the ledger's claim of the next epoch, which only one replica gets.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from functools import partial

from talktime_ledger.client import Conflict, Fenced, LedgerClient, LedgerError, NotFound, SessionClosed
from talktime_ledger.resources.project import agent_name
from talktime_ledger.wire import Claim, Close, Session

from .credentials import is_session_id
from .directory import Cache, View
from .media import Media, Sfu, place
from .metrics import Metrics
from .reask import Missed
from .rooms import Present, SfuUnavailable, dispatch_metadata
from .transport import Mode, Sightings
from .watch import Act, Alone, Seen, decide, needs_dispatch, of_epoch, participants

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Calls in flight per round: a round must not starve the token requests."""

OPEN_LIMIT = 10_000


class Census:
    """Compares the ledger's open sessions with the rooms that exist, and acts on the difference."""

    def __init__(
        self,
        ledger: LedgerClient,
        media: Media,
        cache: Cache,
        metrics: Metrics,
        *,
        join_timeout: float,
        redispatch_after: float,
        transport_interval: float,
        sightings: Sightings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._media = media
        self._cache = cache
        self._metrics = metrics
        self._join_timeout = join_timeout
        self._redispatch_after = redispatch_after
        self._transport_interval = transport_interval
        self._sightings = sightings
        self._clock = clock
        self._transport_at = float("-inf")
        self._remembers = False
        self._alone = Alone()
        self._unsent = Missed()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def round(self, now: datetime, monotonic: float) -> None:
        """One comparison of everything. ``now`` is this machine's clock (UTC), ``monotonic`` seconds."""
        view = self._cache.view
        if view is None:
            return
        try:
            sessions = await self._ledger.sessions(state="open", limit=OPEN_LIMIT)
        except LedgerError as error:
            self._unknown("ledger", error)
            return
        if not self._remembers:
            await self._remember(view)
        by_pool, sfus = self._by_pool(view, sessions)
        with_transport = monotonic - self._transport_at >= self._transport_interval
        if with_transport:
            self._transport_at = monotonic
        there: dict[str, bool] = {}
        self._sightings.only(view.pools)
        for pool, sfu in sfus.items():
            there |= await self._pool(sfu, by_pool[pool], now, monotonic, with_transport)
        self._alone.note(there, monotonic)

    async def _remember(self, view: View) -> None:
        """Once: who was in rooms when this replica was not there, or when none was."""
        try:
            unended = await self._ledger.unended()
        except LedgerError as error:
            self._unknown("ledger", error)
            return
        for session in unended:
            pool = place(view, session)
            if pool is not None:
                key, room = (pool.namespace, pool.name), session.session_id
                self._sightings.remembered(room, key, session.media.mode, session.connections)
        self._remembers = True

    def _by_pool(
        self, view: View, sessions: Iterable[Session]
    ) -> tuple[dict[tuple[str, str], list[Session]], dict[tuple[str, str], Sfu]]:
        """Sessions by pool, and every pool whose keys are here (also those without sessions: rooms may be left).

        A fallback only while sessions are or were there: that service clears its empty rooms by itself.
        """
        grouped: dict[tuple[str, str], list[Session]] = defaultdict(list)
        for session in sessions:
            sfu = self._media.of(view, session)
            if sfu is not None:
                grouped[sfu.pool.namespace, sfu.pool.name].append(session)
        sfus = {
            key: sfu
            for key, pool in view.pools.items()
            if (sfu := self._media.on(pool)) is not None
            and (sfu.mode == "selfhosted" or grouped[key] or self._sightings.on(key))
        }
        return grouped, sfus

    async def _pool(
        self, sfu: Sfu, sessions: list[Session], now: datetime, monotonic: float, with_transport: bool
    ) -> dict[str, bool]:
        """One LiveKit; whether a participant was there, per session that could be looked at."""
        try:
            rooms = await sfu.rooms.names()
        except SfuUnavailable as error:
            self._unknown(sfu.pool.name, error)
            return {}
        there: dict[str, bool] = {}

        async def one(session: Session) -> None:
            exists = session.session_id in rooms
            present = await self._look(sfu, session.session_id, session.media.mode, exists)
            if present is None:
                return
            there[session.session_id] = bool(participants(present))
            seen = Seen(
                (now - session.opened_at).total_seconds(),
                session.attached_at is not None and not session.lost,
                exists,
                present,
                self._alone.seconds(session.session_id, monotonic),
                session.lost,
            )
            await self._report(session.session_id, with_transport)
            act = decide(seen, self._join_timeout)
            await self._act(sfu, session, act, now.timestamp(), [one.identity for one in present if one.agent])

        async def over(room: str, mode: Mode) -> None:
            """A closed session somebody was in: its last connections are counted to their end."""
            if await self._look(sfu, room, mode, room in rooms) is not None:
                await self._report(room, with_transport)

        await self._all(partial(one, session) for session in sessions)
        closed = self._sightings.on((sfu.pool.namespace, sfu.pool.name))
        for session in sessions:
            closed.pop(session.session_id, None)
        await self._all(partial(over, room, mode) for room, mode in closed.items())
        left = rooms - {session.session_id for session in sessions}
        await self._all(partial(self._sweep, sfu, room) for room in left if is_session_id(room))
        return there

    async def _all(self, calls: Iterable[Callable[[], Awaitable[None]]]) -> None:
        async def bounded(call: Callable[[], Awaitable[None]]) -> None:
            async with self._at_once:
                await call()

        results = await asyncio.gather(*(bounded(call) for call in calls), return_exceptions=True)
        for result in results:
            if isinstance(result, (LedgerError, SfuUnavailable)):
                self._unknown("session", result)
            elif isinstance(result, BaseException):
                raise result

    async def _look(self, sfu: Sfu, room: str, mode: Mode, exists: bool) -> tuple[Present, ...] | None:
        """Who is in the room (noted for transport); None when that could not be learned."""
        before = self._clock()
        present: tuple[Present, ...] = ()
        if exists:
            try:
                present = await sfu.rooms.participants(room)
            except SfuUnavailable as error:
                self._unknown(sfu.pool.name, error)
                return None
        pool = (sfu.pool.namespace, sfu.pool.name)
        self._sightings.looked(room, pool, mode, present, before, self._clock())
        return present

    async def _report(self, room: str, with_transport: bool) -> None:
        """Participant-seconds to the ledger: at every transport round, and at once when somebody is gone."""
        report = self._sightings.report(room, only_news=not with_transport)
        if report is None:
            return
        try:
            await self._ledger.post_transport(room, report)
        except NotFound:
            self._sightings.forget(room)
        else:
            self._sightings.told(room, report)

    async def _act(self, sfu: Sfu, session: Session, act: Act, now: float, agents: Sequence[str]) -> None:
        extra = {"session": session.session_id, "project": f"{session.namespace}/{session.project}"}
        if act in (Act.CLOSE_GONE, Act.CLOSE_NO_SHOW, Act.CLOSE_LOST):
            if not await self._closed(session, act):
                return
            await sfu.rooms.delete(session.session_id)
            log.info("session closed: %s", act.value, extra=extra)
        elif act is Act.DELETE_ROOM:
            await sfu.rooms.delete(session.session_id)
            log.info("room deleted: its participant has left", extra=extra)
        elif act is Act.REDISPATCH and not await self._redispatched(sfu, session, now, agents):
            return
        if act is not Act.NOTHING:
            self._metrics.watcher.labels(act.value).inc()

    async def _closed(self, session: Session, act: Act) -> bool:
        """Close, unless an agent attached since the round began: then the session is the agent's (law 5)."""
        fresh = await self._ledger.session(session.session_id)
        if fresh.state != "open" or (fresh.attached_at is not None and not fresh.lost):
            return False
        try:
            await self._ledger.close(session.session_id, Close(epoch=fresh.epoch, reason=act.value))
        except (Conflict, Fenced, SessionClosed):
            return False
        return True

    async def _redispatched(self, sfu: Sfu, session: Session, now: float, agents: Sequence[str]) -> bool:
        """Dispatch again for a participant without an agent, if nobody took the last dispatch.

        ``agents``: shown in the room, of a session that lost its own. Then only a dispatch that is missing for long
        tells: of the replica that claimed this epoch and died before it sent anybody.
        """
        room = session.session_id
        dispatches = await sfu.rooms.dispatches(room)
        present = of_epoch(dispatches, dispatch_metadata(room, session.epoch))
        unsent_sec = self._unsent.note(f"{room} {session.epoch}", bool(present), now)
        if agents and (present or unsent_sec < self._redispatch_after):
            return False
        if not needs_dispatch(present, now, self._redispatch_after):
            return False
        fresh = await self._ledger.session(room)
        if fresh.epoch != session.epoch or (fresh.attached_at is not None and not fresh.lost):
            # Its agent came since the round began: a claim would fence it in the middle of its first word.
            return False
        try:
            claimed = await self._ledger.claim(room, Claim(epoch=session.epoch + 1, reason="no_agent"))
        except (Conflict, Fenced, SessionClosed):
            return False
        for identity in agents:
            await sfu.rooms.remove(room, identity)
        for dispatch in dispatches:
            await sfu.rooms.undispatch(room, dispatch.id)
        name = agent_name(session.namespace, session.project)
        await sfu.rooms.dispatch(room, name, dispatch_metadata(room, claimed.epoch))
        log.info("dispatched again, epoch %d", claimed.epoch, extra={"session": room})
        return True

    async def _sweep(self, sfu: Sfu, room: str) -> None:
        """A room without an open session: delete it when the ledger says its session is closed."""
        try:
            session = await self._ledger.session(room)
        except NotFound:
            return  # not ours
        if session.state == "closed" and await sfu.rooms.delete(room):
            self._metrics.watcher.labels("room_of_closed_session").inc()
            log.info("room of a closed session deleted", extra={"session": room})

    def _unknown(self, of: str, error: Exception) -> None:
        self._metrics.census_failures.labels(of).inc()
        log.warning("census: %s: %s", of, error)


async def repeat(what: str, act: Callable[[], Awaitable[None]], interval_sec: float) -> None:
    """Act for ever, ``interval_sec`` apart; a failed round is logged and the next one comes."""
    failing = False
    while True:
        try:
            await act()
            failing = False
        except LedgerError as error:
            if not failing:
                log.warning("%s: %s", what, error)
            failing = True
        except Exception:
            log.exception("%s failed", what)
        await asyncio.sleep(interval_sec)
