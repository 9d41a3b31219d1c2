"""The server: routes under /v1, health beside them, background tasks for sweeping, delivery, keys and streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fastapi import FastAPI

from talktime_ledger.desk.pricing import RateDesk
from talktime_ledger.server import (
    directory,
    health,
    invoices,
    postbox,
    problems,
    projects,
    reports,
    resuming,
    sessions,
    streams,
    sweeper,
    tickets,
)
from talktime_ledger.server.auth import REFRESH_SEC, KeyRing
from talktime_ledger.server.context import Ledger
from talktime_ledger.server.express import Express
from talktime_ledger.server.guards import Guards
from talktime_ledger.server.hub import Hub
from talktime_ledger.server.metrics import Metrics
from talktime_ledger.server.settings import Settings
from talktime_ledger.store.database import connect_pool
from talktime_ledger.store.rollups import roll_up

log = logging.getLogger(__name__)

MEASURE_EVERY_SEC = 15.0


def create_app(settings: Settings) -> FastAPI:
    """The application; connects when it starts and waits for the database if it must."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pool = await _patient_pool(settings)
        hub = Hub(settings.database_url, settings.changes_every_sec)
        ledger = Ledger(settings, pool, KeyRing(settings, pool), hub, RateDesk(), Metrics())
        app.state.ledger = ledger
        await ledger.keys.refresh()
        tasks = [asyncio.create_task(_forever(name, job)) for name, job in _jobs(ledger).items()]
        try:
            yield
        finally:
            hub.close_streams()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await pool.close()

    app = FastAPI(
        title="Talktime ledger",
        version="1",
        description="Money: reservations, usage, reports. Amounts are decimal strings in USD.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    for module in (projects, directory, resuming, sessions, tickets, streams, reports, invoices):
        app.include_router(module.router, prefix="/v1")
    app.include_router(health.router)

    # The last added is the outermost.
    app.add_middleware(Express)
    app.add_middleware(Guards, timeout_sec=settings.request_timeout_sec)
    return app


Job = Callable[[], Coroutine[Any, Any, None]]


def _jobs(ledger: Ledger) -> dict[str, Job]:
    settings, pool = ledger.settings, ledger.pool

    async def keys() -> None:
        while True:
            await asyncio.sleep(REFRESH_SEC if ledger.keys.known else 2)
            await ledger.keys.refresh()

    async def gauges() -> None:
        while True:
            with contextlib.suppress(Exception):
                await health.measure(ledger, ledger.metrics)
            await asyncio.sleep(MEASURE_EVERY_SEC)

    async def rollups() -> None:
        while True:
            async with ledger.transaction() as connection:
                await roll_up(connection)
            await asyncio.sleep(settings.roll_up_every_sec)

    return {
        "listen": ledger.hub.listen,
        "changes": lambda: ledger.hub.flush(pool),
        "sweeper": lambda: sweeper.run(pool, settings, ledger.hub, ledger.metrics.swept),
        "outbox": lambda: postbox.run(pool, settings),
        "keys": keys,
        "gauges": gauges,
        "rollups": rollups,
        "steady": lambda: resuming.listen(ledger),
    }


async def _forever(name: str, job: Job) -> None:
    """A background job that ends is a bug: say so and start it again."""
    while True:
        try:
            await job()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("background job %s failed", name)
        await asyncio.sleep(1)


async def _patient_pool(settings: Settings) -> Any:
    while True:
        try:
            return await connect_pool(settings.database_url, settings.pool_size)
        except Exception as error:
            log.warning("waiting for the database: %s: %s", type(error).__name__, error)
            await asyncio.sleep(1)
