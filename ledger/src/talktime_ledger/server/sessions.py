"""Sessions: open, read, attach, use, close, claim, transport."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response

from talktime_ledger.cards import snapshot_core, snapshot_wire
from talktime_ledger.desk import closing, opening, using
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.granting import Renewal
from talktime_ledger.desk.transport import report_transport
from talktime_ledger.server.auth import Caller, Role
from talktime_ledger.server.context import Ledger, Parts, Who, clock, require, require_project
from talktime_ledger.server.hub import notify
from talktime_ledger.server.views import costs_of, project_names, session_wire, unended_wire
from talktime_ledger.store import projects, sessions
from talktime_ledger.store.database import Connection
from talktime_ledger.store.presence import unended
from talktime_ledger.store.projects import Project
from talktime_ledger.store.sessions import Locked, SessionState
from talktime_ledger.wire import (
    Attach,
    Attachment,
    Claim,
    Close,
    CostList,
    Grant,
    ProblemReason,
    RateSnapshotWire,
    Session,
    SessionConfig,
    SessionList,
    SessionOpen,
    Transport,
    UnendedList,
    Use,
)

router = APIRouter()


@router.post("/sessions", status_code=201)
async def open_session(request: SessionOpen, parts: Parts, caller: Who) -> Session:
    """Admission and the first reservation."""
    require(caller, Role.GATEWAY)

    async def work(connection: Connection) -> SessionState:
        book, now = await parts.rates.book(connection), await clock(connection)
        return await opening.open_session(connection, request, book, now, parts.settings.valid_sec)

    try:
        session = await parts.racing(work)
    except DeskError as error:
        if error.status == 402:
            await _count_refusal(parts, request, error.reason)
        raise
    parts.hub.changed(request.namespace, request.project)
    return session_wire(session, (request.namespace, request.project))


async def _count_refusal(parts: Ledger, request: SessionOpen, reason: ProblemReason) -> None:
    async with parts.transaction() as connection:
        project = await projects.find(connection, request.namespace, request.project)
        if project is not None:
            await projects.refused(connection, project.id, reason.value)
    parts.hub.changed(request.namespace, request.project)


@router.get("/sessions/unended")
async def unended_connections(parts: Parts, caller: Who) -> UnendedList:
    """What a gateway that has just started has to know: whom nobody has seen leave, also of sessions that closed."""
    require(caller, Role.GATEWAY)
    async with parts.reading() as connection:
        rows = await unended(connection)
    return UnendedList(sessions=unended_wire(rows))


@router.get("/sessions/{session_id}")
async def get_session(session_id: UUID, parts: Parts, caller: Who) -> Session:
    """One session with its costs."""
    async with parts.transaction() as connection:
        session, project = await _owned(connection, session_id, caller)
        costs = await costs_of(connection, [session_id])
    return session_wire(session, (project.namespace, project.name), costs.get(session_id, ()))


@router.get("/sessions")
async def list_sessions(
    parts: Parts,
    caller: Who,
    namespace: str | None = None,
    project: str | None = None,
    state: Literal["open", "closed"] | None = None,
    limit: int = Query(1000, ge=1, le=10_000),
) -> SessionList:
    """Newest first; agents see their own Project's."""
    if caller.role is Role.AGENT:
        namespace, project = caller.namespace, caller.project
    async with parts.transaction() as connection:
        names = await project_names(connection)
        wanted = [key for key, (ns, name) in names.items() if namespace in (None, ns) and project in (None, name)]
        found: list[SessionState] = []
        if len(wanted) == len(names):
            found = list(await sessions.listing(connection, state=state, limit=limit))
        else:
            for project_id in wanted:
                found += await sessions.listing(connection, project_id=project_id, state=state, limit=limit)
    found.sort(key=lambda one: one.opened_at, reverse=True)
    return SessionList(sessions=tuple(session_wire(one, names[one.project_id]) for one in found[:limit]))


@router.post("/sessions/{session_id}/attach")
async def attach(session_id: UUID, request: Attach, parts: Parts, caller: Who) -> Attachment:
    """An agent takes up a session."""
    require(caller, Role.AGENT)

    async def work(connection: Connection) -> tuple[Renewal, Project]:
        found = await _locked(connection, session_id, caller)
        renewal = await using.attach(connection, found, request, parts.settings.valid_sec)
        await _tell(connection, found.project, renewal)
        return renewal, found.project

    renewal, project = await parts.racing(work)
    parts.hub.changed(project.namespace, project.name)
    session = renewal.session
    rates = [snapshot_core(RateSnapshotWire.model_validate(raw)) for raw in session.rates]
    return Attachment(
        session=session_wire(session, (project.namespace, project.name)),
        config=SessionConfig.model_validate(session.config),
        grant=renewal.grant,
        rates=tuple(snapshot_wire(one) for one in rates),
    )


@router.post("/sessions/{session_id}/use", response_model=Grant)
async def use(session_id: UUID, request: Use, parts: Parts, caller: Who) -> Response:
    """Posts usage, renews."""
    require(caller, Role.AGENT)

    async def work(connection: Connection) -> tuple[Renewal | Grant | using.Refusal, Project]:
        found = await _locked(connection, session_id, caller)
        book = await parts.rates.book(connection, found.rates_revision)
        result = await using.use(connection, found, request, book, parts.settings.valid_sec)
        if isinstance(result, Renewal):
            await _tell(connection, found.project, result)
        return result, found.project

    result, project = await parts.racing(work)
    parts.hub.changed(project.namespace, project.name)
    if isinstance(result, using.Refusal):
        raise result.error
    grant = result.grant if isinstance(result, Renewal) else result
    # Our own model: the framework need not validate it once more.
    return Response(grant.model_dump_json(by_alias=True), media_type="application/json")


@router.post("/sessions/{session_id}/close")
async def close(session_id: UUID, request: Close, parts: Parts, caller: Who) -> CostList:
    """Ends a session; again is harmless."""
    require(caller, Role.AGENT, Role.GATEWAY)

    async def work(connection: Connection) -> tuple[closing.Closed | using.Refusal, Project, CostList | None]:
        found = await _locked(connection, session_id, caller)
        project = found.project
        book = await parts.rates.book(connection, found.rates_revision)
        result = await closing.close(connection, found, request, book, by_agent=caller.role is Role.AGENT)
        if isinstance(result, using.Refusal):
            return result, project, None
        if result.first:
            address = f"push:{project.namespace}/{project.name}"
            data = {"session_id": str(session_id), "reason": request.reason}
            await notify(connection, address, "closed", data)
        costs = (await costs_of(connection, [session_id])).get(session_id, ())
        return result, project, CostList(session_id=str(session_id), posted=result.session.posted, costs=costs)

    result, project, answer = await parts.racing(work)
    parts.hub.changed(project.namespace, project.name)
    if isinstance(result, using.Refusal):
        raise result.error
    assert answer is not None
    return answer


@router.post("/sessions/{session_id}/claim")
async def claim(session_id: UUID, request: Claim, parts: Parts, caller: Who) -> Session:
    """Raises the epoch; the old agent is told to stop."""
    require(caller, Role.GATEWAY)

    async def work(connection: Connection) -> tuple[SessionState, Project]:
        found = await _locked(connection, session_id, caller)
        project = found.project
        session = await using.claim(connection, found, request, parts.settings.valid_sec)
        address = f"push:{project.namespace}/{project.name}"
        await notify(connection, address, "fence", {"session_id": str(session_id), "epoch": session.epoch})
        return session, project

    session, project = await parts.racing(work)
    parts.hub.changed(project.namespace, project.name)
    return session_wire(session, (project.namespace, project.name))


@router.post("/sessions/{session_id}/transport")
async def transport(session_id: UUID, request: Transport, parts: Parts, caller: Who) -> dict[str, str]:
    """Participant seconds, cumulative; late ones too."""
    require(caller, Role.GATEWAY)

    async def work(connection: Connection) -> Project:
        found = await _locked(connection, session_id, caller)
        book = await parts.rates.book(connection, found.rates_revision)
        await report_transport(connection, found.project, found.session, request, book, found.now)
        return found.project

    project = await parts.racing(work)
    parts.hub.changed(project.namespace, project.name)
    return {}


async def _owned(connection: Connection, session_id: UUID, caller: Caller) -> tuple[SessionState, Project]:
    """The session and its Project, if the caller may touch it."""
    session = await sessions.read(connection, session_id)
    if session is None:
        raise DeskError(ProblemReason.NOT_FOUND, f"no session {session_id}")
    project = await projects.by_id(connection, session.project_id)
    require_project(caller, project.namespace, project.name)
    return session, project


async def _locked(connection: Connection, session_id: UUID, caller: Caller) -> Locked:
    """The session under its lock, if the caller may touch it."""
    found = await using.locked(connection, session_id)
    require_project(caller, found.project.namespace, found.project.name)
    return found


async def _tell(connection: Connection, project: Project, renewal: Renewal) -> None:
    """When the project's soft limit was reached by this renewal, all its sessions learn at once."""
    if renewal.latched:
        await notify(connection, f"push:{project.namespace}/{project.name}", "limits", {"reason": "ProjectSoft"})
