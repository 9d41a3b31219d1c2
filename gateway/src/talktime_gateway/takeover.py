"""Takes a room away from a node of the same LiveKit that is lost or being emptied.

A pool's nodes share one Redis, which names a room and its node for a day after the node died. LiveKit leaves the room
there until the node has been silent for 5 s: until then CreateRoom and joins alike are sent to the dead one and hang.
"""

from __future__ import annotations

import asyncio
import time

from .rooms import Rooms, SfuUnavailable

TRY_SEC = 1.5
"""One CreateRoom: an idle node answers within milliseconds, a dead one never."""

PATIENCE_SEC = 7.0
"""5 s of the node's silence, and one try that was under way when they were over."""

PAUSE_SEC = 0.25


async def take_over(rooms: Rooms, room: str, node_id: str) -> None:
    """Returns when a node that lives holds the room: ``node_id`` if its own was dead. Raises SfuUnavailable.

    A node that still answers keeps it, so the room has to be deleted before it can be made elsewhere; so has a dead
    one's, because Redis would show for ever who was in it.
    """
    until = time.monotonic() + PATIENCE_SEC
    while True:
        try:
            async with asyncio.timeout(TRY_SEC):
                return await rooms.adopt(room, node_id)
        except (SfuUnavailable, TimeoutError) as error:
            if time.monotonic() >= until:
                raise SfuUnavailable(f"no node takes over {room}: {error}") from error
        await asyncio.sleep(PAUSE_SEC)
