"""Single-use invitations, by the hash of their secret. A used one knows the session it opened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from talktime_ledger.store.database import Connection


@dataclass(frozen=True, slots=True)
class Ticket:
    """One invitation. `session_id` is None for a used one from before sessions were noted."""

    project_id: UUID
    participant_key: str | None
    expires_at: datetime
    used_at: datetime | None
    session_id: UUID | None


async def keep(
    connection: Connection, sha256: str, project_id: UUID, participant_key: str | None, expires_at: datetime
) -> None:
    """A new invitation; the same hash again changes nothing."""
    await connection.execute(
        """INSERT INTO tickets (sha256, project_id, participant_key, expires_at) VALUES ($1, $2, $3, $4)
           ON CONFLICT DO NOTHING""",
        sha256,
        project_id,
        participant_key,
        expires_at,
    )


async def lock(connection: Connection, sha256: str) -> Ticket | None:
    """The invitation under its row lock: whoever else wants it waits until this transaction ends."""
    row = await connection.fetchrow(
        """SELECT project_id, participant_key, expires_at, used_at, session_id FROM tickets
           WHERE sha256 = $1 FOR UPDATE""",
        sha256,
    )
    return Ticket(*row.values()) if row else None


async def use(connection: Connection, sha256: str, session_id: UUID) -> None:
    """It opened this session."""
    await connection.execute(
        "UPDATE tickets SET used_at = NOW(), session_id = $2 WHERE sha256 = $1", sha256, session_id
    )


async def release(connection: Connection, session_id: UUID) -> None:
    """The invitation that opened this session, if any, can be used again."""
    await connection.execute("UPDATE tickets SET used_at = NULL, session_id = NULL WHERE session_id = $1", session_id)
