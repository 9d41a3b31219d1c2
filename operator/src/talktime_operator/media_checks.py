"""ICE checks over UDP: one every 0.1 s, answers counted. What a look at a node's media path stands on."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from talktime_operator import stun

AGAIN = 0.1
"""Seconds between two checks: one lost datagram is no finding."""


@dataclass(frozen=True)
class Offered:
    """What a server offered after a join: its ICE credentials and UDP addresses."""

    ufrag: str
    password: str = field(repr=False)
    udp: tuple[tuple[str, int], ...]
    lite: bool = False
    """It only answers (RFC 8445 section 2.5); else the offering side controls."""

    @classmethod
    def parse(cls, sdp: str) -> Offered | None:
        """None when it holds no ICE credentials."""
        found = [re.search(rf"^a=ice-{name}:(\S+)\s*$", sdp, re.MULTILINE) for name in ("ufrag", "pwd")]
        if not all(found):
            return None
        ufrag, password = (match[1] for match in found if match)
        udp = re.findall(r"^a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ", sdp, re.MULTILINE | re.IGNORECASE)
        return cls(ufrag, password, tuple(dict.fromkeys((host, int(port)) for host, port in udp)), "a=ice-lite" in sdp)


class Checks:
    """Checks with one server over open sockets."""

    def __init__(self, offered: Offered, own: str, clock: Callable[[], float]) -> None:
        self._offered = offered
        self._own = own
        self._clock = clock
        self._sent: set[bytes] = set()
        self._heard = asyncio.Event()
        self.transports: list[asyncio.DatagramTransport] = []

    async def watch(self, within: float, hold: float) -> float | None:
        """Seconds until the first answer, after checks for `hold` seconds that were answered; None when none was for
        `within` seconds, at first or later.

        Unanswered checks are counted, not seconds: a process that was held up has not asked meanwhile.
        """
        started, first, unanswered, most = self._clock(), None, 0, round(within / AGAIN)
        while unanswered < most and (first is None or unanswered or self._clock() - started < hold):
            asked = self._clock()
            if await self.ask():
                first, unanswered = self._clock() - started if first is None else first, 0
                await asyncio.sleep(AGAIN - (self._clock() - asked))
            else:
                unanswered += 1
        return first if unanswered < most else None

    async def ask(self) -> bool:
        """One check; whether any that was sent so far is answered within 0.1 s."""
        transaction = os.urandom(12)
        self._sent.add(transaction)
        self._heard.clear()
        role = stun.CONTROLLING if self._offered.lite else stun.CONTROLLED
        name = f"{self._offered.ufrag}:{self._own}"
        for transport in self.transports:
            transport.sendto(stun.binding(transaction, name, self._offered.password, role))
        with suppress(TimeoutError):
            async with asyncio.timeout(AGAIN):
                await self._heard.wait()
        # Asked after the wait: an answer that lay there while this process was held up counts.
        return self._heard.is_set()

    async def late(self) -> bool:
        """After `watch` had no answer: whether one has come since, or comes to one more check."""
        return self._heard.is_set() or await self.ask()

    def take(self, data: bytes) -> None:
        """A datagram that came back."""
        if any(stun.answers(data, transaction, self._offered.password) for transaction in self._sent):
            self._heard.set()


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._take(data)


@asynccontextmanager
async def checking(
    offered: Offered, own: str, media: tuple[str, int], clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Checks]:
    """`own`: the ICE user name of this side; `media`: an address to try beside those that were offered. Addresses that
    cannot be sent to are passed over; OSError when none is left."""
    checks, loop = Checks(offered, own, clock), asyncio.get_running_loop()
    try:
        for address in dict.fromkeys((media, *offered.udp)):
            with suppress(OSError, ValueError, OverflowError):
                transport, _ = await loop.create_datagram_endpoint(lambda: _Answers(checks.take), remote_addr=address)
                checks.transports.append(transport)
        if not checks.transports:
            raise OSError(f"no socket to {media} nor to what was offered")
        yield checks
    finally:
        for transport in checks.transports:
            transport.close()
