"""The HTTP side of the simulator: the Realtime WebSocket, its truth, its log, faults and invoices."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import ssl
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, web

from .connection import Connection, World
from .faults import FaultPlan
from .generation import Pace
from .invoice import PriceMissingError, Prices, costs_page, parse_prices
from .journal import Journal, Record, lines
from .line import Line
from .speech import Voice

log = logging.getLogger(__name__)

WORLD = web.AppKey("world", World)
PRICES = web.AppKey("prices", dict[str, Prices])
SOCKETS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("sockets", set)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `serve`."""
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a server in a pod
    parser.add_argument("--port", type=int, default=8080, help="0: any free port, told in the log")
    parser.add_argument("--tls-cert", type=Path, help="PEM chain; with --tls-key the server speaks TLS")
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--state", type=Path, help="directory that keeps truth and log over a restart")
    parser.add_argument("--speed", type=float, default=3.0, help="generation against real time (default 3)")
    parser.add_argument("--first-audio", type=float, default=0.25, help="seconds until the first audio of a response")
    parser.add_argument("--transcription", type=float, default=0.3, help="seconds until a transcription completes")
    parser.add_argument("--speech-cache", type=Path, help="directory for rendered sentences")


def world_of(options: argparse.Namespace) -> World:
    """The shared state of one server process."""
    return World(
        truth=Journal("truth", options.state),
        log=Journal("log", options.state),
        voice=Voice(cache=options.speech_cache),
        faults=FaultPlan(),
        pace=Pace(options.speed, options.first_audio),
        transcription_seconds=options.transcription,
        new_id=lambda kind: f"{kind}_{uuid.uuid4().hex[:24]}",
        now=lambda: datetime.now(UTC),
    )


def application(world: World) -> web.Application:
    """The aiohttp application over `world`."""
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app[WORLD], app[PRICES], app[SOCKETS] = world, {}, set()
    app.add_routes(
        [
            web.get("/v1/realtime", realtime),
            web.get("/healthz", healthz),
            web.get("/truth", truth),
            web.delete("/truth", reset),
            web.get("/log", protocol_log),
            web.post("/faults", add_fault),
            web.delete("/faults", clear_faults),
            web.post("/prices", set_prices),
            web.get("/invoice", invoice),
            web.post("/invoice", invoice),
        ]
    )
    app.on_shutdown.append(close_sockets)
    return app


async def run(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT."""
    context = None
    if options.tls_cert and options.tls_key:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls_cert, options.tls_key)
    runner = web.AppRunner(application(world_of(options)), access_log=None, shutdown_timeout=5)
    await runner.setup()
    site = web.TCPSite(runner, options.host, options.port, ssl_context=context)
    await site.start()
    log.info("listening on %s", runner.addresses)
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    await stop.wait()
    await runner.cleanup()
    return 0


async def realtime(request: web.Request) -> web.StreamResponse:
    """The Realtime API. Keys starting `sim-bad`, `sim-quota`, `sim-429` fail as such keys do."""
    key = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    model = request.query.get("model", "")
    if not key:
        return _refusal(401, "invalid_api_key", "You didn't provide an API key.")
    if not model:
        return _refusal(400, "missing_model", "You must provide a model parameter.")
    if key.startswith("sim-429"):
        return _refusal(429, "rate_limit_exceeded", "Too many requests.")
    socket = web.WebSocketResponse(compress=False, heartbeat=30)
    await socket.prepare(request)
    world = request.app[WORLD]

    def drop() -> None:
        if request.transport is not None:
            request.transport.abort()

    line = Line(socket, world.new_id, drop)
    if key.startswith("sim-bad"):
        await line.error("invalid_api_key", "Incorrect API key provided.")
        await line.close(3000, "invalid_request_error.invalid_api_key")
        return socket
    request.app[SOCKETS].add(socket)
    try:
        await Connection(world, line, model, without_quota=key.startswith("sim-quota")).serve(socket)
    finally:
        request.app[SOCKETS].discard(socket)
    return socket


async def close_sockets(app: web.Application) -> None:
    open_now: set[web.WebSocketResponse] = app[SOCKETS]
    for socket in list(open_now):
        await socket.close(code=WSCloseCode.GOING_AWAY, message=b"server shutdown")


async def healthz(request: web.Request) -> web.Response:
    return web.json_response({"sessions": len(request.app[SOCKETS])})


async def truth(request: web.Request) -> web.Response:
    """JSON lines, one per billed thing."""
    return _json_lines(request.app[WORLD].truth.records())


async def reset(request: web.Request) -> web.Response:
    request.app[WORLD].truth.reset()
    request.app[WORLD].log.reset()
    return web.Response(status=204)


async def protocol_log(request: web.Request) -> web.Response:
    """JSON lines of protocol events; `?wrap_up=TEXT&closing=TEXT` marks response.create events by these texts."""
    return _json_lines(
        marked(request.app[WORLD].log.records(), request.query.get("wrap_up"), request.query.get("closing"))
    )


def marked(records: list[Record], wrap_up: str | None, closing: str | None) -> list[Record]:
    """`records` with the marks of response.create decided by the literal texts that are given."""
    texts = {name: text for name, text in (("wrap_up", wrap_up), ("closing", closing)) if text}
    return [
        {**record, **{name: text in record["instructions_extra"] for name, text in texts.items()}}
        if record["event"] == "response.create"
        else record
        for record in records
    ]


async def add_fault(request: web.Request) -> web.Response:
    """`{"fault": "late_done|duplicate_done|drop_socket|late_created", "seconds": 1, "count": 1}` for next responses."""
    try:
        request.app[WORLD].faults.add(await request.json())
    except (ValueError, AttributeError, TypeError) as error:
        return _refusal(400, "invalid_fault", str(error))
    return web.Response(status=204)


async def clear_faults(request: web.Request) -> web.Response:
    request.app[WORLD].faults.planned.clear()
    return web.Response(status=204)


async def set_prices(request: web.Request) -> web.Response:
    """`{"models": {MODEL: {METER: "USD per million"}}}` for later GET /invoice."""
    try:
        request.app[PRICES]["posted"] = parse_prices(await request.json())
    except ValueError as error:
        return _refusal(400, "invalid_prices", str(error))
    return web.Response(status=204)


async def invoice(request: web.Request) -> web.Response:
    """The bill over all truth: by the price file of this POST, or of the last POST /prices."""
    try:
        prices = parse_prices(await request.json()) if request.method == "POST" else request.app[PRICES].get("posted")
        if prices is None:
            return _refusal(409, "no_prices", "POST a price file to /prices first: the simulator knows no prices")
        return web.json_response(costs_page(request.app[WORLD].truth.records(), prices))
    except ValueError as error:
        return _refusal(400, "invalid_prices", str(error))
    except PriceMissingError as error:
        return _refusal(422, "price_missing", str(error))


def _json_lines(records: list[Record]) -> web.Response:
    return web.Response(text=lines(records), content_type="application/jsonl")


def _refusal(status: int, code: str, message: str) -> web.Response:
    body: dict[str, Any] = {"error": {"type": "invalid_request_error", "code": code, "message": message}}
    headers = {"Retry-After": "2"} if status == 429 else None
    return web.Response(status=status, text=json.dumps(body), content_type="application/json", headers=headers)
