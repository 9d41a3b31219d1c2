"""The HTTP face: thin handlers around `Interviews`, refusals as problem+json, access logs without credentials."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import SystemRandom

import aiohttp
from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from talktime_ledger.client import LedgerClient, LedgerError
from talktime_ledger.wire import TicketIssue

from . import access, refusals
from .admission import Caller, identify, unauthorized
from .bodies import TicketRequest, TokenRequest, bounded, only_for, read
from .census import Census, repeat
from .credentials import Kind, Presented, digest, is_session_id, matches, new_ticket, parse
from .directory import Cache, View
from .following import Following
from .interviews import Guest, Interviews
from .keyring import KeyRing
from .limits import KeyLimits
from .media import Media
from .metrics import CONTENT_TYPE, Metrics
from .places import Issued, Limits, Places
from .problems import Problem
from .rejoining import Asker, Rejoining
from .resume import Resume
from .seats import Seats
from .settings import Settings
from .transport import Sightings
from .webhooks import Webhooks

PREVIOUS_TOKEN = "X-Talktime-Previous-Token"  # noqa: S105 - a header's name
WAITING = "X-Talktime-Waiting"
"""`true`: there is a connection, or one is being made, and nothing is heard on it."""

LEDGER_PATIENCE_SEC = 4.0


@dataclass
class Door:
    """What the handlers share; made anew by every app."""

    settings: Settings
    ledger: LedgerClient
    cache: Cache
    metrics: Metrics
    limits: KeyLimits
    following: Following
    interviews: Interviews
    rejoining: Rejoining
    seats: Seats
    webhooks: Webhooks
    tasks: list[asyncio.Task[None]]


def create_app(settings: Settings, ledger: LedgerClient | None = None) -> FastAPI:
    """The gateway. A ledger client can be given (tests); it is closed with the app."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        client = ledger or LedgerClient(
            settings.ledger_url,
            token_path=settings.token_file,
            timeout_sec=settings.ledger_timeout_sec,
            patience_sec=LEDGER_PATIENCE_SEC,
        )
        timeout = aiohttp.ClientTimeout(total=settings.sfu_timeout_sec)
        async with client, aiohttp.ClientSession(timeout=timeout) as http:
            door = _door(settings, client, http, app.state.metrics)
            app.state.door = door
            try:
                yield
            finally:
                for task in door.tasks:
                    task.cancel()
                await asyncio.gather(*door.tasks, return_exceptions=True)

    app = FastAPI(title="Talktime gateway", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.metrics = Metrics()
    app.add_exception_handler(Problem, access.problem)
    app.add_exception_handler(HTTPException, access.http_exception)
    app.middleware("http")(access.log_and_count)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", PREVIOUS_TOKEN, WAITING],
        expose_headers=["Retry-After"],
    )
    app.post("/v1/projects/{namespace}/{name}/token", status_code=201)(token)
    app.post("/v1/projects/{namespace}/{name}/tickets", status_code=201)(tickets)
    app.get("/v1/sessions/{session_id}")(session_status)
    app.post("/v1/webhooks/livekit/{namespace}/{pool}", status_code=204)(webhook)
    app.get("/healthz")(healthz)
    app.get("/readyz")(readyz)
    app.get("/metrics")(exposition)
    return app


def _door(settings: Settings, ledger: LedgerClient, http: aiohttp.ClientSession, metrics: Metrics) -> Door:
    cache = Cache()
    sightings = Sightings()
    media = Media(http, KeyRing(settings.sfu_keys_dir))
    limits = Limits(settings.token_ttl_sec, settings.rooms_per_node, settings.room_timeout_sec)
    census = Census(
        ledger,
        media,
        cache,
        metrics,
        join_timeout=settings.join_timeout_sec,
        redispatch_after=settings.redispatch_after_sec,
        transport_interval=settings.transport_interval_sec,
        sightings=sightings,
    )

    async def one_round() -> None:
        await census.round(datetime.now(UTC), time.monotonic())

    resume = Resume(ledger, media, cache, metrics)

    async def resume_lost() -> None:
        await resume.round(time.monotonic())

    following, places, random = Following(ledger, cache), Places(limits, metrics), SystemRandom()
    tasks = [
        asyncio.create_task(repeat("directory", following.look, settings.directory_interval_sec)),
        asyncio.create_task(repeat("census", one_round, settings.census_interval_sec)),
        asyncio.create_task(repeat("resume", resume_lost, settings.resume_interval_sec)),
    ]
    return Door(
        settings,
        ledger,
        cache,
        metrics,
        KeyLimits(settings.key_rate_per_sec, settings.key_burst),
        following,
        Interviews(ledger, media, places, metrics, random),
        Rejoining(ledger, media, places, metrics),
        Seats(ledger, media, limits, random),
        Webhooks(ledger, media, cache, sightings),
        tasks,
    )


# -- handlers ----------------------------------------------------------------------------------------------------------


async def token(request: Request, namespace: str, name: str) -> JSONResponse:
    """LiveKit's token endpoint: a new session, a re-ask, or an observer's seat."""
    door: Door = request.app.state.door
    presented = parse(request.headers.get("Authorization"), request.query_params.get("ticket"))
    try:
        issued = await _issue(door, presented, request, namespace, name)
    except Problem as problem:
        _count_refusal(door, namespace, name, problem)
        ticket = presented is None or presented.kind is Kind.TICKET
        # 400 and 401 say what the client itself sent wrong; everything else stays neutral for a ticket (law 8)
        if ticket and problem.status not in (400, 401):
            raise problem.neutral() from problem
        raise
    request.state.session = issued.session
    answer: dict[str, object] = {"server_url": issued.server_url, "participant_token": issued.participant_token}
    if issued.moved is not None:
        answer["moved"] = issued.moved
    return JSONResponse(answer, 201, {"Cache-Control": "no-store"})


async def _issue(door: Door, presented: Presented | None, request: Request, namespace: str, name: str) -> Issued:
    caller, view = _caller(door, presented, namespace, name)
    assert presented is not None
    body = read(TokenRequest, await bounded(request))
    only_for(caller.kind is Kind.SERVER, "participant_key", body.participant_key, "with a server key only")
    if caller.kind is Kind.OBSERVER:
        only_for(False, "participant_name", body.participant_name, "from participants only")
        return await door.seats.observe(view, caller, body.room_name)
    participant_name = body.participant_name or ""
    if body.room_name is not None:
        previous = request.headers.get(PREVIOUS_TOKEN) or body.previous_token
        waiting = request.headers.get(WAITING) == "true"
        asker = Asker(caller, body.room_name, previous, participant_name, waiting)
        return await door.rejoining.rejoin(asker, door.following.view_now)
    only_for(False, "previous_token", body.previous_token, "together with room_name only")
    route = door.interviews.ready_for(view, caller)
    ticket = presented.sha256 if caller.kind is Kind.TICKET else None
    guest = Guest(participant_name, body.participant_key, ticket)
    return await door.interviews.open(caller, route, guest)


async def tickets(request: Request, namespace: str, name: str) -> JSONResponse:
    """A new single-use ticket, for the platform's backend."""
    door: Door = request.app.state.door
    caller, _ = _caller(door, parse(request.headers.get("Authorization"), None), namespace, name)
    if caller.kind is not Kind.SERVER:
        raise unauthorized()
    body = read(TicketRequest, await bounded(request))
    ticket = new_ticket()
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=body.expires_in_sec)
    issue = TicketIssue(
        namespace=namespace,
        project=name,
        sha256=digest(ticket),
        expires_at=expires_at,
        participant_key=body.participant_key,
    )
    try:
        await door.ledger.issue_ticket(issue)
    except LedgerError as error:
        raise refusals.of_open(error) from error
    answer = {"ticket": ticket, "expires_at": expires_at.isoformat().replace("+00:00", "Z")}
    return JSONResponse(answer, 201, {"Cache-Control": "no-store"})


async def session_status(request: Request, session_id: str) -> Response:
    """Status and costs of a session, for the server key of its own Project."""
    door: Door = request.app.state.door
    presented = parse(request.headers.get("Authorization"), None)
    view = door.cache.view
    if presented is None or presented.kind is not Kind.SERVER:
        raise unauthorized()
    if view is None:
        raise Problem(503, "DirectoryMissing", "the gateway has not heard from the ledger yet", retry_after=2)
    if not matches(presented, view.all_keys()):
        raise unauthorized()
    _limit(door, presented)
    if not is_session_id(session_id):
        raise Problem(404, "SessionNotFound", "no such session")
    try:
        session = await door.ledger.session(session_id)
    except LedgerError as error:
        raise refusals.of_session(error) from error
    project = view.projects.get((session.namespace, session.project))
    if project is None or not matches(presented, project.accessKeys):
        raise Problem(404, "SessionNotFound", "no such session")
    request.state.session = session.session_id
    return Response(session.model_dump_json(), media_type="application/json", headers={"Cache-Control": "no-store"})


async def webhook(request: Request, namespace: str, pool: str) -> Response:
    """A signed event of the pool's LiveKit. What is not for us is answered 204 too, or LiveKit would send it again."""
    door: Door = request.app.state.door
    body = await bounded(request)
    try:
        outcome, session = await door.webhooks.take(
            namespace, pool, body, request.headers.get("Authorization"), time.time()
        )
    except Problem as problem:
        door.metrics.webhooks.labels(problem.reason).inc()
        raise
    if session:
        request.state.session = session
    door.metrics.webhooks.labels(outcome.value).inc()
    return Response(status_code=204)


async def healthz(request: Request) -> PlainTextResponse:
    """Alive as long as the background rounds run."""
    door: Door = request.app.state.door
    if any(task.done() for task in door.tasks):
        return PlainTextResponse("a background round has died", 500)
    return PlainTextResponse("ok")


async def readyz(request: Request) -> JSONResponse:
    """Ready as soon as there is a directory; a stale one is still served from, and its age is told."""
    door: Door = request.app.state.door
    age = door.cache.age(time.monotonic())
    stale = age is None or age > 5 * door.settings.directory_interval_sec
    state = {"directory_age_sec": None if age is None else round(age, 1), "stale": stale}
    return JSONResponse(state, 503 if age is None else 200)


async def exposition(request: Request) -> Response:
    """Prometheus exposition."""
    door: Door = request.app.state.door
    age = door.cache.age(time.monotonic())
    door.metrics.directory_age.set(float("nan") if age is None else age)
    return Response(door.metrics.text(), media_type=CONTENT_TYPE)


# -- around them -------------------------------------------------------------------------------------------------------


def _caller(door: Door, presented: Presented | None, namespace: str, name: str) -> tuple[Caller, View]:
    caller = identify(presented, door.cache.view, namespace, name)
    assert presented is not None
    assert door.cache.view is not None
    _limit(door, presented)
    return caller, door.cache.view


def _limit(door: Door, presented: Presented) -> None:
    wait = door.limits.take(presented.sha256, time.monotonic())
    if wait > 0:
        raise Problem(429, "TooManyRequests", "too many requests with this credential", retry_after=wait)


def _count_refusal(door: Door, namespace: str, name: str, problem: Problem) -> None:
    """Only Projects that exist become label values: a client must not be able to grow the series."""
    known = door.cache.view is not None and (namespace, name) in door.cache.view.projects
    labels = (namespace, name) if known else ("", "")
    door.metrics.refusals.labels(*labels, problem.reason).inc()
