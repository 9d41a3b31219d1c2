"""Replays the spools of dead job processes into the ledger, so that a crash loses no usage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from talktime_ledger.client import Fenced, LedgerError, NotFound, SessionClosed
from talktime_ledger.wire import Close
from talktime_ledger.wire.resume import Lost

from talktime_agent.ports import LedgerPort
from talktime_agent.spool import Leftover, orphans

logger = logging.getLogger("talktime.agent.recovery")

# Somebody is waiting in silence; a look is one listing and a lock per live session.
SCAN_SECONDS = 0.5


def closing_of(left: Leftover, reason: str) -> Close:
    """The last word of a session that ended in order while the ledger was away."""
    return Close(
        epoch=left.epoch,
        n=left.n + 1,
        usages=left.usages,
        reason=reason,
        turns=left.turns,
        duration_sec=max(0.0, left.last_at - left.opened_at),
        unmetered=left.unmetered(),
        events=left.events,
    )


def loss_of(left: Leftover) -> Lost:
    """The last word of an agent whose process died: its usage, and what was open at its bound. The session goes on."""
    return Lost(
        epoch=left.epoch,
        n=left.n + 1,
        usages=left.usages,
        reason="agent_died",
        turns=left.turns,
        unmetered=left.unmetered(),
        events=left.events,
    )


class Recovery:
    """In the worker main: looks for spools whose process is gone."""

    def __init__(
        self,
        ledger: LedgerPort,
        directory: Path,
        *,
        delete_room: Callable[[str], Awaitable[None]],
        replayed: Callable[[], None],
    ) -> None:
        """``delete_room`` ends the room of a session that has lost its agent: nobody is left waiting in silence."""
        self._ledger = ledger
        self._directory = directory
        self._delete_room = delete_room
        self._replayed = replayed

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(SCAN_SECONDS)

    async def once(self) -> None:
        """One look. A spool the ledger did not take stays for the next one."""
        for orphan in orphans(self._directory):
            left = orphan.leftover
            if left is None:
                orphan.done()
                continue
            extra = {"session": left.session, "usages": len(left.usages), "open": len(left.holds)}
            try:
                if left.reason is None:
                    # The room stays: the gateway's watcher sends the next agent there.
                    await self._ledger.lose(left.session, loss_of(left))
                else:
                    await self._ledger.close(left.session, closing_of(left, left.reason))
            except Fenced:
                # Another agent carries on; what was sent along is counted, and the room is that agent's.
                orphan.done()
                continue
            except (SessionClosed, NotFound) as error:
                logger.info("nothing to replay", extra={**extra, "why": str(error)})
                orphan.done()
            except LedgerError as error:
                logger.warning("replay later", extra={**extra, "why": str(error)})
                orphan.keep()
                continue
            else:
                logger.info("replayed the spool of a dead job", extra=extra)
                orphan.done()
                self._replayed()
                if left.reason is None:
                    continue
            await self._delete_room(left.session)
