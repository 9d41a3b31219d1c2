"""Who takes a session up is alone in its room: agents of earlier epochs are put out before it joins.

The gateway removes the agent it replaces, and that one leaves when it hears that it is fenced. It may do neither: a
connection that is being mended brings it into the room when the gateway has looked, and a frozen process hears nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import aiohttp
from livekit import api
from livekit.protocol.models import ParticipantInfo

logger = logging.getLogger("talktime.agent.succession")

# A participant waits for us meanwhile.
ATTEMPT_SECONDS = 1.0


async def agents_in(livekit: api.LiveKitAPI, room: str) -> tuple[str, ...]:
    """Identities of the agents in the room now; none where it cannot be asked."""
    try:
        async with asyncio.timeout(ATTEMPT_SECONDS):
            listed = await livekit.room.list_participants(api.ListParticipantsRequest(room=room))
    except (api.TwirpError, aiohttp.ClientError, OSError, TimeoutError) as error:
        logger.warning("it is not known who is in the room", extra={"why": str(error)})
        return ()
    return tuple(one.identity for one in listed.participants if one.kind == ParticipantInfo.Kind.AGENT)


async def put_out(livekit: api.LiveKitAPI, room: str, predecessors: Iterable[str]) -> None:
    """Removes them. Only who was there before we attached is surely of an earlier epoch than ours."""
    for identity in predecessors:
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await livekit.room.remove_participant(api.RoomParticipantIdentity(room=room, identity=identity))
        except api.TwirpError as error:
            if error.code != api.TwirpErrorCode.NOT_FOUND:
                logger.warning("an earlier agent was not removed", extra={"why": str(error), "agent": identity})
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            logger.warning("an earlier agent was not removed", extra={"why": str(error), "agent": identity})
        else:
            logger.warning("an earlier agent was still there", extra={"agent": identity})
