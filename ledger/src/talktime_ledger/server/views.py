"""From rows to the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from talktime_ledger.desk.connections import Kept
from talktime_ledger.resources.project import Api
from talktime_ledger.store import usages
from talktime_ledger.store.database import Connection
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.wire import MediaChoice, OpenConnection, Session, SessionCosts, SessionEvent, Unended

Names = Mapping[UUID, tuple[str, str]]
"""Project id -> (namespace, name)."""


async def project_names(connection: Connection) -> Names:
    """Names of all Projects."""
    rows = await connection.fetch("SELECT id, namespace, name FROM projects")
    return {row["id"]: (row["namespace"], row["name"]) for row in rows}


async def costs_of(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, tuple[SessionCosts, ...]]:
    """Cost rows by session."""
    found: dict[UUID, list[SessionCosts]] = {}
    for row in await usages.costs(connection, list(ids)):
        found.setdefault(row["session_id"], []).append(costs_wire(dict(row)))
    return {key: tuple(rows) for key, rows in found.items()}


def costs_wire(row: Mapping[str, Any]) -> SessionCosts:
    """One row of session_costs."""
    return SessionCosts.model_validate(
        {**row, "session_id": str(row["session_id"]), "project_id": str(row["project_id"])}
    )


def session_wire(
    session: SessionState, names: tuple[str, str], costs: tuple[SessionCosts, ...] | None = None
) -> Session:
    """A session as callers see it."""
    return Session(
        session_id=str(session.id),
        namespace=names[0],
        project=names[1],
        provider=session.provider,
        api=Api(session.api),
        model=session.model,
        epoch=session.epoch,
        state="open" if session.state == "open" else "closed",
        opened_at=session.opened_at,
        attached_at=session.attached_at,
        closed_at=session.closed_at,
        close_reason=session.close_reason,
        participant_identity=session.participant_identity,
        observers=tuple(session.observers),
        media=MediaChoice.model_validate(session.media),
        posted=session.posted,
        reserved=session.reserved,
        limit=session.limit_usd,
        soft_at=session.soft_at,
        hard_at=session.hard_at,
        valid_until=session.valid_until,
        turns=session.turns,
        lost=session.lost,
        losses=session.losses,
        events=tuple(SessionEvent.model_validate(event) for event in session.events),
        costs=costs,
    )


def unended_wire(rows: Iterable[Mapping[str, Any]]) -> tuple[Unended, ...]:
    """Connections by session; the rows of one come together."""
    found = []
    for _, together in groupby(rows, key=lambda row: row["id"]):
        some = list(together)
        known = {row["key"]: Kept.of(row["value"]).connection for row in some}
        found.append(
            Unended(
                session_id=str(some[0]["id"]),
                namespace=some[0]["namespace"],
                project=some[0]["project"],
                media=MediaChoice.model_validate(some[0]["media"]),
                connections=tuple(
                    OpenConnection(key=key, joined_at_ms=c.joined_ms or 0, seen_sec=c.lasted, video_sec=c.video)
                    for key, c in known.items()
                ),
            )
        )
    return tuple(found)
