"""Single-use invitations, by the hash of their secret. They are redeemed by opening a session."""

from __future__ import annotations

from fastapi import APIRouter

from talktime_ledger.server.auth import Role
from talktime_ledger.server.context import Parts, Who, require
from talktime_ledger.server.projects import existing
from talktime_ledger.store import tickets
from talktime_ledger.wire import TicketIssue

router = APIRouter()


@router.post("/tickets")
async def issue(request: TicketIssue, parts: Parts, caller: Who) -> dict[str, str]:
    """Keeps a ticket's hash."""
    require(caller, Role.GATEWAY)
    async with parts.transaction() as connection:
        project = await existing(connection, request.namespace, request.project)
        await tickets.keep(connection, request.sha256, project.id, request.participant_key, request.expires_at)
    return {}
