"""Sweeps sessions whose agents are gone, on the database's clock, extended by the ledger's own downtime."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from prometheus_client import Counter

from talktime_ledger.desk.closing import sweep
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.lingering import release_overdue
from talktime_ledger.server.hub import Hub, notify
from talktime_ledger.server.settings import Settings
from talktime_ledger.store import projects, sessions
from talktime_ledger.store.database import Pool

log = logging.getLogger(__name__)

# A gap in the heartbeat beyond this many ticks was a downtime of all replicas (or of the database).
DOWN_AFTER_TICKS = 4


async def beat(pool: Pool, tick_sec: float) -> timedelta:
    """Marks this moment as alive; returns the downtime before it (0 as a rule) and gives it to all open sessions."""
    async with pool.acquire() as connection, connection.transaction():
        last = await connection.fetchval("SELECT alive_at FROM heartbeat WHERE id = 1 FOR UPDATE")
        now = await connection.fetchval("SELECT clock_timestamp()")
        await connection.execute(
            "INSERT INTO heartbeat (id, alive_at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET alive_at = $1", now
        )
        gap: timedelta = now - last if last is not None else timedelta()
        if gap <= timedelta(seconds=tick_sec * DOWN_AFTER_TICKS):
            return timedelta()
        await connection.execute(
            "UPDATE sessions SET valid_until = valid_until + $1 WHERE state = 'open' OR reserved > 0", gap
        )
        return gap


async def sweep_once(pool: Pool, grace_sec: float, hub: Hub) -> int:
    """Sweeps what is overdue; returns how many sessions."""
    async with pool.acquire() as connection:
        overdue = await sessions.overdue(connection, grace_sec)
    swept = 0
    for session_id in overdue:
        try:
            async with pool.acquire() as connection, connection.transaction():
                session = await sweep(connection, session_id, grace_sec)
                if session is None:
                    continue
                project = await projects.by_id(connection, session.project_id)
                address = f"push:{project.namespace}/{project.name}"
                await notify(connection, address, "closed", {"session_id": str(session.id), "reason": "swept"})
        except DeskError:
            continue
        hub.changed(project.namespace, project.name)
        swept += 1
        log.warning(
            "session swept",
            extra={"session": str(session_id), "project": f"{project.namespace}/{project.name}"},
        )
    return swept


async def release_once(pool: Pool, hub: Hub) -> None:
    """Releases what ended sessions held for people who must have left by now."""
    async with pool.acquire() as connection:
        found = await sessions.lingering(connection)
    for session_id in found:
        async with pool.acquire() as connection, connection.transaction():
            project = await release_overdue(connection, session_id)
        if project is not None:
            hub.changed(project.namespace, project.name)


async def run(pool: Pool, settings: Settings, hub: Hub, swept: Counter) -> None:
    """Task."""
    while True:
        try:
            gap = await beat(pool, settings.sweep_every_sec)
            if gap:
                log.warning("validity extended by the ledger's downtime of %.0f s", gap.total_seconds())
            swept.inc(await sweep_once(pool, settings.sweep_after_sec, hub))
            await release_once(pool, hub)
        except Exception as error:
            log.warning("sweep failed: %s", error)
        await asyncio.sleep(settings.sweep_every_sec)
