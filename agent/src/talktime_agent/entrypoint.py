"""What a job process runs: attach to the session the gateway opened, hold the interview, leave."""

from __future__ import annotations

import json
import logging

from livekit import api
from livekit.agents import JobContext
from talktime_ledger.client import Fenced, LedgerError

from talktime_agent.budgeted import NotServableError, budgeted
from talktime_agent.interview import Interview
from talktime_agent.settings import AgentSettings
from talktime_agent.succession import agents_in, put_out

logger = logging.getLogger("talktime.agent.entrypoint")


async def entrypoint(ctx: JobContext) -> None:
    """One job = one session. The dispatch metadata says which, and in which epoch."""
    settings = AgentSettings()
    told = json.loads(ctx.job.metadata)
    room, reason = str(told["session"]), "not attached"
    predecessors = await agents_in(ctx.api, room) if int(told["epoch"]) > 1 else ()
    try:
        async with budgeted(ctx, settings) as budget:
            await put_out(ctx.api, room, predecessors)
            reason = await Interview(ctx, settings, budget).run()
    except Fenced:
        logger.warning("not attached: another agent has the session")
    except (LedgerError, NotServableError) as error:
        logger.error("not attached", extra={"why": str(error)})
        # Nobody will come: better no room than one without an interviewer.
        await _delete_room(ctx, room)
    ctx.shutdown(reason)


async def _delete_room(ctx: JobContext, room: str) -> None:
    try:
        await ctx.api.room.delete_room(api.DeleteRoomRequest(room=room))
    except (api.TwirpError, OSError, TimeoutError) as error:
        logger.warning("the room was not deleted", extra={"why": str(error)})
