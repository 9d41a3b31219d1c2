"""Signed webhooks of LiveKit: who joined and who left, to the second. A refinement of polling, never needed for it.

LiveKit signs the SHA-256 of the body with the pool's key (a JWT of five minutes in ``Authorization``, without
"Bearer"), delivers at most a few times, in order per room, and drops what it cannot deliver (protocol/webhook,
livekit-server 1.13.5). So: whatever comes again says the same again, whatever does not come is bounded by polling.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import ceil

from livekit.api import TokenVerifier, WebhookEvent, WebhookReceiver
from talktime_ledger.client import LedgerClient, LedgerError, NotFound
from talktime_ledger.wire import Transport

from .credentials import is_session_id
from .directory import FALLBACK, Cache
from .media import Media
from .problems import Problem
from .tokens import SfuKeys
from .transport import Sightings, key_of

SKEW_SEC = 60.0
"""An event from further in the future than this is not believed."""


class Outcome(StrEnum):
    """What came of an event."""

    JOINED = "joined"
    LEFT = "left"
    FINISHED = "finished"
    NOT_OURS = "not_ours"
    IGNORED = "ignored"


JOINED = frozenset({"participant_joined"})
LEFT = frozenset({"participant_left", "participant_connection_aborted"})
FINISHED = frozenset({"room_finished"})


@dataclass(frozen=True)
class Word:
    """What an event says of a room. ``at`` and ``joined_at`` are unix seconds by the SFU's clock; ``key`` and
    ``joined_at`` are empty for the room itself.
    """

    outcome: Outcome
    room: str
    at: float
    key: str = ""
    joined_at: float = 0.0

    @property
    def lasted(self) -> int:
        """Seconds of the connection; ``at`` is told in whole seconds, so it is exact to one."""
        return max(0, ceil(self.at - self.joined_at))


def verified(keys: SfuKeys, body: bytes, authorization: str | None) -> WebhookEvent:
    """The event, if it was signed with these keys, not long ago, over exactly this body. Raises Problem 401."""
    token = (authorization or "").removeprefix("Bearer ")
    receiver = WebhookReceiver(TokenVerifier(*keys.signer(token)))
    try:
        return receiver.receive(body.decode(), token)
    except Exception as error:  # the library raises bare Exceptions, PyJWT's, protobuf's, binascii's and Unicode's
        raise refused() from error


def refused() -> Problem:
    """One answer for an unknown pool and a bad signature."""
    return Problem(401, "WebhookRefused", "not signed with the keys of this pool")


def word_of(event: WebhookEvent, now: float) -> Word | None:
    """What it means for transport; None: nothing (another event, another's room, times that cannot be)."""
    room, at = event.room.name, float(event.created_at)
    if not is_session_id(room) or not 0 < at <= now + SKEW_SEC:
        return None
    if event.event in FINISHED:
        # told in whole seconds, rounded down: the room was over by the next one
        return Word(Outcome.FINISHED, room, at + 1)
    someone = event.participant
    joined_at = someone.joined_at_ms / 1000 if someone.joined_at_ms else float(someone.joined_at)
    if not someone.sid or not 0 < joined_at < at + 1:
        return None
    for events, outcome in ((JOINED, Outcome.JOINED), (LEFT, Outcome.LEFT)):
        if event.event in events:
            return Word(outcome, room, at, key_of(someone.identity, someone.sid), joined_at)
    return None


class Webhooks:
    """Takes events of pools and tells the ledger."""

    def __init__(self, ledger: LedgerClient, media: Media, cache: Cache, sightings: Sightings) -> None:
        self._ledger = ledger
        self._media = media
        self._cache = cache
        self._sightings = sightings

    async def take(
        self, namespace: str, pool: str, body: bytes, authorization: str | None, now: float
    ) -> tuple[Outcome, str]:
        """One event, and the session it was about. Raises Problem 401 (signature), 403 (a session of another pool),
        503 (the ledger cannot be asked: LiveKit sends it again).
        """
        view = self._cache.view
        if view is None:
            raise Problem(503, "DirectoryMissing", "the gateway has not heard from the ledger yet", retry_after=2)
        known = view.pools.get((namespace, pool))
        sfu = self._media.on(known) if known is not None else None
        if sfu is None:
            raise refused()
        word = word_of(verified(sfu.keys, body, authorization), now)
        if word is None:
            return Outcome.IGNORED, ""
        try:
            session = await self._ledger.session(word.room)
            if session.media.pool not in ("", pool.removesuffix(FALLBACK)):
                raise Problem(403, "ForeignRoom", "that room is not on this pool")
            if word.outcome is Outcome.LEFT:
                video = self._sightings.video_of(word.room, word.key, word.at)
                left = Transport(left_seconds={word.key: word.lasted}, video_seconds=video, mode=sfu.mode)
                await self._ledger.post_transport(word.room, left)
        except NotFound:
            return Outcome.NOT_OURS, ""
        except LedgerError as error:
            raise Problem(503, "LedgerUnreachable", "the ledger cannot be asked now", retry_after=5) from error
        if word.outcome is Outcome.JOINED:
            self._sightings.joined(word.room, (namespace, pool), sfu.mode, word.key, word.joined_at, word.at)
        elif word.outcome is Outcome.LEFT:
            self._sightings.left(word.room, word.key)
        else:
            self._sightings.finished(word.room, word.at)
        return word.outcome, word.room
