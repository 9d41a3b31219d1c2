"""Outbox: what must reach the outside world at least once, written in the transaction that caused it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from talktime_ledger.core.money import wire
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Project
from talktime_ledger.store.sessions import SessionState

SESSION_ENDED = "dev.talktime.session.ended"
# Pauses between attempts double from 1 s to 10 min; after these many (about a day) it is given up and kept.
MAX_ATTEMPTS = 150
MAX_PAUSE_SEC = 600


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to deliver."""

    id: UUID
    project_id: UUID
    session_id: UUID
    kind: str
    url: str
    body: dict[str, Any]
    attempts: int


def event_data(project: Project, session: SessionState) -> dict[str, Any]:
    """`data` of the session.ended CloudEvent."""
    return {
        "session_id": str(session.id),
        "namespace": project.namespace,
        "project": project.name,
        "provider": session.provider,
        "model": session.model,
        "participant_key": session.participant_key,
        "opened_at": session.opened_at.isoformat(),
        "closed_at": session.closed_at.isoformat() if session.closed_at else None,
        "close_reason": session.close_reason,
        "duration_sec": session.duration_sec,
        "turns": session.turns,
        "total_usd": wire(session.posted),
        "events": session.events,
    }


async def put(connection: Connection, project: Project, session: SessionState, url: str) -> None:
    """One session.ended per session."""
    await connection.execute(
        """INSERT INTO outbox (project_id, session_id, kind, url, body) VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT DO NOTHING""",
        project.id,
        session.id,
        SESSION_ENDED,
        url,
        event_data(project, session),
    )


async def take(
    connection: Connection, lease_sec: float, *, limit: int, per_project: int, busy: Collection[UUID] = ()
) -> list[Letter]:
    """Due letters, taken for `lease_sec` so that other replicas leave them alone (the network call is outside): the
    oldest few of each Project, so that one with many leaves room for others, and none of those that are `busy`."""
    rows = await connection.fetch(
        """WITH due AS (
             SELECT id, next_at, ROW_NUMBER() OVER (PARTITION BY project_id ORDER BY next_at, id) AS place FROM outbox
             WHERE delivered_at IS NULL AND abandoned_at IS NULL AND next_at <= NOW() AND project_id <> ALL($4))
           UPDATE outbox SET next_at = NOW() + make_interval(secs => $1), attempts = attempts + 1
           WHERE id IN (SELECT id FROM outbox
                        WHERE id IN (SELECT id FROM due WHERE place <= $3 ORDER BY next_at LIMIT $2)
                          AND delivered_at IS NULL AND abandoned_at IS NULL AND next_at <= NOW()
                        FOR UPDATE SKIP LOCKED)
           RETURNING id, project_id, session_id, kind, url, body, attempts""",
        lease_sec,
        limit,
        per_project,
        list(busy),
    )
    return [Letter(**dict(row)) for row in rows]


async def delivered(connection: Connection, letter_id: UUID) -> None:
    """The receiver took it."""
    await connection.execute("UPDATE outbox SET delivered_at = NOW(), last_error = NULL WHERE id = $1", letter_id)


async def failed(connection: Connection, letter: Letter, error: str) -> None:
    """Try again later, or give up and keep it for people."""
    pause = min(float(MAX_PAUSE_SEC), 2.0 ** min(letter.attempts - 1, 20))
    await connection.execute(
        """UPDATE outbox SET next_at = NOW() + make_interval(secs => $2), last_error = $3,
                  abandoned_at = CASE WHEN $4 THEN NOW() END WHERE id = $1""",
        letter.id,
        pause,
        error[:500],
        letter.attempts >= MAX_ATTEMPTS,
    )
