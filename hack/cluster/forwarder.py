"""Carries loopback ports of the machine into a network namespace. Run as a program, no third-party imports.

    python3 forwarder.py /run/netns/NAME 127.0.0.1:16443=10.0.0.1:6443 [...]

It listens first and enters the namespace afterwards: sockets stay where they were made, new connections start inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import sys
from pathlib import Path

CLONE_NEWNET = 0x40000000


def enter(namespace: Path) -> None:
    """Raises OSError when the namespace cannot be entered."""
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    finally:
        os.close(descriptor)


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the sender has finished; then the other side learns that it has."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def serve(listener: socket.socket, target: tuple[str, int]) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(*target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))
        for end in (there_writer, writer):
            end.close()

    server = await asyncio.start_server(connected, sock=listener)
    async with server:
        await server.serve_forever()


async def main(namespace: Path, pairs: list[str]) -> None:
    forwards = []
    for pair in pairs:
        here, _, there = pair.partition("=")
        forwards.append((socket.create_server(address(here)), address(there)))
    enter(namespace)
    await asyncio.gather(*(serve(listener, target) for listener, target in forwards))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
