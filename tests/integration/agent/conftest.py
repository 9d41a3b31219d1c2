"""A real livekit-server, the simulator as the provider, the agent worker as its own process, and a ledger in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from livekit import api
from talktime_ledger.core import money
from talktime_ledger.core.grants import Need, plan_grant
from talktime_ledger.core.limits import Level, LimitState, Position, judge, wrap_up_minutes
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.pricing import price
from talktime_ledger.core.rates import RateSnapshot
from talktime_ledger.core.worst_case import Caps, Legs, instruction_tokens_bound, output_cap
from talktime_ledger.core.worst_cases import GEMINI, OPENAI, WorstCases
from talktime_ledger.wire import (
    Attach,
    Attachment,
    CapsConfig,
    Close,
    CostList,
    Grant,
    GrantBudget,
    GrantState,
    Problem,
    ProblemReason,
    ProviderReport,
    RateSnapshotWire,
    Session,
    SessionConfig,
    Use,
)
from talktime_ledger.wire.resume import Checkpoint, Kept, Lost
from talktime_simulator.participants.door import Entry, claims_of

from . import gemini_desk

ROOT = Path(__file__).parents[3]
MODEL = "gpt-realtime-2.1-mini"
TRANSCRIBER = "gpt-4o-mini-transcribe"
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
OBSERVERS = tuple(f"observer-{number}" for number in range(1, 9))
AGENT = "tt-research-study"
LAST_WORDS = 6000
UNTAKEN_SECONDS = 10.0
KEY, SECRET = "devkey", "a-secret-of-thirty-two-characters-or-more"


def usd_by_meter(**prices: str) -> dict[Meter, Decimal]:
    return {Meter(name): Decimal(value) for name, value in prices.items()}


TALK = RateSnapshot(
    "mini", "openai", MODEL, SINCE,
    usd_by_meter(
        text_in="0.6", text_cached_in="0.06", audio_in="10", audio_cached_in="0.3", text_out="2.4", audio_out="20"
    ),
)  # fmt: skip
LISTEN = RateSnapshot(
    "transcribe", "openai", TRANSCRIBER, SINCE, usd_by_meter(audio_in="3", text_in="1.25", text_out="5")
)


@dataclass(frozen=True)
class Kind:
    """An API with the prices of its models and the rules of its worst cases."""

    api: str
    talk: RateSnapshot
    listen: RateSnapshot | None
    worst: WorstCases
    hold: int

    @property
    def legs(self) -> Legs:
        return Legs(self.talk, self.listen)

    @property
    def rates(self) -> dict[str, RateSnapshot]:
        return {rates.model: rates for rates in (self.talk, self.listen) if rates is not None}


REALTIME = Kind("OpenAIRealtime", TALK, LISTEN, OPENAI, 1)
LIVE = Kind("GeminiLive", gemini_desk.TALK, None, GEMINI, gemini_desk.HOLD)


@dataclass
class Book:
    """One session in the ledger."""

    config: SessionConfig
    limit: Decimal
    opened: float
    kind: Kind
    provider: str = "primary"
    epoch: int = 1
    posted: Decimal = money.ZERO
    reserved: Decimal = money.ZERO
    usages: dict[str, Any] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    grants: dict[int, Grant] = field(default_factory=dict)
    wrapped: bool = False
    lost: Lost | None = None
    context: Checkpoint = field(default_factory=lambda: Checkpoint(epoch=1))
    closed: Close | None = None
    closed_at: float | None = None

    def caps(self) -> Caps:
        return Caps(self.config.caps.contextTokens, self.config.caps.responseSeconds)

    def event(self, name: str) -> datetime | None:
        return next((event.at for event in self.events if event.name == name), None)


class MemoryLedger:
    """The agent's side of the ledger API over HTTP; the money is judged by the real core."""

    def __init__(self) -> None:
        self.books: dict[str, Book] = {}
        self.reports: list[ProviderReport] = []
        self.clips: dict[str, bytes] = {}
        self.beats: set[str] = set()
        self.attached: set[str] = set()
        self.away = False
        self.soft_percent = 80
        self.streams: set[web.StreamResponse] = set()
        self.url = ""

    def open(
        self, *, limit: str, endpoint: str, provider: str = "primary", kind: Kind = REALTIME, **config: Any
    ) -> str:
        session_id = str(uuid.uuid4())
        seconds = config.pop("responseSeconds", 10)
        told = {
            "instructions": "You interview people about their work. Ask one short question at a time.",
            "language": "en",
            "greeting": "Greet the participant and ask the first question.",
            "wrapUp": "You are approaching the time limit. Please summarize and conclude the conversation in the next "
            "{minutes} minutes.",
            "closing": "Thank you for your time, we have covered everything we need. Goodbye.",
            "voice": "marin",
            "transcriptionModel": kind.listen.model if kind.listen else None,
            "caps": CapsConfig(
                contextTokens=config.pop("contextTokens", 1000),
                responseSeconds=seconds,
                outputTokens=output_cap(seconds),
            ),
            "costUpdateSeconds": 2,
            "onLedgerOutage": "Drain",
            **config,
        }
        self.books[session_id] = Book(
            SessionConfig(endpoint=endpoint, **told), Decimal(limit), time.time(), kind, provider
        )
        return session_id

    def bounds(self, book: Book) -> tuple[Decimal, Decimal]:
        config = book.config
        words = instruction_tokens_bound(config.instructions, (config.greeting or "", config.wrapUp, config.closing))
        worst = book.kind.worst
        cap = worst.capped(book.kind.legs, book.caps(), instruction_tokens=words)
        return cap, worst.goodbye(book.kind.talk, config.closing)

    def grant(self, book: Book, n: int, want: Decimal, in_flight: Decimal) -> Grant:
        cap, goodbye = self.bounds(book)
        w = book.kind.hold * (want or cap)
        level = Level(book.limit, book.posted, book.limit - book.posted, self.soft_percent)
        place = Position(level, Level(Decimal(100), book.posted, Decimal(100)), None, w, goodbye, in_flight)
        verdict = judge(place)
        plan = plan_grant(
            Need(goodbye, w, in_flight), book.reserved, [book.limit - book.posted - book.reserved], Decimal(100), 1
        )
        book.reserved += plan.delta
        soft = verdict.state is LimitState.SOFT
        wrap_up, book.wrapped = soft and not book.wrapped, book.wrapped or soft
        final = verdict.state is LimitState.HARD or plan.final
        return Grant(
            n=n,
            state=GrantState.FINAL if final else GrantState.SOFT if soft else GrantState.OK,
            reason=verdict.reason,
            wrap_up=wrap_up,
            wrap_up_minutes=wrap_up_minutes(level.left, w, goodbye, Decimal("0.05")) if wrap_up else None,
            reserved=book.reserved,
            goodbye=goodbye,
            posted=book.posted,
            session_limit=book.limit,
            limit_state=verdict.state,
            w=cap,
            hold=book.kind.hold,
            budget=GrantBudget(
                session_limit=book.limit, session_posted=book.posted, project_amount=Decimal(100),
                project_posted=book.posted, project_available=Decimal(100) - book.posted,
            ),
        )  # fmt: skip

    def post(self, book: Book, usages: Any) -> None:
        for usage in usages:
            old = book.usages.get(usage.key)
            rates = book.kind.rates[usage.model]
            cost = price(usage.meters, rates) - (price(old.meters, rates) if old else money.ZERO)
            book.usages[usage.key] = usage
            book.posted += cost
            book.reserved = max(money.ZERO, book.reserved - cost)

    def cost_of(self, meters: dict[str, int]) -> Decimal:
        return price({Meter(name): count for name, count in meters.items()}, TALK)

    def session(self, session_id: str) -> Session:
        book = self.books[session_id]
        return Session(
            session_id=session_id, namespace="research", project="study", provider=book.provider, api=book.kind.api,
            model=book.kind.talk.model, epoch=book.epoch, state="closed" if book.closed else "open", opened_at=SINCE,
            participant_identity="participant-1", observers=OBSERVERS, posted=book.posted, reserved=book.reserved,
            limit=book.limit,
        )  # fmt: skip

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._away], client_max_size=8 * 2**20)
        app.add_routes(
            [
                web.post("/v1/sessions/{id}/attach", self._attach),
                web.post("/v1/sessions/{id}/use", self._use),
                web.post("/v1/sessions/{id}/close", self._close),
                web.post("/v1/sessions/{id}/lost", self._lost),
                web.put("/v1/sessions/{id}/context", self._put_context),
                web.get("/v1/sessions/{id}/context", self._context),
                web.put("/v1/projects/{ns}/{name}/workers/{host}", self._beat),
                web.get("/v1/push/{ns}/{name}", self._push),
                web.post("/v1/projects/{ns}/{name}/provider-report", self._report),
                web.get("/v1/projects/{ns}/{name}/clips/{key}", self._clip),
                web.put("/v1/projects/{ns}/{name}/clips/{key}", self._put_clip),
            ]
        )
        return app

    @web.middleware
    async def _away(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.away:
            return _problem(503, ProblemReason.UNAVAILABLE)
        return await handler(request)  # type: ignore[no-any-return]

    async def _attach(self, request: web.Request) -> web.Response:
        book = self.books.get(request.match_info["id"])
        if book is None:
            return _problem(404, ProblemReason.NOT_FOUND)
        told = Attach.model_validate_json(await request.read())
        self.attached.add(request.match_info["id"])
        if told.epoch < book.epoch:
            return _problem(409, ProblemReason.FENCED)
        rates = [_wire(one) for one in book.kind.rates.values()]
        return _json(
            Attachment(
                session=self.session(request.match_info["id"]), config=book.config,
                grant=self.grant(book, 0, money.ZERO, money.ZERO), rates=rates,
            )
        )  # fmt: skip

    async def _use(self, request: web.Request) -> web.Response:
        book = self.books[request.match_info["id"]]
        use = Use.model_validate_json(await request.read())
        self.post(book, use.usages)
        if use.epoch < book.epoch:
            return _problem(409, ProblemReason.FENCED)
        if book.closed:
            return _problem(409, ProblemReason.CLOSED)
        if use.n not in book.grants:
            book.uses.append(use)
            book.events += use.events
            book.grants[use.n] = self.grant(book, use.n, use.want, use.in_flight)
        return _json(book.grants[use.n])

    async def _close(self, request: web.Request) -> web.Response:
        book = self.books[request.match_info["id"]]
        told = Close.model_validate_json(await request.read())
        self.post(book, told.usages)
        if told.epoch < book.epoch:
            return _problem(409, ProblemReason.FENCED)
        if book.closed is None:
            book.closed, book.closed_at = told, time.time()
            book.events += told.events
            book.posted += sum((item.usd for item in told.unmetered), money.ZERO)
            book.reserved = money.ZERO
        return _json(CostList(session_id=request.match_info["id"], posted=book.posted, costs=()))

    async def _lost(self, request: web.Request) -> web.Response:
        book = self.books[request.match_info["id"]]
        told = Lost.model_validate_json(await request.read())
        self.post(book, told.usages)
        if told.epoch < book.epoch:
            return _problem(409, ProblemReason.FENCED)
        book.lost = told
        book.posted += sum((item.usd for item in told.unmetered), money.ZERO)
        return _json(self.session(request.match_info["id"]))

    async def _put_context(self, request: web.Request) -> web.Response:
        self.books[request.match_info["id"]].context = Checkpoint.model_validate_json(await request.read())
        return _json(Kept(kept=True))

    async def _context(self, request: web.Request) -> web.Response:
        return _json(self.books[request.match_info["id"]].context)

    async def _beat(self, request: web.Request) -> web.Response:
        self.beats.add(request.match_info["host"])
        return web.json_response({})

    async def _push(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        self.streams.add(stream)
        try:
            with contextlib.suppress(ConnectionError):
                while True:
                    await stream.write(b"event: ping\ndata: {}\n\n")
                    await asyncio.sleep(1)
            return stream
        finally:
            self.streams.discard(stream)

    async def push(self, event: str, **data: Any) -> None:
        for stream in list(self.streams):
            await stream.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())

    async def _report(self, request: web.Request) -> web.Response:
        self.reports.append(ProviderReport.model_validate_json(await request.read()))
        return web.json_response({})

    async def _clip(self, request: web.Request) -> web.Response:
        pcm = self.clips.get(request.match_info["key"])
        return _problem(404, ProblemReason.NOT_FOUND) if pcm is None else web.Response(body=pcm)

    async def _put_clip(self, request: web.Request) -> web.Response:
        self.clips[request.match_info["key"]] = await request.read()
        return web.Response(status=204)


def _wire(rates: RateSnapshot) -> RateSnapshotWire:
    return RateSnapshotWire(
        card=rates.card, vendor=rates.vendor, model=rates.model, effective_from=rates.effective_from,
        prices=dict(rates.prices),
    )  # fmt: skip


def _json(body: Any) -> web.Response:
    return web.Response(text=body.model_dump_json(), content_type="application/json")


def _problem(status: int, reason: ProblemReason) -> web.Response:
    body = Problem(title=reason, status=status, reason=reason)
    return web.Response(status=status, text=body.model_dump_json(), content_type="application/problem+json")


@dataclass
class Stage:
    """Everything a session needs."""

    ledger: MemoryLedger
    livekit_url: str
    simulator: str
    live: str
    worker_url: str
    worker: asyncio.subprocess.Process
    worker_log: Path
    spool: Path
    livekit: api.LiveKitAPI
    staffing: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def endpoint(self) -> str:
        return f"{self.simulator}/v1"

    async def dispatch(self, session_id: str, epoch: int = 1) -> None:
        """The gateway's part: the room, with the agent's dispatch in it."""
        agent = api.RoomAgentDispatch(agent_name=AGENT, metadata=json.dumps({"session": session_id, "epoch": epoch}))
        await self.livekit.room.create_room(
            api.CreateRoomRequest(name=session_id, empty_timeout=60, departure_timeout=60, agents=[agent])
        )
        self.staffing.add(asyncio.create_task(self._staffed(session_id, epoch)))

    async def _staffed(self, session_id: str, epoch: int) -> None:
        """The gateway's part, too: a dispatch that no worker took (this one was just full) is made again."""
        while session_id not in self.ledger.attached:
            await asyncio.sleep(UNTAKEN_SECONDS)
            with contextlib.suppress(api.TwirpError):
                dispatches = await self.livekit.agent_dispatch.list_dispatch(session_id)
                if session_id not in self.ledger.attached and not any(one.state.jobs for one in dispatches):
                    for one in dispatches:
                        await self.livekit.agent_dispatch.delete_dispatch(one.id, session_id)
                    await self.dispatch_into(session_id, epoch)

    def unstaffed(self) -> None:
        """Nobody is dispatched for any more."""
        for task in self.staffing:
            task.cancel()
        self.staffing.clear()

    async def dispatch_into(self, session_id: str, epoch: int = 1) -> None:
        """The gateway's part where somebody is in the room already: an agent that ends at once ends it for them."""
        metadata = json.dumps({"session": session_id, "epoch": epoch})
        await self.livekit.agent_dispatch.create_dispatch(
            api.CreateAgentDispatchRequest(agent_name=AGENT, room=session_id, metadata=metadata)
        )

    def entry(self, session_id: str, identity: str = "participant-1") -> Entry:
        hidden = identity.startswith("observer")
        grants = api.VideoGrants(
            room_join=True, room=session_id, hidden=hidden, can_publish=not hidden, can_subscribe=True,
            can_publish_data=False,
        )  # fmt: skip
        token = api.AccessToken(KEY, SECRET).with_identity(identity).with_grants(grants).to_jwt()
        return Entry(self.livekit_url, token, claims_of(token), 0.0)

    async def simulated(self, what: str, **query: str) -> list[dict[str, Any]]:
        async with aiohttp.ClientSession() as http, http.get(f"{self.simulator}/{what}", params=query) as answer:
            return [json.loads(line) for line in (await answer.text()).splitlines()]

    async def forget(self) -> None:
        """The next test begins with an empty bill: the provider writes the last one when its client is gone."""
        self.ledger.away = False
        self.unstaffed()
        async with aiohttp.ClientSession() as http:
            async with asyncio.timeout(60):
                while (await self.simulated("healthz"))[0]["sessions"]:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)
            self.ledger.reports.clear()
            for what in ("truth", "faults"):
                await http.delete(f"{self.simulator}/{what}")

    async def fault(self, **fault: Any) -> None:
        async with aiohttp.ClientSession() as http, http.post(f"{self.simulator}/faults", json=fault) as answer:
            assert answer.status == 204

    async def rooms(self) -> set[str]:
        listed = await self.livekit.room.list_rooms(api.ListRoomsRequest())
        return {room.name for room in listed.rooms}

    async def closed(self, session_id: str, most_seconds: float = 120) -> Book:
        book = self.ledger.books[session_id]
        await until(lambda: book.closed is not None, most_seconds)
        return book

    async def billed(self, session_id: str) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
        """(what the ledger counted, what the simulator billed) of a session that ran alone on this stage, by model."""
        counted: dict[str, dict[str, int]] = {}
        for usage in self.ledger.books[session_id].usages.values():
            _count(counted.setdefault(usage.model, {}), {str(meter): n for meter, n in usage.meters.items()})
        true: dict[str, dict[str, int]] = {}
        for row in await self.simulated("truth"):
            _count(true.setdefault(row["model"], {}), row["meters"])
        return counted, true


def _count(sums: dict[str, int], more: dict[str, int]) -> None:
    for name, number in more.items():
        if number:
            sums[name] = sums.get(name, 0) + number


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    with contextlib.ExitStack() as held:
        taken = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in taken]


async def until(happened: Callable[[], bool], most_seconds: float) -> None:
    """TimeoutError when it has not happened by then."""
    async with asyncio.timeout(most_seconds):
        while not happened():  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.1)


async def _until(url: str, most_seconds: float, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(most_seconds), aiohttp.ClientSession() as http:
        while True:
            assert process.returncode is None, f"{url}: the process ended with {process.returncode}"
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url) as answer:
                    if answer.status < 300:
                        return
            await asyncio.sleep(0.1)


async def _ended(process: asyncio.subprocess.Process, most_seconds: float) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(most_seconds):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@pytest.fixture(scope="module")
async def whole_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    tmp_path = tmp_path_factory.mktemp("stage")
    binary = shutil.which("livekit-server") or str(ROOT / ".state/bin/livekit-server")
    assert Path(binary).exists(), "livekit-server is not built: run `make tools`"  # noqa: ASYNC240
    signal_port, udp_port, sim_port, tls_port, worker_port, metrics_port = free_ports(6)
    livekit_url = f"http://127.0.0.1:{signal_port}"
    config = {
        "port": signal_port,
        "bind_addresses": ["127.0.0.1"],
        "keys": {KEY: SECRET},
        "rtc": {"udp_port": udp_port, "tcp_port": 0, "node_ip": "127.0.0.1", "use_external_ip": False,
                "enable_loopback_candidate": True, "ips": {"includes": ["127.0.0.1/32"]}},
        "logging": {"level": "warn"},
    }  # fmt: skip
    logs = {name: (tmp_path / f"{name}.log").open("wb") for name in ("livekit", "simulator", "worker")}
    ledger = MemoryLedger()
    runner = web.AppRunner(ledger.app(), shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    ledger.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    sfu = await asyncio.create_subprocess_exec(
        binary, "--config-body", json.dumps(config), stdout=logs["livekit"], stderr=logs["livekit"]
    )
    provider = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "talktime_simulator", "serve", "--host", "127.0.0.1", "--port", str(sim_port),
        "--tls-port", str(tls_port), "--tls-dir", str(tmp_path / "tls"), "--tls-name", "127.0.0.1",
        stdout=logs["simulator"], stderr=logs["simulator"],
    )  # fmt: skip
    token = tmp_path / "token"
    token.write_text("test")
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "TALKTIME_PROJECT": "research/study",
        "TALKTIME_LEDGER_URL": ledger.url,
        "TALKTIME_TOKEN_FILE": str(token),
        "TALKTIME_AGENT_NAME": AGENT,
        "TALKTIME_SESSIONS_PER_REPLICA": "3",
        "TALKTIME_PROVIDER_NAMES": "primary,mistyped,unpaid,backup",
        "TALKTIME_PROVIDER_KEY_0": "sim-key",
        "TALKTIME_PROVIDER_KEY_1": "sim-bad-key",
        "TALKTIME_PROVIDER_KEY_2": "sim-quota-key",
        "TALKTIME_PROVIDER_KEY_3": "sim-key",
        # What Google's client trusts; as in a cluster, where the operator mounts the CA and names it so.
        "SSL_CERT_FILE": str(tmp_path / "tls" / "ca.pem"),
        "TALKTIME_SPOOL_DIR": str(tmp_path / "spool"),
        "TALKTIME_HTTP_HOST": "127.0.0.1",
        "TALKTIME_HTTP_PORT": str(worker_port),
        "TALKTIME_METRICS_PORT": str(metrics_port),
        "TALKTIME_REJOIN_GRACE": "2",
        "LIVEKIT_URL": livekit_url,
        "LIVEKIT_API_KEY": KEY,
        "LIVEKIT_API_SECRET": SECRET,
    }
    await _until(livekit_url, 60, sfu)
    await _until(f"http://127.0.0.1:{sim_port}/healthz", 60, provider)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "talktime_agent", "start", env=environment, stdout=logs["worker"], stderr=logs["worker"]
    )
    try:
        await _until(f"http://127.0.0.1:{worker_port}/worker", 180, worker)
        log = tmp_path / "worker.log"
        await until(lambda: "registered worker" in log.read_text(), 180)
        async with api.LiveKitAPI(livekit_url, KEY, SECRET) as livekit:
            made = Stage(
                ledger, livekit_url, f"http://127.0.0.1:{sim_port}", f"https://127.0.0.1:{tls_port}",
                f"http://127.0.0.1:{worker_port}", worker, log, tmp_path / "spool", livekit,
            )  # fmt: skip
            yield made
            made.unstaffed()
    finally:
        await _ended(worker, 20)
        await _ended(provider, 5)
        await _ended(sfu, 5)
        await runner.cleanup()
        for file in logs.values():
            file.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure is told with the last words of the worker and of livekit-server: they ran elsewhere."""
    report = yield
    on_stage = getattr(item, "funcargs", {}).get("stage")
    if report.when == "call" and report.failed and on_stage is not None:
        for log in (on_stage.worker_log, on_stage.worker_log.with_name("livekit.log")):
            report.sections.append((log.name, log.read_text(errors="replace")[-LAST_WORDS:]))
    return report


@pytest.fixture
async def stage(whole_stage: Stage) -> Stage:
    await whole_stage.forget()
    return whole_stage
