"""Opening, re-joining and observing interviews: reserve at the ledger, make the room, hand out the token."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from uuid import UUID

from talktime_ledger.client import Conflict, LedgerClient, LedgerError, NotFound, Refused
from talktime_ledger.resources.project import agent_name
from talktime_ledger.wire import Claim, Close, DirectoryProvider, MediaChoice, Session, SessionOpen

from . import placement, providers, refusals, tokens
from .admission import Caller
from .credentials import new_session_id
from .directory import View
from .media import Media, Route, Sfu
from .metrics import Metrics
from .problems import Problem
from .reask import LAPSE_SEC, Look, Missed, Way, again_in, node_gone, way
from .rooms import NewRoom, SfuUnavailable
from .takeover import take_over

log = logging.getLogger(__name__)

ROOM_ATTEMPTS = 2
"""A node may have died a moment ago, before the operator could tell: the second attempt avoids it."""

WITH_FALLBACK = 3
"""Two of the pool's nodes, then its fallback; with one node that is two attempts."""

DELETE_SEC = 0.3
"""A room that was perhaps made is deleted at once if that goes quickly; else the watcher finds it."""

WAIT_SEC = 2
SLOT_MEMORY_SEC = 20.0

LOOK_SEC = 1.5
"""A participant waits meanwhile, and may be told to wait."""


@dataclass(frozen=True)
class Issued:
    """What a client gets, in the form of LiveKit's token endpoint, and which session it is (for logs)."""

    server_url: str
    participant_token: str
    session: str


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


@dataclass(frozen=True)
class Limits:
    """Knobs of the settings that matter here."""

    token_ttl_sec: int
    rooms_per_node: int
    room_timeout_sec: float = 2.0


class Interviews:
    """Acts for the front door. Every method raises Problem."""

    def __init__(self, ledger: LedgerClient, media: Media, metrics: Metrics, limits: Limits, random: Random) -> None:
        self._ledger = ledger
        self._media = media
        self._metrics = metrics
        self._limits = limits
        self._random = random
        self._recent = placement.Recent()
        self._slots: dict[tuple[str, str], float] = {}
        self._missed = Missed()
        self._silent = Missed(LAPSE_SEC)

    def ready_for(self, view: View, caller: Caller) -> Route:
        """Everything that can be known without the ledger: pool, keys, a place for a room. Raises 402, 429 or 503."""
        route = self._media.for_new(view, caller.project)
        self._place(route)
        return route

    async def open(self, caller: Caller, route: Route, guest: Guest) -> Issued:
        """A new session with its room. A ticket is used up by it, or stays good."""
        failure: SfuUnavailable | None = None
        tried: set[str] = set()
        for _ in range(WITH_FALLBACK if route.fallback is not None else ROOM_ATTEMPTS):
            sfu, node_id = self._place(route)
            if route.fallback is not None and _mark(sfu, node_id) in tried:
                break
            tried.add(_mark(sfu, node_id))
            session = await self._reserve(caller, sfu, route, node_id, guest)
            try:
                await self._make_room(caller, sfu, session, node_id)
            except SfuUnavailable as error:
                failure = error
                back = await self._give_back(sfu, session)
                if back is Back.UNKNOWN and guest.ticket is not None:
                    break  # a second try would find the ticket used
                if back is not Back.KEPT:
                    continue
            return self._participant(caller, sfu, session, session.participant_identity, guest.name)
        raise Problem(503, "RoomFailed", "the media servers did not take the room", retry_after=WAIT_SEC) from failure

    async def rejoin(self, view: View, caller: Caller, room: str, previous: str | None, name: str) -> Issued:
        """The participant of a running session asks again: 201 back into its room or into a new one, 425 = wait."""
        if previous is None:
            detail = "field 'room_name' is accepted only with the previous token of that room"
            raise Problem(400, "FieldRejected", detail, extra={"field": "room_name"})
        session = await self._session_of(caller, room)
        wait = Problem(425, "RoomNotReachable", "the room cannot be reached now: ask again", retry_after=WAIT_SEC)
        sfu, route = self._media.of(view, session), self._media.route(view, caller.project)
        known = [one for one in (sfu, *((route.own, route.fallback) if route else ())) if one is not None]
        if not known:
            raise wait
        identity = _previous_identity(known, previous, room)
        look, place = await self._look(view, session, sfu, route)
        while (wait_sec := again_in(look)) > 0:
            await asyncio.sleep(wait_sec)
            look, place = await self._look(view, session, sfu, route)
        match way(look):
            case Way.HERE if sfu is not None:
                return self._participant(caller, sfu, session, identity, name)
            case Way.MOVE if place is not None and route is not None:
                if look.exists is None and sfu is not None:
                    # New rooms do not try it first for a while either.
                    self._recent.fail(_mark(sfu, ""), time.monotonic())
                stale = bool(look.exists) and sfu is not None and _same(place[0], sfu)
                return await self._move(caller, route, place, session, identity, name, wait, stale=stale)
            case _:
                raise wait

    async def _look(
        self, view: View, session: Session, sfu: Sfu | None, route: Route | None
    ) -> tuple[Look, tuple[Sfu, str] | None]:
        """What is seen now, and where the next room would be made."""
        now, room = time.monotonic(), session.session_id
        exists = await self._exists(sfu, room)
        place = self._elsewhere(route, sfu if exists is None else None)
        pool = view.pool_named(session.media.pool)
        # Whoever asks for another room of the same LiveKit has seen the same silence.
        silent_sec = self._silent.note(_mark(sfu, "") if sfu else room, exists is not None, now)
        missing_sec = self._missed.note(room, exists is not False, now)
        look = Look(
            exists,
            silent_sec if exists is None else missing_sec,
            session.media.mode == "selfhosted"
            and (node_gone(pool, session.media.node_id) or view.was_cut(session.media.node_id, now)),
            pool is not None and pool.active == "Fallback" and session.media.mode == "selfhosted",
            place is not None and _differs(place, sfu, session.media.node_id, answers=exists is not None),
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
            return self._place(route, silent, live=True) if route is not None else None
        except Problem:
            return None

    async def _move(
        self,
        caller: Caller,
        route: Route,
        place: tuple[Sfu, str],
        session: Session,
        identity: str,
        name: str,
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
        self._missed.note(session.session_id, True, time.monotonic())
        try:
            if stale:
                await sfu.rooms.delete(session.session_id)
            await self._make_room(caller, sfu, claimed, node_id)
        except SfuUnavailable as error:
            raise wait from error
        log.warning("moved to %s, epoch %d", _mark(sfu, node_id), claimed.epoch, extra={"session": session.session_id})
        self._metrics.watcher.labels("moved").inc()
        return self._participant(caller, sfu, claimed, identity, name)

    async def observe(self, view: View, caller: Caller, room: str | None) -> Issued:
        """A seat for an observer: one of the session's fixed identities that nobody uses now."""
        if room is None:
            detail = "field 'room_name' is needed: the session to observe"
            raise Problem(400, "FieldMissing", detail, extra={"field": "room_name"})
        session = await self._session_of(caller, room)
        sfu = self._media.of(view, session)
        if sfu is None:
            raise Problem(503, "PoolUnknown", "the session's SFU pool is not known now", retry_after=WAIT_SEC)
        try:
            present = {p.identity for p in await sfu.rooms.participants(room)}
        except SfuUnavailable as error:
            raise Problem(503, "SfuUnavailable", "the media servers cannot be asked", retry_after=WAIT_SEC) from error
        identity = self._free_seat(session, present, time.monotonic())
        token = tokens.observer_token(sfu.keys, room, identity, self._limits.token_ttl_sec)
        return Issued(sfu.pool.publicURL, token, room)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _place(self, route: Route, silent: Sfu | None = None, *, live: bool = False) -> tuple[Sfu, str]:
        """The LiveKit and the node (empty: its own choice) for the next room. Raises Problem 429 or 503.

        ``silent``: one that does not answer now; it comes last like those that failed a moment ago. ``live``: for an
        interview that has begun.
        """
        now, pool = time.monotonic(), route.pool
        failed = self._recent.failed(now) | ({_mark(silent, "")} if silent is not None else set())
        second = route.fallback
        second_failed = second is not None and _mark(second, "") in failed
        own: placement.Choice | placement.No = placement.No.NONE
        own_failed = False
        if route.own is not None:
            placed = self._recent.placed(now)
            own = placement.choose(pool.nodes, placed, failed, pool.sessionsPerNode or self._limits.rooms_per_node)
            if live and own is placement.No.FULL:
                # Nodes that share what a dead one carried get fuller than planned rather than end its interviews.
                if second is not None and not second_failed:
                    return second, ""
                own = placement.choose(pool.nodes, placed, failed)
            marks = (
                {_mark(route.own, own.node_id), _mark(route.own, "")} if isinstance(own, placement.Choice) else set()
            )
            own_failed = not marks.isdisjoint(failed)
        first = placement.sides(pool, own, own_failed, second is not None, second_failed)[0]
        if first == "fallback" and second is not None:
            return second, ""
        if own is placement.No.FULL:
            raise Problem(429, own.value, f"every node of SFU pool {pool.name!r} is full", retry_after=10)
        if route.own is None or not isinstance(own, placement.Choice):
            raise Problem(
                503, placement.No.NONE.value, f"no node of SFU pool {pool.name!r} takes rooms now", retry_after=5
            )
        return route.own, own.node_id

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

    async def _make_room(self, caller: Caller, sfu: Sfu, session: Session, node_id: str) -> None:
        """CreateRoom. Raises SfuUnavailable when nobody said that the room is there."""
        project, now = caller.project, time.monotonic()
        room = NewRoom(
            session.session_id,
            node_id,
            project.maxParticipants,
            agent_name(project.namespace, project.name),
            session.epoch,
        )
        try:
            await sfu.rooms.create(room, self._limits.room_timeout_sec if sfu.mode == "selfhosted" else None)
        except SfuUnavailable as error:
            mark = _mark(sfu, node_id)
            self._recent.fail(mark, time.monotonic())
            self._metrics.room_failures.labels(sfu.pool.namespace, sfu.pool.name).inc()
            log.warning("CreateRoom on %s failed: %s", mark, error, extra={"session": session.session_id})
            raise
        self._recent.place(_mark(sfu, node_id), now)

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

    def _participant(self, caller: Caller, sfu: Sfu, session: Session, identity: str, name: str) -> Issued:
        token = tokens.participant_token(
            sfu.keys,
            session.session_id,
            identity,
            name,
            self._limits.token_ttl_sec,
            microphone_only=caller.project.microphoneOnly,
        )
        return Issued(sfu.pool.publicURL, token, session.session_id)

    async def _session_of(self, caller: Caller, room: str) -> Session:
        """The open session of that id in the caller's Project; another Project's is as good as none."""
        gone = Problem(404, "SessionNotFound", "no such session")
        try:
            session = await self._ledger.session(room)
        except NotFound as error:
            raise gone from error
        except LedgerError as error:
            raise refusals.of_session(error) from error
        if (session.namespace, session.project) != (caller.project.namespace, caller.project.name):
            raise gone
        if session.state != "open":
            raise Problem(404, "SessionClosed", "the session has ended")
        return session

    def _free_seat(self, session: Session, present: set[str], now: float) -> str:
        """A random free identity, not one handed out moments ago: its holder may be about to join."""
        self._slots = {slot: at for slot, at in self._slots.items() if now - at < SLOT_MEMORY_SEC}
        free = [identity for identity in session.observers if identity not in present]
        fresh = [identity for identity in free if (session.session_id, identity) not in self._slots]
        if not free:
            raise Problem(429, "ObserverSeatsTaken", "all observer seats of this session are taken", retry_after=10)
        identity = self._random.choice(fresh or free)
        self._slots[session.session_id, identity] = now
        return identity


def _previous_identity(known: list[Sfu], previous: str, room: str) -> str:
    """Who asked before; the token may be of the LiveKit the session has left. Raises Problem 401."""
    for sfu in known:
        with contextlib.suppress(tokens.PreviousTokenInvalid):
            return tokens.previous_identity(sfu.keys, previous, room)
    raise Problem(401, "PreviousTokenInvalid", "the previous token is not one of this room")


def _differs(place: tuple[Sfu, str], sfu: Sfu | None, node_id: str, *, answers: bool) -> bool:
    """Whether a place is another than where the room was; where the LiveKit does not answer, no node of it is."""
    if sfu is None or not _same(place[0], sfu):
        return True
    return answers and place[1] != node_id


def _same(one: Sfu, other: Sfu) -> bool:
    return (one.pool.namespace, one.pool.name) == (other.pool.namespace, other.pool.name)


def _mark(sfu: Sfu, node_id: str) -> str:
    """A node as it is remembered, or a whole LiveKit that chooses its nodes itself."""
    return node_id or f"{sfu.pool.namespace}/{sfu.pool.name}"
