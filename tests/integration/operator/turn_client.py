"""Two participants behind a firewall that lets out nothing but TLS to port 443, and signalling. Prints what they heard.

livekit's client trusts only the CAs it was built with (for TURN), so the tests' CA cannot be given to it. TLS is
therefore spoken by a forwarder beside it (CA and name verified); the client speaks TURN over TCP to that, with the
credentials the server told, and may use nothing but relayed candidates.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from typing import Any

import aiohttp
import numpy as np
from livekit import rtc
from livekit.protocol import rtc as rtc_messages
from livekit.rtc._proto import room_pb2, stats_pb2
from talktime_operator.media_probe import join

TALK, LONGEST = 6.0, 90.0
LOUD = 1000
ENOUGH = 300
"""Frames heard of either, each of 10 ms; on a busy machine they take longer than TALK."""


async def turn_server(url: str, token: str) -> rtc_messages.ICEServer:
    """What the server tells a participant who joins."""
    async with aiohttp.ClientSession() as sockets, join(sockets, url, token) as signal:
        (server,) = [s for s in signal.joined.ice_servers if any(u.startswith("turns:") for u in s.urls)]
    return server


async def told(url: str, token: str) -> None:
    """Prints it."""
    server = await turn_server(url, token)
    address = next(u for u in server.urls if u.startswith("turns:"))
    print(json.dumps({"url": address, "username": server.username, "credential": server.credential}), flush=True)


async def main(url: str, tokens: list[str], turn_host: str, ca: str, listen: str) -> None:
    said: dict[str, object] = {}
    server = await turn_server(url, tokens[2])
    said["url"] = next(u for u in server.urls if u.startswith("turns:"))
    name, port = str(said["url"]).split(":")[1], int(str(said["url"]).split(":")[2].split("?")[0])
    context = ssl.create_default_context(cafile=ca)
    bytes_through = [0, 0]

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int) -> None:
        while data := await reader.read(65536):
            bytes_through[way] += len(data)
            writer.write(data)
            await writer.drain()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far, near = await asyncio.open_connection(turn_host, port, ssl=context, server_hostname=name)
        await asyncio.gather(pump(reader, near, 0), pump(far, writer, 1))

    await asyncio.start_server(forward, listen, 3478)
    ice = room_pb2.IceServer(
        urls=[f"turn:{listen}:3478?transport=tcp"], username=server.username, password=server.credential
    )
    options = rtc.RoomOptions(
        rtc_config=rtc.RtcConfiguration(room_pb2.IceTransportType.TRANSPORT_RELAY, ice_servers=[ice])
    )
    one, two = rtc.Room(), rtc.Room()
    heard = {"one": 0, "two": 0}

    def listen_in(room: rtc.Room, who: str) -> None:
        @room.on("track_subscribed")
        def subscribed(track: rtc.Track, *_: object) -> None:
            async def count() -> None:
                async for event in rtc.AudioStream(track):
                    heard[who] += bool(np.abs(np.frombuffer(event.frame.data, dtype=np.int16)).max() > LOUD)

            tasks.append(asyncio.ensure_future(count()))

    tasks: list[asyncio.Future[None]] = []
    sources = []
    for room, who, token in ((one, "one", tokens[0]), (two, "two", tokens[1])):
        listen_in(room, who)
        await room.connect(url, token, options)
        source = rtc.AudioSource(48000, 1)
        await room.local_participant.publish_track(rtc.LocalAudioTrack.create_audio_track("voice", source))
        sources.append(source)
    tone = (np.sin(np.arange(480) * 2 * np.pi * 440 / 48000) * 10000).astype(np.int16).tobytes()
    began = time.monotonic()
    while (talked := time.monotonic() - began) < TALK or (min(heard.values()) <= ENOUGH and talked < LONGEST):
        await asyncio.gather(*(s.capture_frame(rtc.AudioFrame(tone, 48000, 1, 480)) for s in sources))
    kinds = set()
    for room in (one, two):
        stats = await room.get_rtc_stats()
        for entry in (*stats.publisher_stats, *stats.subscriber_stats):
            if entry.WhichOneof("stats") == "local_candidate":
                kinds.add(_kind(entry.local_candidate.candidate))
    said |= {"heard": heard, "bytes": bytes_through, "kinds": sorted(kinds)}
    print(json.dumps(said), flush=True)


def _kind(candidate: Any) -> tuple[str, str]:
    return (
        stats_pb2.IceCandidateType.Name(candidate.candidate_type),
        stats_pb2.IceServerTransportProtocol.Name(candidate.relay_protocol),
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(told(sys.argv[1], sys.argv[2]))
    else:
        asyncio.run(main(sys.argv[1], sys.argv[2].split(","), *sys.argv[3:6]))
    # livekit's native threads still run, and now and then one aborts the process while the interpreter is torn down.
    os._exit(0)
