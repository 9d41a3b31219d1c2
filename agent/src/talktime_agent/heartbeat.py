"""The pod's heartbeat: what the ledger does not hear from for 7 s is lost, its sessions go on in another pod."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from talktime_ledger.client import LedgerError

logger = logging.getLogger("talktime.agent.heartbeat")

BEAT_SECONDS = 2.0
# One that is not heard is followed soon: with these a living pod is never silent for as long as the ledger waits.
ATTEMPT_SECONDS = 1.5
AGAIN_SECONDS = 0.5
# Two attempts in vain; before the ledger calls the pod lost and the gateway looks for another one.
CUT_OFF_SECONDS = 3.0


class Heartbeat:
    """Of one pod. ``tell`` is one beat; times in monotonic seconds."""

    def __init__(
        self,
        tell: Callable[[], Awaitable[None]],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._tell = tell
        self._monotonic = monotonic
        self._sleep = sleep
        self._unheard_since: float | None = None

    @property
    def cut_off(self) -> bool:
        """Whether beats have been in vain for so long that a session begun here could not be paid for."""
        return self._unheard_since is not None and self._monotonic() - self._unheard_since >= CUT_OFF_SECONDS

    async def run(self) -> None:
        """Until cancelled. One that is not heard is followed by the next one sooner; the first of a row is logged."""
        while True:
            began = self._monotonic()
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    await self._tell()
            except (LedgerError, TimeoutError) as error:
                if self._unheard_since is None:
                    logger.warning("the heartbeat is not heard", extra={"why": str(error)})
                    self._unheard_since = began
                pause = AGAIN_SECONDS
            else:
                self._unheard_since = None
                pause = BEAT_SECONDS
            await self._sleep(pause)
