"""What the routes of both APIs share: the world, the open sockets, and how a request is refused."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import WSCloseCode, web

from .connection import World

WORLD = web.AppKey("world", World)
SOCKETS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("sockets", set)


async def close_sockets(app: web.Application) -> None:
    """Ends every open WebSocket when the server stops."""
    open_now: set[web.WebSocketResponse] = app[SOCKETS]
    for socket in list(open_now):
        await socket.close(code=WSCloseCode.GOING_AWAY, message=b"server shutdown")


def refusal(status: int, code: str, message: str) -> web.Response:
    """An error body in OpenAI's shape."""
    body: dict[str, Any] = {"error": {"type": "invalid_request_error", "code": code, "message": message}}
    headers = {"Retry-After": "2"} if status == 429 else None
    return web.Response(status=status, text=json.dumps(body), content_type="application/json", headers=headers)
