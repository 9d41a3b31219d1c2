"""Liveness, readiness that means it, and metrics."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, Response
from prometheus_client import generate_latest

from talktime_ledger.schema import head, suffices
from talktime_ledger.server.context import Ledger, Parts
from talktime_ledger.server.metrics import Metrics

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(parts: Parts, response: Response) -> dict[str, str]:
    """Database reachable, migrated as far as this code needs, keys of callers known."""
    cause = await not_ready(parts)
    if cause:
        response.status_code = 503
    return {"status": cause or "ok"}


async def not_ready(parts: Ledger) -> str:
    """Why calls would fail, empty if they would not."""
    try:
        async with asyncio.timeout(3):
            revision = await parts.pool.fetchval("SELECT version_num FROM alembic_version")
    except Exception as error:
        return f"database: {type(error).__name__}: {error}"
    if not suffices(revision):
        return f"database is at revision {revision}, this code needs {head()}: run migrate"
    if not parts.keys.known:
        await parts.keys.refresh()
    if not parts.keys.known:
        return "keys of ServiceAccount tokens are not known yet (JWKS)"
    return "" if parts.hub.connected else "not listening to the database yet"


async def measure(parts: Ledger, metrics: Metrics) -> None:
    """Reads the gauges that come from tables."""
    async with parts.pool.acquire(timeout=5) as connection:
        pending = await connection.fetchval(
            "SELECT COUNT(*) FROM outbox WHERE delivered_at IS NULL AND abandoned_at IS NULL"
        )
        wrong = await connection.fetchval(
            """SELECT COUNT(*) FROM accounts a WHERE kind = 'project' AND reserved <>
               COALESCE((SELECT SUM(s.reserved) FROM sessions s WHERE s.account_id = a.id AND s.state = 'open'), 0)"""
        )
        settled = await connection.fetch(
            """SELECT vendor, SUM(estimate_usd) AS estimate, SUM(billed_usd - unattributed_usd) AS billed,
                      SUM(unattributed_usd) AS unattributed
               FROM invoice_groups WHERE day > CURRENT_DATE - 35 GROUP BY 1"""
        )
    # What was settled may since be older than the days that count.
    for gauge in (metrics.estimate_ratio, metrics.estimate_difference, metrics.unattributed):
        gauge.clear()
    for row in settled:
        # Nothing billed, no ratio: the difference in USD says what there is to say.
        if row["billed"] > 0:
            metrics.estimate_ratio.labels(row["vendor"]).set(float(row["estimate"] / row["billed"]))
        metrics.estimate_difference.labels(row["vendor"]).set(float(row["estimate"] - row["billed"]))
        metrics.unattributed.labels(row["vendor"]).set(float(row["unattributed"]))
    metrics.outbox.set(pending)
    metrics.mismatch.set(wrong)
    metrics.pool_size.set(parts.pool.get_size())
    metrics.pool_idle.set(parts.pool.get_idle_size())
    metrics.last_success.set(time.time())


@router.get("/metrics", response_class=Response)
async def exposition(parts: Parts) -> Response:
    """Prometheus text."""
    return Response(generate_latest(parts.metrics.registry), media_type="text/plain; version=0.0.4")
