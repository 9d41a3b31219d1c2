"""Redis remembers the rooms of a livekit-server that was killed; the next one must be able to forget them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import aiohttp
from talktime_gateway.rooms import NewRoom, Rooms, SfuUnavailable
from talktime_gateway.tokens import SfuKeys

KEYS = SfuKeys("APItest", "secret-of-at-least-thirty-two-characters")


async def deleted(rooms: Rooms, name: str) -> bool:
    """As the census does: again in a while, as long as it does not work."""
    while True:
        with contextlib.suppress(SfuUnavailable):
            return await rooms.delete(name)
        await asyncio.sleep(1)


async def test_a_room_whose_node_was_killed_can_be_deleted(start_node: Callable[..., Any], redis_server: str) -> None:
    killed = start_node(redis_server)
    kept, orphan = str(uuid4()), str(uuid4())
    async with aiohttp.ClientSession() as http:
        before = Rooms(http, killed.url, KEYS)
        await before.create(NewRoom(orphan, killed.node_id(), 1, "tt-team.study"))
        killed.process.kill()
        killed.process.wait()
        after = start_node(redis_server)
        rooms = Rooms(http, after.url, KEYS)
        await rooms.create(NewRoom(kept, after.node_id(), 1, "tt-team.study"))
        assert await rooms.names([orphan, kept]) == {orphan, kept}

        async with asyncio.timeout(60):
            assert await deleted(rooms, orphan)
        assert await rooms.names([orphan, kept]) == {kept}
        assert not await rooms.delete(orphan), "there is none any more"
        assert await rooms.delete(kept)
