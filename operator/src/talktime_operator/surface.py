"""HTTP of the operator: `/metrics`, `/healthz` (a watchdog), `/readyz`."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

STUCK_AFTER = 60.0


class Pulse:
    """The main loop beats it; a loop that stands still for a minute is dead whatever its health port says."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        self._last = self._clock()

    @property
    def alive(self) -> bool:
        return self._clock() - self._last < STUCK_AFTER


class Surface:
    """`ready` tells whether this replica does its part: leading with complete indices, or waiting for the Lease."""

    def __init__(self, registry: CollectorRegistry, pulse: Pulse, ready: Callable[[], tuple[bool, str]]) -> None:
        self._registry = registry
        self._pulse = pulse
        self._ready = ready

    async def start(self, host: str, port: int) -> web.AppRunner:
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        return runner

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        alive = self._pulse.alive
        return web.Response(text="ok" if alive else "the main loop stands still", status=200 if alive else 503)

    async def _readyz(self, _: web.Request) -> web.Response:
        ready, text = self._ready()
        return web.Response(text=text, status=200 if ready else 503)
