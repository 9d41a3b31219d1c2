"""The outgoing side of one Gemini Live connection: JSON in binary frames, as Google sends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web


class Wire:
    """Sends server messages. Not delivered means: the socket was gone."""

    def __init__(self, socket: web.WebSocketResponse, drop: Callable[[], None]) -> None:
        self._socket = socket
        self._drop = drop
        self._dropped = False

    async def send(self, **message: Any) -> bool:
        """True when the message was written to an open socket; fields that are None are left out."""
        if self._dropped or self._socket.closed:
            return False
        told = {name: value for name, value in message.items() if value is not None}
        try:
            await self._socket.send_bytes(json.dumps(told).encode())
        except (ConnectionError, RuntimeError):
            return False
        return True

    def drop(self) -> None:
        """Resets the connection without a closing handshake."""
        self._dropped = True
        self._drop()

    async def close(self, code: int, reason: str) -> None:
        """Ends the connection; a close frame holds at most 123 bytes of reason."""
        await self._socket.close(code=code, message=reason.encode()[:123])
