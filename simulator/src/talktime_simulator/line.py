"""The outgoing side of one connection: events in order, each with an id, and whether they could still be delivered."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

NewId = Callable[[str], str]


class Line:
    """Sends server events. Not delivered means: the socket was gone."""

    def __init__(self, socket: web.WebSocketResponse, new_id: NewId, drop: Callable[[], None]) -> None:
        self._socket = socket
        self._new_id = new_id
        self._drop = drop
        self._dropped = False

    async def send(self, event: str, **fields: Any) -> bool:
        """True when the event was written to an open socket."""
        if self._dropped or self._socket.closed:
            return False
        try:
            await self._socket.send_str(json.dumps({"type": event, "event_id": self._new_id("event"), **fields}))
        except (ConnectionError, RuntimeError):
            return False
        return True

    async def error(self, code: str, message: str, event_id: str | None = None, param: str | None = None) -> None:
        """An `error` event; `event_id` is the client event that caused it."""
        kind = code if code == "insufficient_quota" else "invalid_request_error"
        error = {"type": kind, "code": code, "message": message, "param": param, "event_id": event_id}
        await self.send("error", error=error)

    def drop(self) -> None:
        """Resets the connection without a closing handshake."""
        self._dropped = True
        self._drop()

    async def close(self, code: int, reason: str) -> None:
        """Ends the connection in an orderly way."""
        await self._socket.close(code=code, message=reason.encode())
