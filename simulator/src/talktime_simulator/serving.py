"""The HTTP side of the simulator: OpenAI's Realtime WebSocket, and of both APIs truth, log, faults and invoices."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from . import certificates, exports
from .connection import Connection, World
from .faults import FaultPlan
from .gemini import serving as gemini
from .gemini.context import Resumables
from .generation import Pace
from .gpt_live import GptLive
from .invoice import PriceMissingError, Prices, costs_page, parse_prices
from .journal import Journal, Record, lines
from .line import Line
from .sockets import SOCKETS, WORLD, close_sockets, refusal
from .speech import Voice

log = logging.getLogger(__name__)

FORMATS = ("openai-costs", "openai-usage-csv", "gcp-standard", "gcp-focus")
DEFAULT_PROJECT = "talktime-rehearsal"
PRICES = web.AppKey("prices", dict[str, Prices])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `serve`."""
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a server in a pod
    parser.add_argument("--port", type=int, default=8080, help="0: any free port, told in the log")
    parser.add_argument("--tls-port", type=int, help="TLS beside plain HTTP, on this port (0: any free one)")
    parser.add_argument("--tls-cert", type=Path, help="PEM chain; without --tls-port the only port speaks TLS")
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument(
        "--tls-dir", type=Path, help="without --tls-cert: where a CA (ca.pem) and a certificate of our own are kept"
    )
    parser.add_argument("--tls-name", action="append", help="name or address in that certificate (more than once)")
    parser.add_argument("--state", type=Path, help="directory that keeps truth and log over a restart")
    parser.add_argument("--speed", type=float, default=3.0, help="generation against real time (default 3)")
    parser.add_argument("--first-audio", type=float, default=0.25, help="seconds until the first audio of a response")
    parser.add_argument("--playback", type=float, default=1.0, help="at which Gemini believes to be heard (default 1)")
    parser.add_argument("--connection-seconds", type=float, default=600.0, help="life of a Gemini Live connection")
    parser.add_argument("--transcription", type=float, default=0.3, help="seconds until a transcription completes")
    parser.add_argument("--speech-cache", type=Path, help="directory for rendered sentences")


def world_of(options: argparse.Namespace) -> World:
    """The shared state of one server process."""
    return World(
        truth=Journal("truth", options.state),
        log=Journal("log", options.state),
        voice=Voice(cache=options.speech_cache),
        faults=FaultPlan(),
        pace=Pace(options.speed, options.first_audio, options.playback),
        transcription_seconds=options.transcription,
        new_id=lambda kind: f"{kind}_{uuid.uuid4().hex[:24]}",
        now=lambda: datetime.now(UTC),
        connection_seconds=options.connection_seconds,
    )


def application(world: World) -> web.Application:
    """The aiohttp application over `world`."""
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app[WORLD], app[PRICES], app[SOCKETS], app[gemini.RESUMABLES] = world, {}, set(), Resumables()
    app.add_routes(
        [
            web.get("/v1/realtime", realtime),
            web.get("/v1/live/sessions", realtime),
            web.get(gemini.PATH, gemini.live),
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
    files = tls_files(options)
    runner = web.AppRunner(application(world_of(options)), access_log=None, shutdown_timeout=5)
    await runner.setup()
    only = files is not None and options.tls_port is None
    site = web.TCPSite(runner, options.host, options.port, ssl_context=files.context() if files and only else None)
    await site.start()
    plain = list(runner.addresses)
    if files is not None and not only:
        await web.TCPSite(runner, options.host, options.tls_port, ssl_context=files.context()).start()
        secure = [address for address in runner.addresses if address not in plain]
        log.info("TLS port %s, CA in %s", secure[0][1], files.ca or "the given chain")
    log.info("listening on %s", plain)
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    await stop.wait()
    await runner.cleanup()
    return 0


def tls_files(options: argparse.Namespace) -> certificates.Files | None:
    """The given files; with a TLS port and none given, our own; None: no TLS."""
    if options.tls_cert and options.tls_key:
        return certificates.Files(options.tls_cert, options.tls_key)
    if options.tls_port is None:
        return None
    directory = options.tls_dir or Path(tempfile.mkdtemp(prefix="talktime-simulator-"))
    return certificates.kept(directory, options.tls_name or ["localhost", "127.0.0.1"], datetime.now(UTC))


async def realtime(request: web.Request) -> web.StreamResponse:
    """The Realtime API, and GPT-Live, which names its model later. Keys `sim-bad...`, `sim-quota...`, `sim-429...` fail
    as such keys do."""
    duplex = request.path.endswith("/live/sessions")
    key = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    model = request.query.get("model", "")
    if not key:
        return refusal(401, "invalid_api_key", "You didn't provide an API key.")
    if not model and not duplex:
        return refusal(400, "missing_model", "You must provide a model parameter.")
    if key.startswith("sim-429"):
        return refusal(429, "rate_limit_exceeded", "Too many requests.")
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
        without_quota = key.startswith("sim-quota")
        if duplex:
            await GptLive(world, line, without_quota).serve(socket)
        else:
            await Connection(world, line, model, without_quota).serve(socket)
    finally:
        request.app[SOCKETS].discard(socket)
    return socket


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
    """`{"fault": NAME, "seconds": 1, "count": 1}`; names as in `faults.Fault`."""
    try:
        request.app[WORLD].faults.add(await request.json())
    except (ValueError, AttributeError, TypeError) as error:
        return refusal(400, "invalid_fault", str(error))
    return web.Response(status=204)


async def clear_faults(request: web.Request) -> web.Response:
    request.app[WORLD].faults.planned.clear()
    return web.Response(status=204)


async def set_prices(request: web.Request) -> web.Response:
    """`{"models": {MODEL: {METER: "USD per million"}}}` for later GET /invoice."""
    try:
        request.app[PRICES]["posted"] = parse_prices(await request.json())
    except ValueError as error:
        return refusal(400, "invalid_prices", str(error))
    return web.Response(status=204)


async def invoice(request: web.Request) -> web.Response:
    """The bill over all truth, by the price file of this POST or of the last POST /prices.

    `?format=openai-costs|openai-usage-csv|gcp-standard|gcp-focus`: that provider's part only, in that shape, for
    `?project=` (the provider's project id). Without a format: OpenAI's Costs page over everything.
    """
    wanted = request.query.get("format", "")
    if wanted not in ("", *FORMATS):
        return refusal(400, "invalid_format", f"format is one of {', '.join(FORMATS)}")
    try:
        prices = parse_prices(await request.json()) if request.method == "POST" else request.app[PRICES].get("posted")
        if prices is None:
            return refusal(409, "no_prices", "POST a price file to /prices first: the simulator knows no prices")
        return bill(request.app[WORLD].truth.records(), prices, wanted, request.query.get("project"))
    except ValueError as error:
        return refusal(400, "invalid_prices", str(error))
    except PriceMissingError as error:
        return refusal(422, "price_missing", str(error))


def bill(truth: list[Record], prices: Prices, wanted: str, project: str | None) -> web.Response:
    """`truth` as the bill that is `wanted`. Raises PriceMissingError."""
    if wanted == "gcp-standard":
        text = exports.gcp_standard(truth, prices, project or DEFAULT_PROJECT)
        return web.Response(text=text, content_type="application/jsonl")
    if wanted == "gcp-focus":
        return web.Response(text=exports.gcp_focus(truth, prices, project or DEFAULT_PROJECT), content_type="text/csv")
    if wanted == "openai-usage-csv":
        return web.Response(text=exports.openai_usage_csv(truth, project or ""), content_type="text/csv")
    if wanted == "openai-costs":
        truth = [record for record in truth if exports.is_openai(record)]
    return web.json_response(costs_page(truth, prices, project))


def _json_lines(records: list[Record]) -> web.Response:
    return web.Response(text=lines(records), content_type="application/jsonl")
