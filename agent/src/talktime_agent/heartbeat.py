"""The pod's heartbeat: what the ledger does not hear from for 6 s is lost, its sessions go on in another pod."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from talktime_ledger.client import LedgerError

logger = logging.getLogger("talktime.agent.heartbeat")

BEAT_SECONDS = 2.0


async def beat(tell: Callable[[], Awaitable[None]], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Until cancelled. A beat that is not heard is not repeated: the next one comes soon; it is logged once."""
    silent = False
    while True:
        try:
            async with asyncio.timeout(BEAT_SECONDS):
                await tell()
            silent = False
        except (LedgerError, TimeoutError) as error:
            if not silent:
                logger.warning("the heartbeat is not heard", extra={"why": str(error)})
            silent = True
        await sleep(BEAT_SECONDS)
