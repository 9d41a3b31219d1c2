"""Server-sent events: Project changes for the operator, pushes for agent pods."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from talktime_ledger.desk.errors import DeskError
from talktime_ledger.server.auth import Role
from talktime_ledger.server.context import Ledger, Parts, Who, require, require_project
from talktime_ledger.wire import ProblemReason

router = APIRouter()

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@router.get("/changes", response_class=StreamingResponse)
async def changes(parts: Parts, caller: Who) -> StreamingResponse:
    """`project` events whenever a ProjectStatus may have changed."""
    require(caller, Role.OPERATOR, Role.CONSOLE)
    return _stream(parts, "changes")


@router.get("/push/{namespace}/{name}", response_class=StreamingResponse)
async def push(namespace: str, name: str, parts: Parts, caller: Who) -> StreamingResponse:
    """`limits|paused|fence|closed` of a Project's sessions."""
    require(caller, Role.AGENT)
    require_project(caller, namespace, name)
    return _stream(parts, f"push:{namespace}/{name}")


def _stream(parts: Ledger, address: str) -> StreamingResponse:
    if not parts.hub.connected:
        # A stream that cannot hear would look alive and tell nothing.
        raise DeskError(ProblemReason.UNAVAILABLE, "not listening to the database yet")
    return StreamingResponse(parts.hub.events(address), media_type="text/event-stream", headers=_HEADERS)
