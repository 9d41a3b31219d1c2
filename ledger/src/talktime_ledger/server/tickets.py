"""Single-use invitations, by the hash of their secret."""

from __future__ import annotations

from fastapi import APIRouter

from talktime_ledger.desk.errors import DeskError
from talktime_ledger.server.auth import Role
from talktime_ledger.server.context import Parts, Who, require
from talktime_ledger.server.projects import existing
from talktime_ledger.wire import ProblemReason, Sha256, Ticket, TicketIssue

router = APIRouter()


@router.post("/tickets")
async def issue(request: TicketIssue, parts: Parts, caller: Who) -> dict[str, str]:
    """Keeps a ticket's hash."""
    require(caller, Role.GATEWAY)
    async with parts.transaction() as connection:
        project = await existing(connection, request.namespace, request.project)
        await connection.execute(
            """INSERT INTO tickets (sha256, project_id, participant_key, expires_at) VALUES ($1, $2, $3, $4)
               ON CONFLICT DO NOTHING""",
            request.sha256,
            project.id,
            request.participant_key,
            request.expires_at,
        )
    return {}


@router.post("/tickets/{sha256}/redeem")
async def redeem(sha256: Sha256, parts: Parts, caller: Who) -> Ticket:
    """Uses a ticket up: exactly one caller wins."""
    require(caller, Role.GATEWAY)
    async with parts.transaction() as connection:
        row = await connection.fetchrow(
            """UPDATE tickets SET used_at = NOW() FROM projects p
               WHERE sha256 = $1 AND used_at IS NULL AND expires_at > NOW() AND p.id = project_id
               RETURNING p.namespace, p.name, participant_key""",
            sha256,
        )
        if row is not None:
            return Ticket(namespace=row["namespace"], project=row["name"], participant_key=row["participant_key"])
        used = await connection.fetchrow("SELECT used_at FROM tickets WHERE sha256 = $1", sha256)
    if used is None:
        raise DeskError(ProblemReason.NOT_FOUND, "no such ticket")
    if used["used_at"] is not None:
        raise DeskError(ProblemReason.USED, "the ticket was used")
    raise DeskError(ProblemReason.EXPIRED, "the ticket has expired")
