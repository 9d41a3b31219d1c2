"""What to do about an open session whose room nobody uses, or that no agent serves. Pure.

Every rule needs good data: a room list or participant list that could not be read decides nothing (law 6), and a
session an agent has attached to is the agent's to close (law 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from talktime_ledger.wire.resume import MOST_LOSSES

from .rooms import Dispatch, Present

STUCK_DISPATCH_SEC = 30.0
"""A dispatch with a job, but no agent in the ledger after this long, is taken to be lost with its worker."""


class Act(StrEnum):
    """What the watcher does."""

    NOTHING = "nothing"
    CLOSE_GONE = "room_vanished"
    CLOSE_NO_SHOW = "nobody_joined"
    CLOSE_LOST = "agent_died"
    DELETE_ROOM = "participant_left"
    REDISPATCH = "redispatch"


@dataclass(frozen=True)
class Seen:
    """One open session as seen now. Ages are seconds; ``alone_sec``: how long this replica has seen nobody there.

    ``attached``: an agent has it; ``lost``: it had one.
    """

    age_sec: float
    attached: bool
    room_exists: bool
    present: tuple[Present, ...]
    alone_sec: float
    lost: bool = False


def participants(present: Sequence[Present]) -> list[Present]:
    """Those who came to talk: no agents, no observers."""
    return [p for p in present if not p.agent and p.identity.startswith("participant-")]


def decide(seen: Seen, join_timeout: float) -> Act:
    """Close what was never used, end what was left; REDISPATCH means "look at its dispatches"."""
    if seen.lost and not participants(seen.present):
        # Its participant may be on the way back, or to another place: the session is kept for them a while.
        return Act.CLOSE_LOST if seen.alone_sec > join_timeout else Act.NOTHING
    if not seen.room_exists:
        return Act.CLOSE_GONE if not seen.attached and seen.age_sec > join_timeout else Act.NOTHING
    if participants(seen.present):
        # LiveKit shows a lost agent for another 20 s: an agent in the room says nothing of a next one.
        waiting = not seen.attached and (seen.lost or not any(p.agent for p in seen.present))
        return Act.REDISPATCH if waiting else Act.NOTHING
    if seen.attached:
        # LiveKit closes a room its participants left by itself, unless an observer stays in it
        return Act.DELETE_ROOM if seen.alone_sec > 2 * join_timeout else Act.NOTHING
    return Act.CLOSE_NO_SHOW if min(seen.age_sec, seen.alone_sec) > join_timeout else Act.NOTHING


def needs_dispatch(dispatches: Sequence[Dispatch], now: float, after_sec: float) -> bool:
    """Open-source LiveKit drops a dispatch that found no free worker. ``now`` is unix seconds.

    True when the newest dispatch is older than ``after_sec`` without a job, or STUCK_DISPATCH_SEC old with one.
    """
    if not dispatches:
        return True
    newest = max(d.created_at for d in dispatches)
    patience = STUCK_DISPATCH_SEC if any(d.alive for d in dispatches) else after_sec
    return now - newest > patience


def of_epoch(dispatches: Sequence[Dispatch], metadata: str) -> list[Dispatch]:
    """The dispatches that carry exactly this: those for agents of earlier epochs wake nobody any more."""
    return [dispatch for dispatch in dispatches if dispatch.metadata == metadata]


RETURN_SEC = 20.0
"""A lost session whose participant is not there is kept so long before it is given up."""


class Next(StrEnum):
    """What becomes of a session that lost its agent."""

    WAIT = "wait"
    RESTAFF = "restaffed"
    GOODBYE = "goodbye"
    GIVE_UP = "gave_up"


def next_of(losses: int, silent: bool, present: Sequence[Present], waited_sec: float) -> Next:
    """``losses`` counted so far (a ``silent`` agent's is counted by the claim that follows); ``present``: in its room.

    ``waited_sec``: since this replica saw it lost. An agent that comes after too many losses knows that from the
    session, and ends the interview with its closing words.
    """
    if losses + silent > MOST_LOSSES + 1:
        return Next.GIVE_UP
    if participants(present):
        return Next.GOODBYE if losses + silent > MOST_LOSSES else Next.RESTAFF
    return Next.GIVE_UP if waited_sec > RETURN_SEC else Next.WAIT


class Since:
    """Since when each of some sessions is seen; forgets those that are not seen any more. Monotonic seconds."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def note(self, sessions: Iterable[str], now: float) -> None:
        """These, and only these, are seen now."""
        self._since = {session: self._since.get(session, now) for session in sessions}

    def seconds(self, session: str, now: float) -> float:
        """How long; 0 for one that is not seen."""
        return now - self._since.get(session, now)


class Alone:
    """Since when each open session has been seen without a participant. Forgets sessions no longer open."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def note(self, present: Mapping[str, bool], now: float) -> None:
        """``present``: per open session whether a participant is there. ``now`` is monotonic seconds."""
        self._since = {s: self._since.get(s, now) for s, there in present.items() if not there}

    def seconds(self, session: str, now: float) -> float:
        """How long; 0 when a participant is there or the session was never looked at."""
        return now - self._since.get(session, now)
