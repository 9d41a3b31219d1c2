"""What a job process runs: attach to the session the gateway opened, hold the interview, leave."""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
import time
from datetime import UTC, datetime

from livekit import api
from livekit.agents import JobContext, JobProcess
from talktime_ledger.client import Fenced, LedgerClient, LedgerError
from talktime_ledger.resources.project import Api
from talktime_ledger.wire import Attach, Attachment, Close, ProviderReport

from talktime_agent.interview import Interview
from talktime_agent.push import PodLink
from talktime_agent.settings import AgentSettings, ProviderKeyMissingError, provider_key
from talktime_agent.spool import Spool
from talktime_agent.till import Clock

logger = logging.getLogger("talktime.agent.entrypoint")

# A joining participant waits meanwhile; longer than a restart of the ledger, shorter than their patience.
ATTACH_PATIENCE_SECONDS = 30.0


def prewarm(_: JobProcess) -> None:
    """Runs in every idle process: what would be imported on first use blocks a live session for 0.1 s and more."""
    for module in ("httpcore", "anyio._backends._asyncio"):
        importlib.import_module(module)


def system_clock() -> Clock:
    """The machine's clocks."""
    return Clock(wall=lambda: datetime.now(UTC), monotonic=time.monotonic)


async def entrypoint(ctx: JobContext) -> None:
    """One job = one session. The dispatch metadata says which, and in which epoch."""
    settings = AgentSettings()
    told = json.loads(ctx.job.metadata or "{}")
    session_id, epoch = str(told["session"]), int(told["epoch"])
    ctx.log_context_fields = {"session": session_id, "project": settings.project}
    clock = system_clock()
    async with LedgerClient(
        settings.ledger_url, token_path=settings.token_file, patience_sec=ATTACH_PATIENCE_SECONDS
    ) as ledger:
        sent_at = clock.monotonic()
        try:
            attachment = await ledger.attach(
                session_id, Attach(epoch=epoch, worker=f"{socket.gethostname()}/{ctx.job.id}")
            )
        except LedgerError as error:
            logger.error("not attached", extra={"why": str(error), "status": error.status})
            if not isinstance(error, Fenced):
                # Nobody will come: better no room than one without an interviewer.
                await _delete_room(ctx, session_id)
            ctx.shutdown("not attached")
            return
        try:
            if attachment.session.api is not Api.OPENAI_REALTIME:
                raise ProviderKeyMissingError(f"this agent does not speak {attachment.session.api}")
            key = provider_key(settings.provider_names, attachment.session.provider, os.environ)
        except ProviderKeyMissingError as error:
            await _cannot_serve(ctx, ledger, attachment, str(error))
            return
        link = PodLink(settings.spool_dir)
        spool = Spool(settings.spool_dir, session_id, epoch, clock.wall().timestamp())
        interview = Interview(ctx, settings, ledger, attachment, key, spool, clock, link, sent_at)
        reason = await interview.run(link.events())
    ctx.shutdown(reason)


async def _cannot_serve(ctx: JobContext, ledger: LedgerClient, attachment: Attachment, why: str) -> None:
    told = attachment.session
    logger.error("the provider cannot be used", extra={"why": why})
    report = ProviderReport(provider=told.provider, ok=False, code="no_credentials", message=why)
    close = Close(epoch=told.epoch, n=attachment.grant.n + 1, reason="provider_error")
    try:
        await ledger.report_provider(told.namespace, told.project, report)
        await ledger.close(told.session_id, close)
    except LedgerError as error:
        logger.warning("the ledger was not told", extra={"why": str(error)})
    await _delete_room(ctx, told.session_id)
    ctx.shutdown("provider_error")


async def _delete_room(ctx: JobContext, room: str) -> None:
    try:
        await ctx.api.room.delete_room(api.DeleteRoomRequest(room=room))
    except (api.TwirpError, OSError, TimeoutError) as error:
        logger.warning("the room was not deleted", extra={"why": str(error)})
