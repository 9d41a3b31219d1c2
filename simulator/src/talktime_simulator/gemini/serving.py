"""The route of Gemini Live. Keys starting `sim-bad`, `sim-quota`, `sim-429` fail as such keys do."""

from __future__ import annotations

from aiohttp import web

from talktime_simulator.connection import World
from talktime_simulator.sockets import SOCKETS, WORLD, refusal

from .connection import LiveConnection
from .context import Resumables
from .setup import INTERNAL, INVALID_ARGUMENT, POLICY
from .wire import Wire

PATH = "/ws/google.ai.generativelanguage.{version:v1|v1beta|v1alpha}.GenerativeService.BidiGenerateContent"
RESUMABLES = web.AppKey("resumables", Resumables)

UNREGISTERED = "Method doesn't allow unregistered callers (callers without established identity)."
BAD_KEY = "API key not valid. Please pass a valid API key."
NO_QUOTA = "You exceeded your current quota, please check your plan and billing details."


async def live(request: web.Request) -> web.StreamResponse:
    """Google upgrades any request and tells what is wrong with a key by closing, once it has read the setup."""
    key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
    if key.startswith("sim-429"):
        return refusal(429, "rate_limit_exceeded", "Too many requests.")
    socket = web.WebSocketResponse(compress=False, heartbeat=30)
    await socket.prepare(request)

    def drop() -> None:
        if request.transport is not None:
            request.transport.abort()

    wire = Wire(socket, drop)
    if (wrong := refused(key)) is not None:
        await socket.receive()
        await wire.close(*wrong)
        return socket
    world: World = request.app[WORLD]
    request.app[SOCKETS].add(socket)
    try:
        connection = LiveConnection(world, request.app[RESUMABLES], wire, request.match_info["version"])
        await connection.serve(socket)
    finally:
        request.app[SOCKETS].discard(socket)
    return socket


def refused(key: str) -> tuple[int, str] | None:
    """Close code and reason for a key that is not let in."""
    if not key:
        return POLICY, UNREGISTERED
    if key.startswith("sim-bad"):
        return INVALID_ARGUMENT, BAD_KEY
    if key.startswith("sim-quota"):
        return INTERNAL, NO_QUOTA
    return None
