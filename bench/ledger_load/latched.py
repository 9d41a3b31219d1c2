"""A Project that has reached its soft limit, with many sessions behind it: there every renewal asks what the live ones
will still need, from what the last ones cost.
"""

from __future__ import annotations

import asyncpg  # type: ignore[import-untyped] # ships no types
from talktime_ledger.store.sessions import NAMES

_SET = {
    "id": "gen_random_uuid()",
    "state": "'closed'",
    "close_reason": "'participant_left'",
    "closed_at": "NOW() - make_interval(mins => number)",
    # Every twentieth: nobody came.
    "posted": "CASE WHEN number % 20 = 0 THEN 0 ELSE 0.5 + number % 100 / 100.0 END",
    "reserved": "0",
}
# Copies of a real session: a closed row weighs what it weighs in production. No money moves by them.
_CLOSED = f"""INSERT INTO sessions ({", ".join(NAMES)})
    SELECT {", ".join(_SET.get(name, f"one.{name}") for name in NAMES)}
    FROM (SELECT s.* FROM sessions s JOIN projects p ON p.id = s.project_id WHERE p.name = $1 LIMIT 1) one,
         generate_series(1, $2::integer) number"""


async def add_closed(dsn: str, project: str, count: int) -> None:
    """So many sessions of the Project that ended, one a minute; it has at least one already."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_CLOSED, project, count)
        await connection.execute("ANALYZE sessions")
        # Written now and not while something is measured.
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def latch_soft(dsn: str, project: str) -> None:
    """Its soft limit was reached. Behind the ledger's back: spending as much by calls would take the whole bench."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "UPDATE accounts SET soft_at = NOW() WHERE project_id = (SELECT id FROM projects WHERE name = $1)", project
        )
    finally:
        await connection.close()
