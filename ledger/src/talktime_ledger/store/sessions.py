"""Session rows. A session is read once under its row lock, changed as a value, and its changed columns written back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from talktime_ledger.store.database import Connection, Record
from talktime_ledger.store.projects import PROJECT_NAMES, Project, project_of


@dataclass(frozen=True, slots=True)
class SessionState:
    """One row of sessions; USD. `config`, `rates` and `billing` (the provider's own project, None if the Project named
    none) are frozen at open (rates: the talking model first, then transcription).
    """

    id: UUID
    project_id: UUID
    account_id: int
    participant_account_id: int | None
    provider: str
    api: str
    vendor: str
    model: str
    state: str
    epoch: int
    worker: str | None
    participant_identity: str
    participant_key: str | None
    observers: list[str]
    media: dict[str, Any]
    config: dict[str, Any]
    rates: list[dict[str, Any]]
    limit_usd: Decimal
    soft_percent: int
    w_usd: Decimal
    goodbye_usd: Decimal
    transport_hold_usd: Decimal
    hold: int
    posted: Decimal
    reserved: Decimal
    in_flight: Decimal
    burn_usd_min: Decimal | None
    last_n: int
    last_answer: dict[str, Any] | None
    last_use_at: datetime | None
    valid_until: datetime
    opened_at: datetime
    attached_at: datetime | None
    closed_at: datetime | None
    close_reason: str | None
    soft_at: datetime | None
    hard_at: datetime | None
    wrap_up_at: datetime | None
    turns: int
    duration_sec: int
    events: list[dict[str, Any]]
    transport_seconds: dict[str, Any]
    lost_epoch: int | None = None
    losses: int = 0
    billing: str | None = None

    @property
    def lost(self) -> bool:
        """It had an agent and has none now."""
        return self.state == "open" and self.attached_at is not None and self.worker is None

    @property
    def fixed(self) -> Decimal:
        """Held for the whole session: the goodbye and the transport reserve."""
        return self.goodbye_usd + self.transport_hold_usd


NAMES = tuple(field.name for field in fields(SessionState))
COLUMNS = ", ".join(NAMES)


def state_of(row: Record) -> SessionState:
    """A typed session."""
    return SessionState(**{name: row[name] for name in NAMES})


@dataclass(frozen=True, slots=True)
class Locked:
    """A session under its row lock, its Project, the database's clock, the rate cards' revision: one round trip."""

    session: SessionState
    project: Project
    now: datetime
    rates_revision: int


_SESSION = ", ".join(f"s.{name}" for name in NAMES)
_PROJECT = ", ".join(f"p.{name} AS p_{name}" for name in PROJECT_NAMES)
_LOCK = f"""SELECT {_SESSION}, {_PROJECT}, clock_timestamp() AS now,
                   (SELECT value FROM revisions WHERE name = 'rates') AS rates_revision
            FROM sessions s JOIN projects p ON p.id = s.project_id WHERE s.id = $1 FOR UPDATE OF s"""


async def lock(connection: Connection, session_id: UUID) -> Locked | None:
    """Locks and reads a session."""
    row = await connection.fetchrow(_LOCK, session_id)
    if row is None:
        return None
    project = project_of({name: row[f"p_{name}"] for name in PROJECT_NAMES})
    return Locked(state_of(row), project, row["now"], row["rates_revision"])


async def read(connection: Connection, session_id: UUID) -> SessionState | None:
    """The session as it is."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM sessions WHERE id = $1", session_id)
    return state_of(row) if row else None


async def insert(connection: Connection, session: SessionState) -> None:
    """A new session."""
    marks = ", ".join(f"${index}" for index in range(1, len(NAMES) + 1))
    await connection.execute(
        f"INSERT INTO sessions ({COLUMNS}) VALUES ({marks})",
        *(getattr(session, name) for name in NAMES),
    )


async def save(connection: Connection, before: SessionState, after: SessionState) -> None:
    """Writes the columns that changed."""
    changed = [name for name in NAMES if getattr(before, name) != getattr(after, name)]
    if not changed:
        return
    assignments = ", ".join(f"{name} = ${index}" for index, name in enumerate(changed, start=2))
    await connection.execute(
        f"UPDATE sessions SET {assignments} WHERE id = $1",
        before.id,
        *(getattr(after, name) for name in changed),
    )


async def listing(
    connection: Connection,
    *,
    project_id: UUID | None = None,
    state: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 1000,
) -> Sequence[SessionState]:
    """Newest first."""
    rows = await connection.fetch(
        f"""SELECT {COLUMNS} FROM sessions
            WHERE ($1::uuid IS NULL OR project_id = $1) AND ($2::text IS NULL OR state = $2)
              AND ($3::timestamptz IS NULL OR opened_at >= $3) AND ($4::timestamptz IS NULL OR opened_at < $4)
            ORDER BY opened_at DESC, id LIMIT $5""",
        project_id,
        state,
        since,
        until,
        limit,
    )
    return [state_of(row) for row in rows]


async def overdue(connection: Connection, grace_sec: float, limit: int = 100) -> list[UUID]:
    """Open sessions whose validity ended more than `grace_sec` ago, on the database's clock."""
    rows = await connection.fetch(
        """SELECT id FROM sessions WHERE state = 'open' AND valid_until + make_interval(secs => $1) < NOW()
           ORDER BY valid_until LIMIT $2""",
        grace_sec,
        limit,
    )
    return [row["id"] for row in rows]


async def lingering(connection: Connection, limit: int = 100) -> list[UUID]:
    """Ended sessions whose transport reserve is held longer than anybody can be there, on the database's clock."""
    rows = await connection.fetch(
        """SELECT id FROM sessions WHERE state = 'closed' AND reserved > 0 AND valid_until < NOW()
           ORDER BY valid_until LIMIT $1""",
        limit,
    )
    return [row["id"] for row in rows]


# The inner query reads 50 rows of the index sessions_recent, however many sessions have ended.
EXPECTED_REMAINDER = """
    WITH past AS (SELECT AVG(posted) AS mean FROM (SELECT posted FROM sessions WHERE project_id = $1
                  AND state = 'closed' AND posted > 0 ORDER BY closed_at DESC LIMIT 50) recent)
    SELECT COALESCE(SUM(GREATEST(w_usd + goodbye_usd, COALESCE(past.mean, limit_usd / 2) - posted)), 0) AS need,
           COALESCE(SUM(reserved), 0) AS held
    FROM sessions, past WHERE project_id = $1 AND state = 'open'"""


async def expected_remainder(connection: Connection, project_id: UUID) -> tuple[Decimal, Decimal]:
    """(USD the open sessions will still need, USD they hold): mean of the last 50 closed ones, else half their own
    limits.
    """
    row = await connection.fetchrow(EXPECTED_REMAINDER, project_id)
    assert row is not None
    return row["need"], row["held"]
