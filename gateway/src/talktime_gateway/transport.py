"""What this replica has seen of the connections in rooms, as LiveKit bills them: each one, agents and observers too.

Each connection has its own key ``identity/sid``. Its seconds are those since the SFU saw it join, so they only grow and
any replica computes the same; the ledger keeps the longest. A connection that was there, and at the next look is not,
ended somewhere between: the ledger is told both ends and posts what lies between as unmetered, until a webhook tells
the exact leave. A replica that starts is told by the ledger whom nobody has seen leave, so that no restart, not even
one of all replicas, forgets anybody.

Video tracks begin and end between two looks, so between them as many count as the fuller look saw; before the first
one, as many as it saw. Pure but for what it remembers; time is passed in, unix seconds.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from talktime_ledger.wire import OpenConnection, Transport

from .rooms import Present

Pool = tuple[str, str]
"""Namespace and name of an SFU pool."""
Mode = Literal["selfhosted", "cloud"]
PER_REPORT = 100
"""Connections in one report, as the ledger takes them."""


@dataclass
class Sighting:
    """One connection: when the SFU saw it join, when it was last seen, when it was first known to be gone.

    ``video``: seconds of its video tracks until ``video_until``; ``videos`` were there at the last look.
    """

    joined_at: float
    seen_at: float
    gone_at: float | None = None
    video: float = 0.0
    video_until: float = 0.0
    videos: int = 0

    @property
    def seen_sec(self) -> int:
        """It lasted at least so long."""
        return max(0, int(self.seen_at - self.joined_at))

    @property
    def gone_sec(self) -> int:
        """It lasted at most so long (once it is gone)."""
        return max(0, ceil((self.gone_at or self.seen_at) - self.joined_at))

    @property
    def video_sec(self) -> int:
        """Whole seconds of its video tracks, a begun one in full (a microsecond is the clock's own error)."""
        return ceil(round(self.video, 6))

    def watched(self, videos: int, at: float) -> None:
        """So many video tracks were there at this time; 0 also when it was gone."""
        since = max(self.joined_at, self.video_until)
        if at > since:
            self.video += max(self.videos, videos) * (at - since)
            self.video_until = at
        self.videos = videos

    def ended(self, at: float) -> None:
        """It was gone at this time."""
        self.gone_at = at
        self.watched(0, at)


@dataclass
class Room:
    """A room somebody was seen in."""

    pool: Pool
    mode: Mode
    connections: dict[str, Sighting] = field(default_factory=dict)


class Sightings:
    """The connections this replica remembers, by room, until their end has been told."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}

    def looked(
        self, room: str, pool: Pool, mode: Mode, present: Iterable[Present], before: float, after: float
    ) -> None:
        """One look at who is in a room, begun at ``before`` and answered at ``after``: who is there was there at the
        first, who is not was gone at the second.
        """
        there = {key_of(p.identity, p.sid): p for p in present if p.joined_at}
        for key, one in there.items():
            self.joined(room, pool, mode, key, one.joined_at, before).watched(one.videos, before)
        known = self._rooms.get(room)
        for key, sighting in known.connections.items() if known else ():
            if key not in there and sighting.gone_at is None:
                sighting.ended(after)

    def remembered(self, room: str, pool: Pool, mode: Mode, connections: Iterable[OpenConnection]) -> None:
        """What the ledger knows of connections whose end nobody told; what this replica saw itself is newer.

        Who sent video goes on to do so, as far as nobody has looked: as many tracks as it had on average, rounded up.
        """
        known = self._rooms.setdefault(room, Room(pool, mode))
        for one in connections:
            joined_at = one.joined_at_ms / 1000
            seen_at = joined_at + one.seen_sec
            videos = ceil(one.video_sec / max(1, one.seen_sec))
            known.connections.setdefault(
                one.key, Sighting(joined_at, seen_at, video=one.video_sec, video_until=seen_at, videos=videos)
            )
        self._forget_if_empty(room)

    def joined(self, room: str, pool: Pool, mode: Mode, key: str, joined_at: float, at: float) -> Sighting:
        """A connection was there."""
        known = self._rooms.setdefault(room, Room(pool, mode))
        known.pool, known.mode = pool, mode
        sighting = known.connections.setdefault(key, Sighting(joined_at, at))
        sighting.seen_at, sighting.gone_at = max(sighting.seen_at, at), None
        return sighting

    def video_of(self, room: str, key: str, at: float) -> dict[str, int]:
        """The video of a connection that left at this time, for the report of its leave; empty: none."""
        known = self._rooms.get(room)
        sighting = known.connections.get(key) if known is not None else None
        if sighting is None:
            return {}
        sighting.watched(0, at)
        return {key: sighting.video_sec} if sighting.video_sec else {}

    def left(self, room: str, key: str) -> None:
        """Its exact end has been told: nothing more to say about it."""
        known = self._rooms.get(room)
        if known is not None:
            known.connections.pop(key, None)
            self._forget_if_empty(room)

    def finished(self, room: str, at: float) -> None:
        """The room was over at this time: nobody in it lasted longer. An older word than a sighting is none."""
        known = self._rooms.get(room)
        for sighting in known.connections.values() if known else ():
            if sighting.gone_at is None and at >= sighting.seen_at:
                sighting.ended(at)

    def report(self, room: str, *, only_news: bool = False) -> Transport | None:
        """What the ledger is to be told; None: nothing. ``only_news``: only if somebody is gone."""
        known = self._rooms.get(room)
        if known is None:
            return None
        # who is gone first: what does not fit into this report comes with the next
        some = sorted(known.connections.items(), key=lambda item: item[1].gone_at is None)[:PER_REPORT]
        gone = {key: s.gone_sec for key, s in some if s.gone_at is not None}
        if only_news and not gone:
            return None
        seen = {key: s.seen_sec for key, s in some}
        video = {key: s.video_sec for key, s in some if s.video_sec}
        joined = {key: round(s.joined_at * 1000) for key, s in some}
        return Transport(
            participant_seconds=seen, gone_seconds=gone, video_seconds=video, joined_at_ms=joined, mode=known.mode
        )

    def told(self, room: str, report: Transport) -> None:
        """The ledger has it: who is gone is forgotten."""
        known = self._rooms.get(room)
        if known is None:
            return
        for key in report.gone_seconds:
            if key in known.connections and known.connections[key].gone_at is not None:
                del known.connections[key]
        self._forget_if_empty(room)

    def forget(self, room: str) -> None:
        """Not ours to count."""
        self._rooms.pop(room, None)

    def only(self, pools: Container[Pool]) -> None:
        """Forgets rooms of pools that are no more: nobody can look into them."""
        self._rooms = {name: room for name, room in self._rooms.items() if room.pool in pools}

    def on(self, pool: Pool) -> dict[str, Mode]:
        """Rooms of a pool that somebody was seen in, and their medium."""
        return {name: room.mode for name, room in self._rooms.items() if room.pool == pool}

    def _forget_if_empty(self, room: str) -> None:
        if not self._rooms[room].connections:
            del self._rooms[room]


def key_of(identity: str, sid: str) -> str:
    """How a connection is called in a report."""
    return f"{identity}/{sid}"
