"""Closing in our own order: the room's end must not cost the last, dearest response its usage.

interrupt -> (goodbye) -> leave -> wait until nothing is open at the provider -> close its socket -> settle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from talktime_ledger.client import Fenced, LedgerError, SessionClosed
from talktime_ledger.wire import Close

from talktime_agent.ports import LedgerPort
from talktime_agent.till import Till

logger = logging.getLogger("talktime.agent.close")

QUIET_SECONDS = 10.0

# Reasons to end with spoken words; the others have nobody to speak to, or no right to.
SPOKEN = frozenset({"budget", "ledger_outage", "provider_error", "agent_died"})
# Another agent has the session: its room is not ours to delete.
NOT_OURS = frozenset({"fenced"})


def may_speak(reason: str, valid: bool) -> bool:
    """Whether the goodbye is said, where somebody is there to hear it."""
    return valid and reason in SPOKEN


def may_delete_room(reason: str, valid: bool) -> bool:
    """Whether the room is surely ours: beyond our validity another agent may be talking in it."""
    return valid and reason not in NOT_OURS


class Quiet:
    """Waits until nothing is open at the provider. ``changed`` is called after every fact."""

    def __init__(self, is_quiet: Callable[[], bool]) -> None:
        self._is_quiet = is_quiet
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Something may have ended."""
        self._changed.set()

    async def __call__(self, most_seconds: float) -> bool:
        """Whether it is quiet, at the latest after so many seconds."""
        try:
            async with asyncio.timeout(most_seconds):
                while not self._is_quiet():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return self._is_quiet()
        return True


def final_close(till: Till, reason: str) -> Close:
    """The ledger's last word of this session: what is still open is posted at its bound, marked unmetered."""
    usages, unmetered, events = till.rest()
    return Close(
        epoch=till.epoch,
        n=till.n + 1,
        usages=usages,
        reason=reason,
        turns=till.turns,
        duration_sec=round(till.elapsed_sec, 3),
        unmetered=unmetered,
        events=events,
    )


async def settle(ledger: LedgerPort, session_id: str, till: Till, reason: str) -> bool:
    """Closes the session in the ledger. False when it could not be reached: the spool must be replayed."""
    try:
        await ledger.close(session_id, final_close(till, reason))
    except (Fenced, SessionClosed):
        # Usage sent along is counted in both cases.
        return True
    except LedgerError as error:
        logger.warning("the ledger cannot be reached, leaving the spool", extra={"why": str(error)})
        return False
    return True
