"""The end as the participant meets it: silence, goodbye, the observers' last figure, the room's end. One bound for all.

Each step has a moment by which it is over, counted from the decision to end, so that one that hangs takes nothing from
the end of the room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from livekit import api

logger = logging.getLogger("talktime.agent.leaving")

# Seconds from the decision. Behind the slowest silence there is time for a whole clip (5 s and its queueing).
SILENT_BY = 1.5
SAID_BY = 7.5
TOLD_BY = 8.0
GONE_BY = 10.0

END_ATTEMPTS = 2
END_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Parting:
    """What there is to do; a step knows when there is nothing. ``goodbye`` is given the moment by which it must be
    over: it has words to stop then.
    """

    silence: Callable[[], Awaitable[object]]
    goodbye: Callable[[float], Awaitable[object]]
    tell_observers: Callable[[], Awaitable[object]]
    left: Callable[[], object]
    end_room: Callable[[], Awaitable[object]]


async def leave(parting: Parting) -> None:
    """Does it in this order, within GONE_BY of being called."""
    decided = asyncio.get_running_loop().time()
    await _step("silence", decided + SILENT_BY, parting.silence)
    await _step("goodbye", decided + TOLD_BY, partial(parting.goodbye, decided + SAID_BY))
    await _step("last cost", decided + TOLD_BY, parting.tell_observers)
    parting.left()
    await _end(parting.end_room, decided + GONE_BY)


async def _step(name: str, by: float, step: Callable[[], Awaitable[object]]) -> None:
    """Whatever a step has to say, the next one is due: somebody waits in that room."""
    try:
        if not await _by(by, step):
            logger.warning("a step of leaving was cut short", extra={"step": name})
    except Exception:
        logger.warning("a step of leaving failed", extra={"step": name}, exc_info=True)


async def _by(moment: float, step: Callable[[], Awaitable[object]]) -> bool:
    """Whether the step was done by then."""
    try:
        async with asyncio.timeout_at(moment):
            await step()
    except TimeoutError:
        return False
    return True


async def _end(end_room: Callable[[], Awaitable[object]], until: float) -> None:
    """A room that stays is a participant who waits: what fails is tried again, each attempt with its share of time."""
    loop = asyncio.get_running_loop()
    for left in range(END_ATTEMPTS, 0, -1):
        why = "no answer"
        try:
            if await _by(loop.time() + (until - loop.time()) / left, end_room):
                return
        except api.TwirpError as error:
            if error.code == api.TwirpErrorCode.NOT_FOUND:
                return
            why = str(error)
        except Exception as error:  # whatever the HTTP client says: the money is settled next
            why = str(error)
        logger.warning("the room has not ended", extra={"why": why, "attempts_left": left - 1})
        if left > 1:
            await asyncio.sleep(END_PAUSE_SECONDS)
