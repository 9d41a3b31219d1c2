"""Lost agents, heartbeats of pods, checkpoints of conversations."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Annotated
from uuid import UUID

import asyncpg  # type: ignore[import-untyped] # ships no types
from fastapi import APIRouter, Path
from pydantic import ValidationError

from talktime_ledger.desk import losing, using
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.server.auth import Role
from talktime_ledger.server.context import Ledger, Parts, Who, require, require_project
from talktime_ledger.server.hub import notify
from talktime_ledger.server.projects import existing
from talktime_ledger.server.sealing import Sealer
from talktime_ledger.server.steady import TICK_SEC
from talktime_ledger.server.views import project_names, session_wire
from talktime_ledger.store import resuming
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Project
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.wire import ProblemReason, Session, SessionList
from talktime_ledger.wire.resume import Checkpoint, ContextItem, Kept, Lost

log = logging.getLogger(__name__)
router = APIRouter()

# After we were away every living pod has said so again within this.
SLACK_SEC = 4.0

Host = Annotated[str, Path(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._-]+$")]


@router.get("/sessions/lost")
async def lost_sessions(parts: Parts, caller: Who) -> SessionList:
    """Open sessions that lost their agent and wait for a claim: reported by the pod, or the pod itself is silent."""
    require(caller, Role.GATEWAY)
    after = parts.settings.lost_after_sec
    heard = parts.steady.seconds(time.monotonic()) >= after + SLACK_SEC
    async with parts.transaction() as connection:
        found = {session.id: session for session in await resuming.reported(connection)}
        if heard:
            found |= {session.id: session for session in await resuming.silent(connection, after)}
        names = await project_names(connection) if found else {}
    return SessionList(sessions=tuple(session_wire(one, names[one.project_id]) for one in found.values()))


@router.post("/sessions/{session_id}/lost")
async def lost(session_id: UUID, request: Lost, parts: Parts, caller: Who) -> Session:
    """A pod tells that an agent's process died; the session stays open."""
    require(caller, Role.AGENT)

    async def work(connection: Connection) -> tuple[SessionState | using.Refusal, Project]:
        found = await using.locked(connection, session_id)
        require_project(caller, found.project.namespace, found.project.name)
        book = await parts.rates.book(connection, found.rates_revision)
        result = await losing.lose(connection, found, request, book)
        if isinstance(result, SessionState):
            address = f"push:{found.project.namespace}/{found.project.name}"
            # Whoever still holds this epoch is not its agent any more.
            await notify(connection, address, "fence", {"session_id": str(session_id), "epoch": result.epoch + 1})
        return result, found.project

    result, project = await parts.racing(work)
    parts.hub.changed(project.namespace, project.name)
    if isinstance(result, using.Refusal):
        raise result.error
    return session_wire(result, (project.namespace, project.name))


@router.put("/projects/{namespace}/{name}/workers/{host}")
async def heartbeat(namespace: str, name: str, host: Host, parts: Parts, caller: Who) -> dict[str, str]:
    """A pod is alive."""
    require(caller, Role.AGENT)
    require_project(caller, namespace, name)
    async with parts.transaction() as connection:
        project = await existing(connection, namespace, name)
        await resuming.beat(connection, project.id, host)
    return {}


@router.put("/sessions/{session_id}/context")
async def put_context(session_id: UUID, request: Checkpoint, parts: Parts, caller: Who) -> Kept:
    """Keeps what was said so far, encrypted, until the session ends. Only of the present agent."""
    require(caller, Role.AGENT)
    body = json.dumps([item.model_dump() for item in request.items], ensure_ascii=False).encode()
    async with parts.transaction() as connection:
        found = await using.locked(connection, session_id)
        require_project(caller, found.project.namespace, found.project.name)
        session = found.session
        if session.state == "closed" or request.epoch != session.epoch:
            raise using.gone(session, request.epoch)
        if not session.config.get("keepContext") or not parts.sealer.able:
            return Kept(kept=False)
        await resuming.keep_context(connection, session_id, request.epoch, parts.sealer.seal(session_id, body))
    return Kept(kept=True)


@router.get("/sessions/{session_id}/context")
async def get_context(session_id: UUID, parts: Parts, caller: Who) -> Checkpoint:
    """What was said so far; empty when nothing was kept."""
    require(caller, Role.AGENT)
    async with parts.transaction() as connection:
        found = await using.locked(connection, session_id)
        require_project(caller, found.project.namespace, found.project.name)
        sealed = await resuming.context(connection, session_id)
    return Checkpoint(epoch=found.session.epoch, items=_items(parts.sealer, session_id, sealed))


def _items(sealer: Sealer, session_id: UUID, sealed: bytes | None) -> tuple[ContextItem, ...]:
    if sealed is None:
        return ()
    plain = sealer.open(session_id, sealed)
    if plain is None:
        log.warning("a checkpoint cannot be opened: its key is gone", extra={"session": str(session_id)})
        return ()
    try:
        return tuple(ContextItem.model_validate(item) for item in json.loads(plain))
    except (ValueError, ValidationError) as error:
        raise DeskError(ProblemReason.UNAVAILABLE, "a checkpoint cannot be read") from error


async def listen(ledger: Ledger) -> None:
    """Task: keeps `steady` true to the facts, and forgets pods long gone."""
    forgotten_at = time.monotonic()
    while True:
        try:
            async with asyncio.timeout(2), ledger.transaction() as connection:
                await connection.fetchval("SELECT 1")
                if time.monotonic() - forgotten_at > resuming.FORGET_SEC / 4:
                    await resuming.forget_beats(connection)
                    forgotten_at = time.monotonic()
            ledger.steady.tick(time.monotonic())
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            ledger.steady.broken()
        await asyncio.sleep(TICK_SEC)
