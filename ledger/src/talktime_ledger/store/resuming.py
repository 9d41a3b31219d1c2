"""Heartbeats of pods, sessions without their agent, sealed checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from talktime_ledger.store.database import Connection
from talktime_ledger.store.sessions import NAMES, SessionState, state_of

FORGET_SEC = 3600


async def beat(connection: Connection, project_id: UUID, host: str) -> None:
    """The pod is alive now, on the database's clock."""
    await connection.execute(
        """INSERT INTO worker_beats (project_id, host) VALUES ($1, $2)
           ON CONFLICT (project_id, host) DO UPDATE SET seen_at = clock_timestamp()""",
        project_id,
        host,
    )


async def forget_beats(connection: Connection) -> None:
    """Pods that have been gone for long."""
    await connection.execute(
        "DELETE FROM worker_beats WHERE seen_at < clock_timestamp() - make_interval(secs => $1)", FORGET_SEC
    )


_SESSION = ", ".join(f"s.{name}" for name in NAMES)


async def reported(connection: Connection) -> Sequence[SessionState]:
    """Open sessions whose agent's loss was reported and that nobody has claimed since."""
    rows = await connection.fetch(f"SELECT {_SESSION} FROM sessions s WHERE state = 'open' AND lost_epoch = epoch")
    return [state_of(row) for row in rows]


async def silent(connection: Connection, after_sec: float) -> Sequence[SessionState]:
    """Open sessions held by a pod that was heard once and has been silent for so long.

    A pod that never said anything is unknown, not lost.
    """
    rows = await connection.fetch(
        f"""SELECT {_SESSION} FROM worker_beats b JOIN sessions s
              ON s.project_id = b.project_id AND s.state = 'open' AND split_part(s.worker, '/', 1) = b.host
            WHERE b.seen_at < clock_timestamp() - make_interval(secs => $1)""",
        after_sec,
    )
    return [state_of(row) for row in rows]


async def keep_context(connection: Connection, session_id: UUID, epoch: int, sealed: bytes) -> None:
    """Replaces the checkpoint; the caller holds the session's lock."""
    await connection.execute(
        """INSERT INTO session_contexts (session_id, epoch, sealed) VALUES ($1, $2, $3)
           ON CONFLICT (session_id) DO UPDATE SET epoch = $2, sealed = $3, updated_at = NOW()""",
        session_id,
        epoch,
        sealed,
    )


async def context(connection: Connection, session_id: UUID) -> bytes | None:
    """The sealed checkpoint."""
    sealed: bytes | None = await connection.fetchval(
        "SELECT sealed FROM session_contexts WHERE session_id = $1", session_id
    )
    return sealed
