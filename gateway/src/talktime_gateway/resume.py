"""Sends the next agent where one was lost: claim the next epoch, remove the old agent, dispatch. Exactly one, always.

Every replica looks twice a second at what the ledger calls lost (a pod reported it, or fell silent). Only the one whose
claim succeeds goes on; if it dies in between, the census dispatches again with an epoch of its own, and an agent that
still comes with an older one is refused at attach.
"""

from __future__ import annotations

import asyncio
import logging

from talktime_ledger.client import Conflict, Fenced, LedgerClient, LedgerError, SessionClosed
from talktime_ledger.resources.project import agent_name
from talktime_ledger.wire import Claim, Close, Session

from .directory import Cache, View
from .media import Media, Sfu
from .metrics import Metrics
from .rooms import Present, SfuUnavailable, dispatch_metadata
from .watch import Act, Next, Since, next_of

log = logging.getLogger(__name__)

AT_ONCE = 16


class Resume:
    """The rounds over sessions without their agent."""

    def __init__(self, ledger: LedgerClient, media: Media, cache: Cache, metrics: Metrics) -> None:
        self._ledger = ledger
        self._media = media
        self._cache = cache
        self._metrics = metrics
        self._since = Since()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def round(self, monotonic: float) -> None:
        """One look. ``monotonic`` is seconds. LedgerError when the ledger cannot be asked: then nothing is decided."""
        view = self._cache.view
        if view is None:
            return
        lost = await self._ledger.lost_sessions()
        self._since.note((session.session_id for session in lost), monotonic)
        results = await asyncio.gather(
            *(self._one(view, session, monotonic) for session in lost), return_exceptions=True
        )
        for session, result in zip(lost, results, strict=True):
            if isinstance(result, (LedgerError, SfuUnavailable)):
                self._metrics.census_failures.labels("session").inc()
                log.warning("not resumed yet: %s", result, extra={"session": session.session_id})
            elif isinstance(result, BaseException):
                raise result

    async def _one(self, view: View, session: Session, monotonic: float) -> None:
        sfu = self._media.of(view, session)
        if sfu is None:
            return
        async with self._at_once:
            present = await sfu.rooms.participants(session.session_id)
            waited = self._since.seconds(session.session_id, monotonic)
            step = next_of(session.losses, not session.lost, present, waited)
            if step is Next.WAIT:
                return
            try:
                claimed = await self._ledger.claim(
                    session.session_id, Claim(epoch=session.epoch + 1, reason="agent_lost")
                )
            except (Conflict, Fenced, SessionClosed):
                return
            if step is Next.GIVE_UP:
                await self._give_up(sfu, claimed)
            else:
                await self._restaff(sfu, claimed, present)
            self._metrics.watcher.labels(step.value).inc()

    async def _restaff(self, sfu: Sfu, session: Session, present: tuple[Present, ...]) -> None:
        room = session.session_id
        for agent in (one for one in present if one.agent):
            # LiveKit shows a killed one for another 20 s; one that is cut off from the ledger may still be talking.
            await sfu.rooms.remove(room, agent.identity)
        for dispatch in await sfu.rooms.dispatches(room):
            await sfu.rooms.undispatch(room, dispatch.id)
        name = agent_name(session.namespace, session.project)
        await sfu.rooms.dispatch(room, name, dispatch_metadata(room, session.epoch))
        log.warning("agent lost, dispatched again, epoch %d", session.epoch, extra={"session": room})

    async def _give_up(self, sfu: Sfu, session: Session) -> None:
        extra = {"session": session.session_id, "project": f"{session.namespace}/{session.project}"}
        try:
            await self._ledger.close(session.session_id, Close(epoch=session.epoch, reason=Act.CLOSE_LOST.value))
        except (Conflict, Fenced, SessionClosed):
            return
        await sfu.rooms.delete(session.session_id)
        log.error("given up: %d agents lost", session.losses, extra=extra)
