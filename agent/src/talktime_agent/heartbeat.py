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


async def beat(tell: Callable[[], Awaitable[None]], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Until cancelled. One that is not heard is followed by the next one sooner; the first of a row is logged."""
    silent = False
    while True:
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await tell()
            silent, pause = False, BEAT_SECONDS
        except (LedgerError, TimeoutError) as error:
            if not silent:
                logger.warning("the heartbeat is not heard", extra={"why": str(error)})
            silent, pause = True, AGAIN_SECONDS
        await sleep(pause)
