"""The room service of one LiveKit: create, list, delete, dispatch. Names what went wrong, decides nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
from livekit.api import LiveKitAPI, ServerError, ServerErrorCode
from livekit.protocol.agent import JobStatus
from livekit.protocol.agent_dispatch import AgentDispatch, CreateAgentDispatchRequest, RoomAgentDispatch
from livekit.protocol.models import ParticipantInfo, TrackType
from livekit.protocol.room import (
    CreateRoomRequest,
    DeleteRoomRequest,
    ListParticipantsRequest,
    ListRoomsRequest,
    RoomParticipantIdentity,
)

from .tokens import OBSERVERS, SfuKeys

EMPTY_TIMEOUT_SEC = 60
DEPARTURE_TIMEOUT_SEC = 60
NAMES_PER_LIST = 200
NOBODY = "talktime-nobody"
"""An agent name that no worker has."""


class SfuUnavailable(Exception):  # noqa: N818 - a state of the world
    """The LiveKit could not be asked, or did not do it. What is true there is unknown."""


@dataclass(frozen=True)
class Present:
    """A connection in a room. ``joined_at`` is unix seconds by the SFU's clock; ``sid`` is unique per connection;
    ``videos`` are the video tracks that it sends now.
    """

    identity: str
    sid: str
    joined_at: float
    agent: bool
    videos: int = 0


@dataclass(frozen=True)
class Dispatch:
    """An agent dispatch: ``alive`` when a job of it waits or runs. ``created_at`` is unix seconds."""

    id: str
    metadata: str
    alive: bool
    created_at: float


@dataclass(frozen=True)
class NewRoom:
    """What a session's room needs. ``node_id`` empty: LiveKit chooses."""

    session: str
    node_id: str
    participants: int
    agent_name: str
    epoch: int = 1
    metadata: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", dispatch_metadata(self.session, self.epoch))


def dispatch_metadata(session: str, epoch: int) -> str:
    """What the agent's job carries."""
    return json.dumps({"session": session, "epoch": epoch})


class _Missing(SfuUnavailable):
    """The LiveKit says: no such room, participant or dispatch."""


class _Refused(SfuUnavailable):
    """The LiveKit answers, and did not do it."""


@contextmanager
def _asking() -> Iterator[None]:
    """Turns what the library raises into SfuUnavailable, _Missing or _Refused."""
    try:
        yield
    except ServerError as error:
        raise (_Missing if error.code == ServerErrorCode.NOT_FOUND else _Refused)(_text(error)) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise SfuUnavailable(_text(error)) from error


class Rooms:
    """One LiveKit, by its internal URL and keys. Every method raises SfuUnavailable."""

    def __init__(self, http: aiohttp.ClientSession, url: str, keys: SfuKeys) -> None:
        api = LiveKitAPI(url, keys.api_key, keys.api_secret, session=http)
        self._rooms = api.room
        self._dispatches = api.agent_dispatch

    async def create(self, room: NewRoom, within_sec: float | None = None) -> None:
        """CreateRoom on the chosen node, with the agent's dispatch. ``within_sec``: shorter than the usual patience."""
        request = CreateRoomRequest(
            name=room.session,
            node_id=room.node_id,
            empty_timeout=EMPTY_TIMEOUT_SEC,
            departure_timeout=DEPARTURE_TIMEOUT_SEC,
            max_participants=room.participants + 1 + len(OBSERVERS),
            agents=[RoomAgentDispatch(agent_name=room.agent_name, metadata=room.metadata)],
        )
        with _asking():
            async with asyncio.timeout(within_sec):
                await self._rooms.create_room(request)

    async def adopt(self, room: str, node_id: str) -> None:
        """CreateRoom of one that is there: where its node is known to be dead the given one holds it then."""
        # Else the dispatch that Redis remembers would send an agent of the old epoch.
        nobody = [RoomAgentDispatch(agent_name=NOBODY)]
        with _asking():
            await self._rooms.create_room(CreateRoomRequest(name=room, node_id=node_id, agents=nobody))

    async def delete(self, room: str) -> bool:
        """DeleteRoom; False when there was none."""
        try:
            with _asking():
                await self._rooms.delete_room(DeleteRoomRequest(room=room))
        except _Missing:
            return False
        except _Refused:
            # A room is deleted by its node. One whose node died stays in Redis for a day, and no call about it works,
            # until a node that lives has taken it over: LiveKit lets one do so some 5 s after the death.
            with _asking():
                await self._rooms.create_room(CreateRoomRequest(name=room))
                await self._rooms.delete_room(DeleteRoomRequest(room=room))
        return True

    async def names(self, only: Sequence[str] | None = None) -> set[str]:
        """Names of the rooms that exist: all of them, or those of ``only``."""
        chunks: list[Sequence[str]] = [()]
        if only is not None:
            chunks = [only[i : i + NAMES_PER_LIST] for i in range(0, len(only), NAMES_PER_LIST)]
        found: set[str] = set()
        for chunk in chunks:
            with _asking():
                answer = await self._rooms.list_rooms(ListRoomsRequest(names=chunk))
            found |= {room.name for room in answer.rooms}
        return found

    async def participants(self, room: str) -> tuple[Present, ...]:
        """Who is connected now, hidden ones and agents included; empty for a room that does not exist."""
        try:
            with _asking():
                answer = await self._rooms.list_participants(ListParticipantsRequest(room=room))
        except _Missing:
            return ()
        gone = ParticipantInfo.State.DISCONNECTED
        return tuple(_present(info) for info in answer.participants if info.state != gone)

    async def remove(self, room: str, identity: str) -> None:
        """Take a participant out of the room; fine when it is not there."""
        with suppress(_Missing), _asking():
            await self._rooms.remove_participant(RoomParticipantIdentity(room=room, identity=identity))

    async def dispatches(self, room: str) -> tuple[Dispatch, ...]:
        """The room's agent dispatches, asked of the node that holds the room."""
        with _asking():
            return tuple(_dispatch(item) for item in await self._dispatches.list_dispatch(room))

    async def dispatch(self, room: str, name: str, metadata: str) -> str:
        """Ask for an agent once more; the id of the new dispatch."""
        request = CreateAgentDispatchRequest(room=room, agent_name=name, metadata=metadata)
        with _asking():
            return str((await self._dispatches.create_dispatch(request)).id)

    async def undispatch(self, room: str, dispatch_id: str) -> None:
        """Take a dispatch back (and end its job, if any); fine when it is not there."""
        with suppress(_Missing), _asking():
            await self._dispatches.delete_dispatch(dispatch_id, room)


def _present(info: ParticipantInfo) -> Present:
    joined = info.joined_at_ms / 1000 if info.joined_at_ms else float(info.joined_at)
    videos = sum(track.type == TrackType.VIDEO and not track.muted for track in info.tracks)
    return Present(info.identity, info.sid, joined, info.kind == ParticipantInfo.Kind.AGENT, videos)


def _dispatch(item: AgentDispatch) -> Dispatch:
    ended = {JobStatus.JS_SUCCESS, JobStatus.JS_FAILED}
    alive = any(job.state.status not in ended for job in item.state.jobs)
    return Dispatch(item.id, item.metadata, alive, item.state.created_at / 1e9)


def _text(error: BaseException) -> str:
    """Short and without secrets: the class and the server's own words."""
    return f"{type(error).__name__}: {error}"[:200]
