"""Pools, and the directory that gateway replicas read and cache."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response

from talktime_ledger.desk.errors import DeskError
from talktime_ledger.server.auth import Role
from talktime_ledger.server.context import Parts, Who, require
from talktime_ledger.store import projects
from talktime_ledger.store.projects import Project
from talktime_ledger.wire import (
    AccessKey,
    Directory,
    DirectoryPool,
    DirectoryProject,
    DirectoryProvider,
    PoolPush,
    PoolRef,
    ProblemReason,
)

router = APIRouter()


@router.put("/pools/{namespace}/{name}")
async def put_pool(namespace: str, name: str, push: PoolPush, parts: Parts, caller: Who) -> dict[str, str]:
    """The operator tells about an SFUPool."""
    require(caller, Role.OPERATOR)
    async with parts.transaction() as connection:
        changed = await connection.fetchval(
            """INSERT INTO pools (namespace, name, body) VALUES ($1, $2, $3)
               ON CONFLICT (namespace, name) DO UPDATE SET body = $3 WHERE pools.body <> $3 RETURNING TRUE""",
            namespace,
            name,
            push.model_dump(mode="json"),
        )
        if changed:
            await projects.bump(connection, "directory")
    return {}


@router.get("/pools/{namespace}/{name}")
async def get_pool(namespace: str, name: str, parts: Parts, caller: Who) -> PoolPush:
    """What was told last about an SFUPool: the operator's memory when it could not write its status."""
    require(caller, Role.OPERATOR)
    async with parts.transaction() as connection:
        body = await connection.fetchval("SELECT body FROM pools WHERE namespace = $1 AND name = $2", namespace, name)
    if body is None:
        raise DeskError(ProblemReason.NOT_FOUND, "no such pool")
    return PoolPush.model_validate(body)


@router.delete("/pools/{namespace}/{name}")
async def delete_pool(namespace: str, name: str, parts: Parts, caller: Who) -> dict[str, str]:
    """The pool is gone."""
    require(caller, Role.OPERATOR)
    async with parts.transaction() as connection:
        if await connection.fetchval(
            "DELETE FROM pools WHERE namespace = $1 AND name = $2 RETURNING TRUE", namespace, name
        ):
            await projects.bump(connection, "directory")
    return {}


@router.get("/directory", responses={304: {"description": "unchanged"}}, response_model=Directory)
async def directory(parts: Parts, caller: Who, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """All Projects and pools."""
    require(caller, Role.GATEWAY)
    async with parts.transaction() as connection:
        etag = f'"{await projects.revision(connection, "directory")}"'
        if if_none_match == etag:
            return Response(status_code=304, headers={"ETag": etag})
        found = await projects.everything(connection)
        pools = await connection.fetch("SELECT namespace, name, body FROM pools ORDER BY namespace, name")
    body = Directory(
        projects=tuple(directory_project(project, parts.settings.namespace) for project in found),
        pools=tuple(
            DirectoryPool.model_validate({**row["body"], "namespace": row["namespace"], "name": row["name"]})
            for row in pools
        ),
    )
    return Response(body.model_dump_json(), media_type="application/json", headers={"ETag": etag})


def directory_project(project: Project, pool_namespace: str) -> DirectoryProject:
    """A Project as the gateway sees it; pools live in the release namespace."""
    spec = project.spec
    return DirectoryProject(
        namespace=project.namespace,
        name=project.name,
        paused=project.paused,
        deleted=project.deleted,
        providers=tuple(
            DirectoryProvider(
                name=one.name, api=one.api, model=one.model, weight=one.weight, tier=one.tier, endpoint=one.endpoint
            )
            for one in spec.providers
        ),
        pool=PoolRef(namespace=pool_namespace, name=spec.media.pool_ref.name),
        accessKeys=tuple(AccessKey.model_validate(key) for key in project.access_keys),
        maxParticipants=spec.media.max_participants,
        microphoneOnly=spec.media.microphone_only,
        language=spec.agent.language,
    )
