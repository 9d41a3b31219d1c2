"""Observers' seats: the fixed identities that may watch a session."""

from __future__ import annotations

import time
from random import Random

from talktime_ledger.client import LedgerClient
from talktime_ledger.wire import Session

from . import tokens
from .admission import Caller
from .directory import View
from .media import Media
from .places import Issued, Limits
from .problems import Problem
from .rooms import SfuUnavailable
from .running import running_session

SLOT_MEMORY_SEC = 20.0
WAIT_SEC = 2


class Seats:
    """Hands them out. Raises Problem."""

    def __init__(self, ledger: LedgerClient, media: Media, limits: Limits, random: Random) -> None:
        self._ledger = ledger
        self._media = media
        self._limits = limits
        self._random = random
        self._slots: dict[tuple[str, str], float] = {}

    async def observe(self, view: View, caller: Caller, room: str | None) -> Issued:
        """A seat for an observer: one of the session's fixed identities that nobody uses now."""
        if room is None:
            detail = "field 'room_name' is needed: the session to observe"
            raise Problem(400, "FieldMissing", detail, extra={"field": "room_name"})
        session = await running_session(self._ledger, caller, room)
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
