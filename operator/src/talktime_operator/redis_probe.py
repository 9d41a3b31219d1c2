"""One question to a Redis, asked as the nodes ask it: over TLS with the same CA, with the same password."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

from talktime_operator.pools.health import Answer


@dataclass(frozen=True)
class RedisAt:
    """host:port of a Redis. `ca`: PEM, empty: public CAs. `password`: empty = it wants none; None = it is not known, so
    that its refusal without one is as good as an answer: somebody is there."""

    address: str
    tls: bool = False
    ca: str = ""
    password: str | None = field(default=None, repr=False)


async def ping(at: RedisAt) -> Answer:
    """AUTH if there is a password, and PING. Raises OSError when there is no connection, TimeoutError never."""
    host, _, port = at.address.rpartition(":")
    try:
        context = ssl.create_default_context(cadata=at.ca or None) if at.tls else None
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    except ssl.SSLCertVerificationError:
        return Answer.UNTRUSTED
    except ssl.SSLError:
        return Answer.UNTRUSTED if at.ca else Answer.WRONG
    try:
        if at.password:
            word = at.password.encode()
            # Lengths are told, so that a password may hold any byte (RESP, arrays of bulk strings).
            writer.write(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(word), word))
            await writer.drain()
            if not (await reader.readline()).startswith(b"+OK"):
                return Answer.DENIED
        writer.write(b"PING\r\n")
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
    if line.startswith(b"-NOAUTH"):
        return Answer.GOOD if at.password is None else Answer.DENIED
    return Answer.GOOD if line.startswith((b"+PONG", b"-NOPERM")) else Answer.WRONG
