"""Projects, rate cards, clips, provider reports."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from talktime_ledger.cards import rate_card
from talktime_ledger.core.rates import PriceUnknown
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.pushing import delete_project as delete
from talktime_ledger.desk.pushing import push_project, status
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.server.auth import Role
from talktime_ledger.server.context import Parts, Who, clock, require, require_project
from talktime_ledger.server.hub import notify
from talktime_ledger.store import projects
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Project
from talktime_ledger.wire import ProblemReason, ProjectList, ProjectPush, ProjectStatus, ProviderReport, Sha256

router = APIRouter()

MAX_CLIP_BYTES = 4 * 1024 * 1024


async def existing(connection: Connection, namespace: str, name: str) -> Project:
    """The Project, deleted or not; DeskError NotFound."""
    project = await projects.find(connection, namespace, name)
    if project is None:
        raise DeskError(ProblemReason.NOT_FOUND, f"no Project {namespace}/{name}")
    return project


@router.put("/projects/{namespace}/{name}")
async def put_project(namespace: str, name: str, push: ProjectPush, parts: Parts, caller: Who) -> ProjectStatus:
    """The operator tells about a Project."""
    require(caller, Role.OPERATOR)

    async def work(connection: Connection) -> ProjectStatus:
        now = await clock(connection)
        project, lively = await push_project(connection, namespace, name, push, caller.subject, now)
        if lively:
            event = "paused" if project.paused else "limits"
            await notify(connection, f"push:{namespace}/{name}", event, {"generation": project.generation})
        return await status(connection, project, await parts.rates.book(connection), now)

    result = await parts.racing(work)
    parts.hub.changed(namespace, name)
    return result


@router.delete("/projects/{namespace}/{name}")
async def delete_project(namespace: str, name: str, parts: Parts, caller: Who) -> dict[str, str]:
    """No new sessions; live ones are told and wrap up; rows stay. Unknown names are fine."""
    require(caller, Role.OPERATOR)
    async with parts.transaction() as connection:
        if await delete(connection, namespace, name, caller.subject):
            await notify(connection, f"push:{namespace}/{name}", "limits", {"reason": "Deleted"})
        await projects.bump(connection, "directory")
    parts.hub.changed(namespace, name)
    return {}


@router.get("/projects/{namespace}/{name}")
async def get_project(namespace: str, name: str, parts: Parts, caller: Who) -> ProjectStatus:
    """Status of one Project."""
    require(caller, Role.OPERATOR, Role.CONSOLE, Role.GATEWAY)
    async with parts.transaction() as connection:
        project = await existing(connection, namespace, name)
        return await status(connection, project, await parts.rates.book(connection), await clock(connection))


@router.get("/projects")
async def list_projects(parts: Parts, caller: Who) -> ProjectList:
    """Status of all Projects, deleted ones too (their money records stay)."""
    require(caller, Role.OPERATOR, Role.CONSOLE)
    async with parts.transaction() as connection:
        now, book = await clock(connection), await parts.rates.book(connection)
        found = await projects.everything(connection)
        return ProjectList(projects=tuple([await status(connection, one, book, now) for one in found]))


@router.put("/rate-cards/{name}")
async def put_rate_card(name: str, spec: RateCardSpec, parts: Parts, caller: Who) -> dict[str, str]:
    """A card that cannot be resolved is refused with the reason, and an older one of that name stays."""
    require(caller, Role.OPERATOR)
    try:
        rate_card(name, spec)
    except PriceUnknown as error:
        raise DeskError(ProblemReason.INVALID, str(error)) from error
    body = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    async with parts.transaction() as connection:
        changed = await connection.fetchval(
            """INSERT INTO rate_cards (name, spec) VALUES ($1, $2)
               ON CONFLICT (name) DO UPDATE SET spec = $2, updated_at = NOW() WHERE rate_cards.spec <> $2
               RETURNING TRUE""",
            name,
            body,
        )
        if changed:
            await _rates_changed(connection)
    return {}


@router.delete("/rate-cards/{name}")
async def delete_rate_card(name: str, parts: Parts, caller: Who) -> dict[str, str]:
    """New sessions of its model are refused; open ones keep the price they were opened with."""
    require(caller, Role.OPERATOR)
    async with parts.transaction() as connection:
        if await connection.fetchval("DELETE FROM rate_cards WHERE name = $1 RETURNING TRUE", name):
            await _rates_changed(connection)
    return {}


async def _rates_changed(connection: Connection) -> None:
    await projects.bump(connection, "rates")
    for project in await projects.everything(connection):
        data = {"namespace": project.namespace, "name": project.name}
        await notify(connection, "changes", "project", data)


@router.post("/projects/{namespace}/{name}/provider-report")
async def report_provider(
    namespace: str, name: str, report: ProviderReport, parts: Parts, caller: Who
) -> dict[str, str]:
    """What an agent saw at a provider."""
    require(caller, Role.AGENT)
    require_project(caller, namespace, name)
    async with parts.transaction() as connection:
        project = await existing(connection, namespace, name)
        changed = await projects.report_provider(
            connection, project.id, report.provider, report.ok, report.code, report.message
        )
    if changed:
        parts.hub.changed(namespace, name)
    return {}


@router.get("/projects/{namespace}/{name}/clips/{key}", response_class=Response)
async def get_clip(namespace: str, name: str, key: Sha256, parts: Parts, caller: Who) -> Response:
    """A rendered closing clip."""
    require(caller, Role.AGENT)
    require_project(caller, namespace, name)
    async with parts.transaction() as connection:
        project = await existing(connection, namespace, name)
        pcm = await connection.fetchval("SELECT pcm FROM clips WHERE project_id = $1 AND key = $2", project.id, key)
    if pcm is None:
        raise DeskError(ProblemReason.NOT_FOUND, "no such clip")
    return Response(pcm, media_type="audio/pcm")


@router.put("/projects/{namespace}/{name}/clips/{key}")
async def put_clip(
    namespace: str, name: str, key: Sha256, request: Request, parts: Parts, caller: Who
) -> dict[str, str]:
    """Keeps a rendered closing clip; the first one stays."""
    require(caller, Role.AGENT)
    require_project(caller, namespace, name)
    pcm = await request.body()
    if not pcm or len(pcm) > MAX_CLIP_BYTES or len(pcm) % 2:
        raise DeskError(ProblemReason.INVALID, "a clip is s16le PCM of 1 byte to 4 MiB")
    async with parts.transaction() as connection:
        project = await existing(connection, namespace, name)
        await connection.execute(
            "INSERT INTO clips (project_id, key, pcm) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", project.id, key, pcm
        )
    return {}
