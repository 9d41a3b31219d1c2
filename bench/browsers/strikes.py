"""What befalls the first server under an interview: each strike is a context that lasts while it is open."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from bench.meters.room import Rooms
from hack.chaos import faults

FOUND_SECONDS = 3.5
"""What an operator that looks at the media path takes at the most to know that no UDP comes through
(bench-failover: 2.5 to 3.5 s). None runs here: its word is given after that."""

Found = Callable[[], Awaitable[None]]
Strike = Callable[[Rooms, Found], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def killed(rooms: Rooms, _: Found) -> AsyncIterator[None]:
    """kill -9."""
    rooms.process.send_signal(signal.SIGKILL)
    yield


@asynccontextmanager
async def frozen(rooms: Rooms, _: Found) -> AsyncIterator[None]:
    """SIGSTOP: connections stay open, nothing answers."""
    rooms.process.send_signal(signal.SIGSTOP)
    yield


@asynccontextmanager
async def udp(rooms: Rooms, found: Found) -> AsyncIterator[None]:
    """Its media port takes nothing, its HTTP and WebSocket go on; `found` is what the operator does about that."""

    async def looked() -> None:
        await asyncio.sleep(FOUND_SECONDS)
        await found()

    rules = f"type filter hook input priority 0; policy accept;\niif lo udp dport {rooms.udp} drop"
    with faults.table(["nft"], rules):
        looking = asyncio.ensure_future(looked())
        try:
            yield
            await looking
        finally:
            looking.cancel()


STRIKES: dict[str, Strike] = {"killed": killed, "frozen": frozen, "udp": udp}
