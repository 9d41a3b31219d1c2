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
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlencode

import aiohttp
import httpx
import jwt
from livekit.protocol.models import DisconnectReason
from livekit.protocol.rtc import JoinResponse, LeaveRequest, SessionDescription, SignalRequest, SignalResponse

from talktime_operator import stun
from talktime_operator.pools.health import Answer
from talktime_operator.sfu_probe import TOKEN_SECONDS, LiveKitAt, Reply

PROTOCOL = "15"
"""Signalling of two peer connections; livekit-server then sends an offer with its ICE credentials at once."""

IDENTITY = "talktime-probe"
AGAIN = 0.1
"""Seconds between two checks: one lost datagram is no finding."""

JOIN_SECONDS = 1.2
"""What making and joining a room may take."""

CLOSE_SECONDS = 0.3
"""What a server may take to close signalling."""


@dataclass(frozen=True)
class Offered:
    """What a server offered after a join: its ICE credentials and UDP addresses."""

    ufrag: str
    password: str = field(repr=False)
    udp: tuple[tuple[str, int], ...]
    lite: bool = False
    """It only answers (RFC 8445 section 2.5); else the offering side controls."""

    @classmethod
    def parse(cls, sdp: str) -> Offered | None:
        """None when it holds no ICE credentials."""
        found = [re.search(rf"^a=ice-{name}:(\S+)\s*$", sdp, re.MULTILINE) for name in ("ufrag", "pwd")]
        if not all(found):
            return None
        ufrag, password = (match[1] for match in found if match)
        udp = re.findall(r"^a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ", sdp, re.MULTILINE | re.IGNORECASE)
        return cls(ufrag, password, tuple(dict.fromkeys((host, int(port)) for host, port in udp)), "a=ice-lite" in sdp)


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
        room = f"{IDENTITY}-{os.urandom(8).hex()}"
        try:
            async with (
                asyncio.timeout(JOIN_SECONDS) as limit,
                self._room(at, room, node_id),
                self._join(at, room) as signal,
            ):
                offered = await signal.offered()
                limit.reschedule(asyncio.get_running_loop().time() + hold + 2 * within + JOIN_SECONDS)
                took = await check(offered, signal.ufrag, media, within, hold, self._clock)
                if took is None:
                    # Who died or froze meanwhile answers no check either.
                    async with asyncio.timeout(within):
                        await self._call(at, "ListRooms", {"names": [room]}, {"roomList": True})
        except (TimeoutError, OSError, aiohttp.ClientError, httpx.HTTPError, Unexpected):
            return Reply(Answer.SILENT)
        return Reply(Answer.GOOD, took) if took is not None else Reply(Answer.NO_MEDIA)

    @asynccontextmanager
    async def _room(self, at: LiveKitAt, room: str, node_id: str) -> AsyncIterator[None]:
        body = {"name": room, "nodeId": node_id, "emptyTimeout": 10, "departureTimeout": 1, "maxParticipants": 1}
        await self._call(at, "CreateRoom", body, {"roomCreate": True})
        try:
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
    return SignalResponse.FromString(message.data)


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._take(data)


async def check(
    offered: Offered,
    own: str,
    media: tuple[str, int],
    within: float,
    hold: float,
    clock: Callable[[], float] = time.monotonic,
) -> float | None:
    """Seconds until the first answer, after checks for `hold` seconds that were answered; None when none was for
    `within` seconds, at first or later. Addresses that cannot be sent to are passed over.

    Unanswered checks are counted, not seconds: a process that was held up has not asked meanwhile.
    """
    loop, sent, heard = asyncio.get_running_loop(), set[bytes](), asyncio.Event()
    role = stun.CONTROLLING if offered.lite else stun.CONTROLLED

    def take(data: bytes) -> None:
        if any(stun.answers(data, transaction, offered.password) for transaction in sent):
            heard.set()

    transports = []
    for address in dict.fromkeys((media, *offered.udp)):
        with suppress(OSError, ValueError):
            transport, _ = await loop.create_datagram_endpoint(lambda: _Answers(take), remote_addr=address)
            transports.append(transport)
    started, first, unanswered, most = clock(), None, 0, round(within / AGAIN)
    try:
        while unanswered < most and (first is None or unanswered or clock() - started < hold):
            transaction, asked = os.urandom(12), clock()
            sent.add(transaction)
            heard.clear()
            send(transports, stun.binding(transaction, f"{offered.ufrag}:{own}", offered.password, role))
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN):
                    await heard.wait()
            # Asked after the wait: an answer that lay there while this process was held up counts.
            if heard.is_set():
                first, unanswered = clock() - started if first is None else first, 0
                await asyncio.sleep(AGAIN - (clock() - asked))
            else:
                unanswered += 1
    finally:
        for transport in transports:
            transport.close()
    return first if unanswered < most else None


def send(transports: Iterable[asyncio.DatagramTransport], datagram: bytes) -> None:
    for transport in transports:
        transport.sendto(datagram)
