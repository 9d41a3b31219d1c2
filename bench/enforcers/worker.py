"""One run of the comparison, start to end: the trace, the peers on it, ours on it."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg  # type: ignore[import-untyped] # ships no types
from talktime_ledger.store.database import connect_pool

from bench.enforcers import database, peers, study
from bench.enforcers.desks import DirectDesk
from bench.enforcers.ours import Outcome, Run, outcome
from bench.enforcers.server import Killer, serving
from bench.enforcers.trace import draw

FIRST_DAY = datetime(2026, 1, 2, tzinfo=UTC)
CONNECTIONS = 8
KILLS = 3


@dataclass(frozen=True, slots=True)
class Job:
    """`order` gives the run its project and its virtual day; `http`: through the server, with kills."""

    order: int
    seed: int
    sessions: int
    http: bool
    kills: int = KILLS


@dataclass(frozen=True, slots=True)
class Result:
    """What one run brings, USD. `peers`: overshoot by name."""

    job: Job
    peers: dict[str, Decimal]
    ours: Outcome
    transactions: int
    server_kills: int


async def run(job: Job, database_url: str) -> Result:
    """Runs the job in a database made by `database.make`."""
    bounds = study.bounds()
    trace = draw(job.seed, job.sessions, bounds)
    found = {name: peers.overshoot(trace, enforcer) for name, enforcer in peers.PEERS.items()}
    pool = await connect_pool(database_url, CONNECTIONS)
    # What only looks has no time limits: a starved machine makes a run slow, never wrong.
    eyes = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    try:
        project, start = f"run-{job.order}", FIRST_DAY + timedelta(days=job.order)
        async with pool.acquire() as connection:
            account = await database.found_study(connection, project, trace.spent, start)
        kills = 0
        if job.http:
            with tempfile.TemporaryDirectory(prefix="talktime-overshoot-") as home:
                async with serving(database_url, project, Path(home), eyes) as (web, server):
                    killer = Killer(server, job.seed, job.kills)
                    counted = await Run(trace, web, eyes, bounds, project, account, start).finish(killer.disturb)
            transactions, kills = web.transactions, killer.kills
        else:
            desk = DirectDesk(pool)
            counted = await Run(trace, desk, eyes, bounds, project, account, start).finish(_nothing)
            transactions = desk.transactions
        ended = await outcome(counted, eyes, account, trace.spent)
        return Result(job, found, ended, transactions, kills)
    finally:
        await eyes.close()
        await pool.close()


async def _nothing(_: int) -> None:
    await asyncio.sleep(0)
