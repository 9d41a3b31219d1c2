"""A real livekit-server's signed webhooks, and what cannot be made of them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from aiohttp import web
from livekit import api, rtc
from livekit.protocol.models import TrackSource
from livekit.rtc.participant import PublishTrackError

TOKEN = "/v1/projects/team/study/token"
HOOK = "/v1/webhooks/livekit/talktime/eu"
KEY, SECRET = "APItest", "secret-of-at-least-thirty-two-characters"
ROUNDS = {"census_interval_sec": 0.2, "transport_interval_sec": 0.2, "redispatch_after_sec": 60}


@dataclass
class Relay:
    """Where livekit-server posts to: keeps every request, and passes it to the gateway once there is one."""

    port: int = 0
    gateway: Any = None
    passes: bool = True
    requests: list[tuple[bytes, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body, authorization = await request.read(), request.headers.get("Authorization", "")
        self.requests.append((body, authorization))
        if self.gateway is None or not self.passes:
            return web.Response(status=204)
        status = await self.send(body, authorization)
        self.answers.append(status)
        return web.Response(status=status)

    async def send(self, body: bytes, authorization: str, path: str = HOOK) -> int:
        answer = await self.gateway.post(path, content=body, headers={"Authorization": authorization})
        return int(answer.status_code)

    def of(self, event: str, room: str) -> tuple[bytes, str]:
        """The request that carried it."""
        return next(
            (body, authorization)
            for body, authorization in self.requests
            if (content := json.loads(body))["event"] == event and content["room"]["name"] == room
        )


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    relay = Relay()
    app = web.Application()
    app.router.add_post(HOOK, relay.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    relay.port = runner.addresses[0][1]
    yield relay
    await runner.cleanup()


@pytest.fixture
def telling(start_node: Any, relay: Relay, ledger: Any) -> Any:
    """A livekit-server that tells the relay; the ledger's pool is on it."""
    node = start_node(webhook=f"http://127.0.0.1:{relay.port}{HOOK}")
    ledger.pools[0] |= {"publicURL": node.url, "internalURL": node.url}
    return node


def signed(body: bytes, secret: str = SECRET) -> str:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return jwt.encode({"iss": KEY, "exp": time.time() + 300, "sha256": digest}, secret, algorithm="HS256")


async def visited(http: Any, as_: Any, seconds: float, until: Any = None) -> tuple[str, float]:
    """Somebody joins, stays for so long, and until that is true of the session, and leaves; the session, and when they
    came by this machine's clock.
    """
    answer = await http.post(TOKEN, headers=as_.server, json={})
    assert answer.status_code == 201, answer.text
    claims = jwt.decode(answer.json()["participant_token"], SECRET, algorithms=["HS256"])
    session, room, begun = str(claims["video"]["room"]), rtc.Room(), time.monotonic()
    await room.connect(answer.json()["server_url"], answer.json()["participant_token"])
    await asyncio.sleep(seconds)
    async with asyncio.timeout(90):
        while until is not None and not until(session):  # noqa: ASYNC110 - the gateway looks in rounds
            await asyncio.sleep(0.05)
    await room.disconnect()
    return session, begun


async def test_a_leave_is_told_exactly_and_as_often_as_it_comes(
    gateway: Any, ledger: Any, as_: Any, relay: Relay, telling: Any, eventually: Any
) -> None:
    async with gateway() as http:  # no rounds: only webhooks tell
        relay.gateway = http
        session, begun = await visited(http, as_, 2.5)

        async def told() -> bool:
            return any(ledger.left.get(session, []))

        await eventually(told)
        (words,) = [left for left in ledger.left[session] if left]
        ((key, lasted),) = words.items()
        assert key.startswith("participant-1/PA_")
        assert 2 <= lasted <= time.monotonic() - begun + 1
        assert set(relay.answers) == {204}, "LiveKit is never asked to send again what is not for us"

        body, authorization = relay.of("participant_left", session)
        for _ in range(2):
            assert await relay.send(body, authorization) == 204
        assert [left for left in ledger.left[session] if left] == [words] * 3, "the same word: the ledger keeps one"

        async def counted() -> bool:
            return 'talktime_gateway_webhooks_total{outcome="left"} 3.0' in (await http.get("/metrics")).text

        await eventually(counted)


async def test_forged_and_foreign_words_change_nothing(
    gateway: Any, ledger: Any, as_: Any, relay: Relay, telling: Any, eventually: Any
) -> None:
    async with gateway() as http:
        relay.gateway, relay.passes = http, False  # only what the test sends: the true leave may come at any time
        session, _ = await visited(http, as_, 0.2)

        async def heard() -> bool:
            return any(json.loads(body)["event"] == "participant_left" for body, _ in relay.requests)

        await eventually(heard)
        body, authorization = relay.of("participant_left", session)
        forged = body.replace(b"participant-1", b"participant-2")
        assert await relay.send(forged, authorization) == 401
        assert await relay.send(body, signed(body, "x" * 40)) == 401
        assert await relay.send(body, "") == 401
        assert await relay.send(body, authorization, "/v1/webhooks/livekit/talktime/us") == 401, "no such pool"
        assert await relay.send(b"{" * 20_000, authorization) == 400
        unknown = body.replace(session.encode(), b"11111111-0000-4000-8000-000000000000")
        assert await relay.send(unknown, signed(unknown)) == 204
        other = body.replace(session.encode(), b"lobby")
        assert await relay.send(other, signed(other)) == 204
        ledger.sessions[session]["media"]["pool"] = "us"
        assert await relay.send(body, authorization) == 403, "keys of one pool say nothing of another's sessions"
        assert not ledger.left
        ledger.sessions[session]["media"]["pool"] = "eu"
        ledger.down = True
        assert await relay.send(body, authorization) == 503, "LiveKit sends it again"


async def test_without_webhooks_the_lost_time_is_bounded_also_after_the_close(
    gateway: Any, ledger: Any, as_: Any, eventually: Any
) -> None:
    async with gateway(**ROUNDS) as http:
        session, begun = await visited(http, as_, 1.5, until=ledger.transport.get)
        ledger.sessions[session]["state"] = "closed"  # the agent was quicker than the next round

        async def told() -> bool:
            return bool(ledger.gone.get(session))

        await eventually(told)
        ((key, at_most),) = ledger.gone[session].items()
        assert ledger.transport[session][key] <= at_most <= time.monotonic() - begun + 1


@pytest.mark.parametrize("state", ["open", "closed"])
async def test_who_left_while_no_gateway_was_there_is_bounded_by_the_one_that_comes(
    gateway: Any, ledger: Any, as_: Any, eventually: Any, state: str
) -> None:
    """Neither a round nor a webhook saw the leave; the ledger tells the new replica whom nobody has seen leave."""
    async with gateway(**ROUNDS) as http:
        answer = await http.post(TOKEN, headers=as_.server, json={})
        assert answer.status_code == 201, answer.text
        await (room := rtc.Room()).connect(answer.json()["server_url"], answer.json()["participant_token"])
        session = room.name

        async def seen() -> bool:
            return bool(ledger.transport.get(session))

        await eventually(seen)
    assert not ledger.gone.get(session)
    began = time.monotonic()
    await room.disconnect()
    ledger.sessions[session] |= {"state": state, "attached_at": datetime.now(UTC).isoformat()}
    async with gateway(**ROUNDS):

        async def told() -> bool:
            return bool(ledger.gone.get(session))

        await eventually(told)
    ((key, at_most),) = ledger.gone[session].items()
    last_seen = ledger.transport[session][key]
    assert last_seen <= at_most <= last_seen + time.monotonic() - began + 3


async def test_with_webhooks_and_rounds_the_exact_leave_is_told(
    gateway: Any, ledger: Any, as_: Any, relay: Relay, telling: Any, eventually: Any
) -> None:
    async with gateway(**ROUNDS) as http:
        relay.gateway = http
        session, begun = await visited(http, as_, 1.5)

        async def told() -> bool:
            return any(ledger.left.get(session, []))

        await eventually(told)
        ((key, lasted),) = next(left for left in ledger.left[session] if left).items()
        assert ledger.transport.get(session, {}).get(key, 0) <= lasted + 1 <= time.monotonic() - begun + 2


@pytest.mark.parametrize("microphone_only", [True, False])
async def test_a_camera_is_refused_by_livekit_itself_unless_the_project_allows_it(
    gateway: Any, ledger: Any, as_: Any, node: Any, eventually: Any, microphone_only: bool
) -> None:
    ledger.projects[0]["microphoneOnly"] = microphone_only
    async with gateway() as http:
        answer = await http.post(TOKEN, headers=as_.server, json={})
        room = rtc.Room()
        await room.connect(answer.json()["server_url"], answer.json()["participant_token"])
        try:
            voice = rtc.LocalAudioTrack.create_audio_track("voice", rtc.AudioSource(24_000, 1))
            microphone = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
            await room.local_participant.publish_track(voice, microphone)
            source = rtc.VideoSource(64, 64)
            camera = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA)
            publishing = room.local_participant.publish_track(
                rtc.LocalVideoTrack.create_video_track("picture", source), camera
            )
            if microphone_only:
                with pytest.raises(PublishTrackError):
                    await asyncio.wait_for(publishing, 60)
            else:
                await asyncio.wait_for(publishing, 60)
            wanted = {TrackSource.MICROPHONE} | (set() if microphone_only else {TrackSource.CAMERA})

            async def published() -> bool:
                source.capture_frame(rtc.VideoFrame(64, 64, rtc.VideoBufferType.RGBA, bytes(64 * 64 * 4)))
                async with api.LiveKitAPI(node.url, KEY, SECRET) as livekit:
                    listed = await livekit.room.list_participants(api.ListParticipantsRequest(room=room.name))
                return {track.source for person in listed.participants for track in person.tracks} == wanted

            await eventually(published)
            if microphone_only:
                return
            async with gateway(**ROUNDS):

                async def filmed() -> bool:
                    return any(seconds >= 1 for seconds in ledger.video.get(room.name, {}).values())

                await eventually(filmed)
        finally:
            await room.disconnect()
