"""A ledger over real HTTP that answers like the real one and can be told what to say."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web


class FakeLedger:
    """`statuses`, `projects`, `cards`, `pools` are plain dicts the test may read and change from its own thread."""

    def __init__(self) -> None:
        self.projects: dict[str, dict[str, Any]] = {}
        self.deleted: set[str] = set()
        self.pools: dict[str, dict[str, Any]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.overrides: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.refuse_all = False
        self._streams: list[asyncio.Queue[dict[str, str]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.url = ""

    def say(self, project: str, **changes: Any) -> None:
        """Changes what the ledger tells about a Project ("ns/name") and announces it."""
        self.overrides.setdefault(project, {}).update(changes)
        namespace, name = project.split("/")
        assert self._loop is not None
        for stream in self._streams:
            self._loop.call_soon_threadsafe(stream.put_nowait, {"namespace": namespace, "name": name})

    def status(self, project: str) -> dict[str, Any]:
        push = self.projects[project]
        amount = push["spec"]["budget"]["amount"]
        namespace, name = project.split("/")
        return {
            "namespace": namespace,
            "name": name,
            "generation": push["generation"],
            "paused": push["paused"],
            "deleted": project in self.deleted,
            "budget": {
                "amount": amount,
                "posted": "0",
                "reserved": "0",
                "available": amount,
                "state": "OK",
                "period": "Total",
                "forecast": "0",
            },
            "sessions": {},
            "prices": [{"provider": p["name"], "model": p["model"], "known": True} for p in push["spec"]["providers"]],
            "feasible": {"ok": True},
            "providers": [],
            "ledgerTime": "2026-11-22T12:00:00Z",
            **self.overrides.get(project, {}),
        }

    @web.middleware
    async def _count(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.calls.append((request.method, request.path))
        if self.refuse_all:
            return web.json_response({"title": "down", "status": 503, "reason": "Unavailable"}, status=503)
        response: web.StreamResponse = await handler(request)
        return response

    async def _put_project(self, request: web.Request) -> web.Response:
        key = "{ns}/{name}".format(**request.match_info)
        self.projects[key] = await request.json()
        self.deleted.discard(key)
        return web.json_response(self.status(key))

    async def _get_project(self, request: web.Request) -> web.Response:
        key = "{ns}/{name}".format(**request.match_info)
        if key not in self.projects:
            return web.json_response({"title": "unknown", "status": 404, "reason": "NotFound"}, status=404)
        return web.json_response(self.status(key))

    async def _delete_project(self, request: web.Request) -> web.Response:
        self.deleted.add("{ns}/{name}".format(**request.match_info))
        return web.json_response({})

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"projects": [self.status(k) for k in self.projects]})

    async def _spend(self, _: web.Request) -> web.Response:
        return web.json_response({"rows": []})

    async def _put(self, request: web.Request) -> web.Response:
        store = self.cards if "rate-cards" in request.path else self.pools
        store[request.path.split("/v1/")[1].split("/", 1)[1]] = await request.json()
        return web.json_response({})

    async def _get_pool(self, request: web.Request) -> web.Response:
        key = "{ns}/{name}".format(**request.match_info)
        if key not in self.pools:
            return web.json_response({"title": "unknown", "status": 404, "reason": "NotFound"}, status=404)
        return web.json_response(self.pools[key])

    async def _drop(self, request: web.Request) -> web.Response:
        store = self.cards if "rate-cards" in request.path else self.pools
        store.pop(request.path.split("/v1/")[1].split("/", 1)[1], None)
        return web.json_response({})

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._streams.append(queue)
        try:
            while True:
                data = await queue.get()
                await response.write(f"event: project\ndata: {json.dumps(data)}\n\n".encode())
        finally:
            self._streams.remove(queue)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._count])
        app.add_routes(
            [
                web.put("/v1/projects/{ns}/{name}", self._put_project),
                web.get("/v1/projects/{ns}/{name}", self._get_project),
                web.delete("/v1/projects/{ns}/{name}", self._delete_project),
                web.get("/v1/projects", self._list),
                web.get("/v1/reports/spend", self._spend),
                web.get("/v1/reports/transport", self._spend),
                web.put("/v1/rate-cards/{name}", self._put),
                web.delete("/v1/rate-cards/{name}", self._drop),
                web.put("/v1/pools/{ns}/{name}", self._put),
                web.get("/v1/pools/{ns}/{name}", self._get_pool),
                web.delete("/v1/pools/{ns}/{name}", self._drop),
                web.get("/v1/changes", self._changes),
            ]
        )
        return app

    @contextmanager
    def serve(self) -> Iterator[FakeLedger]:
        """On a free loopback port, in a thread of its own."""
        started = threading.Event()
        stop: list[asyncio.Event] = []

        async def run() -> None:
            runner = web.AppRunner(self.application(), shutdown_timeout=0.5)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._loop = asyncio.get_running_loop()
            stop.append(asyncio.Event())
            started.set()
            await stop[0].wait()
            await runner.cleanup()

        thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
        thread.start()
        assert started.wait(60)
        try:
            yield self
        finally:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(stop[0].set)
            thread.join(10)
