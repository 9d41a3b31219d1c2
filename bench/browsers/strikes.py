"""What befalls the first server under an interview: each strike is a context that lasts while it is open."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from bench.meters.room import Rooms

TABLE = "talktime_bench_browser"
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

    rules = f"type filter hook input priority 0; policy accept; iif lo udp dport {rooms.udp} drop"
    nft(f"table inet {TABLE} {{ chain broken {{ {rules} }} }}")
    looking = asyncio.ensure_future(looked())
    try:
        yield
        await looking
    finally:
        looking.cancel()
        nft(f"delete table inet {TABLE}")


def nft(text: str) -> None:
    """RuntimeError with nft's words when it does not take that."""
    done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nft: {done.stderr.strip()}")


STRIKES: dict[str, Strike] = {"killed": killed, "frozen": frozen, "udp": udp}
