"""A look at a node's media path: joins a room of its own there and exchanges ICE checks over UDP with the node's port.

livekit-server answers such a check (STUN Binding with the credentials of the join, RFC 8445 section 7) from the UDP
socket and the ICE agent that carry participants' audio. So an answer says that datagrams come through both ways; no
audio is sent. TCP and TURN are not tried: UDP that is dropped while HTTP answers has to be seen. A look goes on for a
while after the first answer: what is lost between two looks is seen by the second one only.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlencode

import aiohttp
import httpx
import jwt
from google.protobuf.message import DecodeError
from livekit.protocol.models import DisconnectReason
from livekit.protocol.rtc import JoinResponse, LeaveRequest, SessionDescription, SignalRequest, SignalResponse

from talktime_operator.media_checks import Checks, Offered, checking
from talktime_operator.pools.health import Answer
from talktime_operator.sfu_probe import TOKEN_SECONDS, LiveKitAt, Reply

PROTOCOL = "15"
"""Signalling of two peer connections; livekit-server then sends an offer with its ICE credentials at once."""

IDENTITY = "talktime-probe"
JOIN_SECONDS = 1.2
"""What making and joining a room may take."""

CLOSE_SECONDS = 0.3
"""What a server may take to close signalling, and again to delete the room."""


def accept(sdp: str, ufrag: str, password: str, fingerprint: str) -> str:
    """An answer that takes the data channel's section and no other. Nobody speaks DTLS after it."""
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    sections = re.split(r"^(?=m=)", sdp, flags=re.MULTILINE)[1:]
    taken = [mid(s) for s in sections if s.startswith("m=application")]
    lines.append(f"a=group:BUNDLE {' '.join(taken)}")
    for section in sections:
        media, _, rest = section.splitlines()[0].partition(" ")
        kept = media == "m=application"
        lines += [
            f"{media} {'9' if kept else '0'} {rest.partition(' ')[2]}",
            "c=IN IP4 0.0.0.0",
            f"a=mid:{mid(section)}",
        ]
        lines += [f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{password}", f"a=fingerprint:sha-256 {fingerprint}"]
        lines += ["a=setup:active", "a=sctp-port:5000" if kept else "a=inactive"]
    return "\r\n".join(lines) + "\r\n"


def mid(section: str) -> str:
    """Identifier of an SDP section."""
    found = re.search(r"^a=mid:(\S+)\s*$", section, re.MULTILINE)
    return found[1] if found else "0"


class MediaProbe:
    """Looks; never raises."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        sockets: aiohttp.ClientSession,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._sockets = sockets
        self._clock = clock
        self._wall = wall

    async def look(
        self, at: LiveKitAt, node_id: str, media: tuple[str, int], within: float, hold: float = 0.0
    ) -> Reply:
        """GOOD with the seconds of the round trip, after `hold` seconds of checks that were answered; NO_MEDIA when
        the join worked, no datagram came back for `within`, and the server answers over HTTP after that; SILENT when
        there was no join to try it with, or no server after it, which says nothing about UDP. `media`: address and UDP
        port of the node; what the node itself offers is tried too, and one answer is enough.
        """
        # Another room each time: livekit-server remembers by room and identity who had no UDP and offers TCP then.
        room, reply, now = f"{IDENTITY}-{os.urandom(8).hex()}", Reply(Answer.SILENT), asyncio.get_running_loop().time
        # What is known by then is not lost when leaving takes too long.
        with suppress(TimeoutError, OSError, aiohttp.ClientError, httpx.HTTPError, Unexpected):
            async with (
                asyncio.timeout(JOIN_SECONDS) as limit,
                self._room(at, room, node_id),
                self._join(at, room) as signal,
            ):
                offered = await signal.offered()
                limit.reschedule(None)
                async with checking(offered, signal.ufrag, media, self._clock) as checks:
                    took = await checks.watch(within, hold)
                    reply = Reply(Answer.GOOD, took) if took is not None else await self._lost(at, room, checks, within)
                limit.reschedule(now() + 2 * CLOSE_SECONDS)
        return reply

    async def _lost(self, at: LiveKitAt, room: str, checks: Checks, within: float) -> Reply:
        """After checks without an answer. Who died, froze or was starved meanwhile answered no check either; a server
        that does again answers those that waited for it."""
        with suppress(TimeoutError, httpx.HTTPError, Unexpected):
            async with asyncio.timeout(within):
                await self._call(at, "ListRooms", {"names": [room]}, {"roomList": True})
            if not await checks.late():
                return Reply(Answer.NO_MEDIA)
        return Reply(Answer.SILENT)

    @asynccontextmanager
    async def _room(self, at: LiveKitAt, room: str, node_id: str) -> AsyncIterator[None]:
        body = {"name": room, "nodeId": node_id, "emptyTimeout": 10, "departureTimeout": 1, "maxParticipants": 1}
        try:
            await self._call(at, "CreateRoom", body, {"roomCreate": True})
            yield
        finally:
            with suppress(httpx.HTTPError, Unexpected):
                await self._call(at, "DeleteRoom", {"room": room}, {"roomCreate": True})

    async def _call(self, at: LiveKitAt, method: str, body: dict[str, object], grant: dict[str, object]) -> None:
        url = f"{at.url.rstrip('/')}/twirp/livekit.RoomService/{method}"
        headers = {"Authorization": f"Bearer {self._token(at, grant)}"}
        answer = await self._http.post(url, json=body, headers=headers)
        if answer.status_code != 200:
            raise Unexpected(f"{method}: {answer.status_code}")

    @asynccontextmanager
    async def _join(self, at: LiveKitAt, room: str) -> AsyncIterator[Signal]:
        token = self._token(at, {"roomJoin": True, "room": room, "canPublish": False, "hidden": True})
        async with join(self._sockets, at.url, token) as signal:
            yield signal

    def _token(self, at: LiveKitAt, grant: dict[str, object]) -> str:
        claims = {"iss": at.api_key, "sub": IDENTITY, "exp": int(self._wall()) + TOKEN_SECONDS, "video": grant}
        return jwt.encode(claims, at.api_secret, "HS256")


class Unexpected(Exception):  # noqa: N818 - what a server said, no fault of ours
    """The server did something else than livekit-server does."""


class Signal:
    """One participant's signalling connection, as far as an ICE check needs it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, joined: JoinResponse) -> None:
        self._socket = socket
        self.joined = joined
        self.ufrag = os.urandom(4).hex()

    async def offered(self) -> Offered:
        """Waits for the server's offer and answers it; only then the server takes checks."""
        while True:
            message = await receive(self._socket)
            if message.WhichOneof("message") != "offer":
                continue
            offered = Offered.parse(message.offer.sdp)
            if offered is None:
                raise Unexpected("an offer without ICE credentials")
            fingerprint = ":".join(f"{b:02X}" for b in os.urandom(32))
            answer = accept(message.offer.sdp, self.ufrag, os.urandom(12).hex(), fingerprint)
            description = SessionDescription(type="answer", sdp=answer, id=message.offer.id)
            await self._socket.send_bytes(SignalRequest(answer=description).SerializeToString())
            return offered

    async def leave(self) -> None:
        request = LeaveRequest(reason=DisconnectReason.CLIENT_INITIATED)
        await self._socket.send_bytes(SignalRequest(leave=request).SerializeToString())


@asynccontextmanager
async def join(sockets: aiohttp.ClientSession, url: str, token: str) -> AsyncIterator[Signal]:
    """Signalling of a join; leaves at the end. Raises aiohttp.ClientError, Unexpected."""
    query = urlencode({"access_token": token, "protocol": PROTOCOL, "auto_subscribe": "0", "sdk": "python"})
    closing = aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS)
    async with sockets.ws_connect(f"{url.rstrip('/')}/rtc?{query}", timeout=closing) as socket:
        first = await receive(socket)
        if first.WhichOneof("message") != "join":
            raise Unexpected(f"a join answered by {first.WhichOneof('message')}")
        signal = Signal(socket, first.join)
        try:
            yield signal
        finally:
            with suppress(OSError, aiohttp.ClientError):
                await signal.leave()


async def receive(socket: aiohttp.ClientWebSocketResponse) -> SignalResponse:
    message = await socket.receive()
    if message.type is not aiohttp.WSMsgType.BINARY:
        raise Unexpected(f"signalling ended: {message.type.name}")
    try:
        return SignalResponse.FromString(message.data)
    except DecodeError as error:
        raise Unexpected(f"signalling: {error}") from error
