"""Places for rooms: the LiveKit and the node of the next one, the room on it, a participant's token for it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from talktime_ledger.resources.project import agent_name
from talktime_ledger.wire import Session

from . import placement, tokens
from .admission import Caller
from .media import Route, Sfu
from .metrics import Metrics
from .problems import Problem
from .rooms import NewRoom, SfuUnavailable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Issued:
    """What a client gets, in the form of LiveKit's token endpoint, and which session it is (for logs). ``moved``: told
    to who asks again, whether the interview goes on elsewhere than it was."""

    server_url: str
    participant_token: str
    session: str
    moved: bool | None = None


@dataclass(frozen=True)
class Limits:
    """Knobs of the settings that matter here."""

    token_ttl_sec: int
    rooms_per_node: int
    room_timeout_sec: float = 2.0


class Places:
    """Chooses and makes; remembers what failed this replica moments ago."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._recent = placement.Recent()

    def failed(self, sfu: Sfu) -> None:
        """A whole LiveKit did not answer: new rooms do not try it first for a while."""
        self._recent.fail(mark(sfu, ""), time.monotonic())

    def next_room(self, route: Route, silent: Sfu | None = None, *, live: bool = False) -> tuple[Sfu, str]:
        """The LiveKit and the node (empty: its own choice) for the next room. Raises Problem 429 or 503.

        ``silent``: one that does not answer now; it comes last like those that failed a moment ago. ``live``: for an
        interview that has begun.
        """
        now, pool = time.monotonic(), route.pool
        failed = self._recent.failed(now) | ({mark(silent, "")} if silent is not None else set())
        second = route.fallback
        second_failed = second is not None and mark(second, "") in failed
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
            marks = {mark(route.own, own.node_id), mark(route.own, "")} if isinstance(own, placement.Choice) else set()
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

    async def make_room(self, caller: Caller, sfu: Sfu, session: Session, node_id: str) -> None:
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
            self._recent.fail(mark(sfu, node_id), time.monotonic())
            self._metrics.room_failures.labels(sfu.pool.namespace, sfu.pool.name).inc()
            log.warning("CreateRoom on %s failed: %s", mark(sfu, node_id), error, extra={"session": session.session_id})
            raise
        self._recent.place(mark(sfu, node_id), now)

    def participant(self, caller: Caller, sfu: Sfu, session: Session, identity: str, name: str) -> Issued:
        token = tokens.participant_token(
            sfu.keys,
            session.session_id,
            identity,
            name,
            self._limits.token_ttl_sec,
            microphone_only=caller.project.microphoneOnly,
        )
        return Issued(sfu.pool.publicURL, token, session.session_id)


def same(one: Sfu, other: Sfu) -> bool:
    """Whether both are one LiveKit."""
    return (one.pool.namespace, one.pool.name) == (other.pool.namespace, other.pool.name)


def mark(sfu: Sfu, node_id: str) -> str:
    """A node as it is remembered, or a whole LiveKit that chooses its nodes itself."""
    return node_id or f"{sfu.pool.namespace}/{sfu.pool.name}"
