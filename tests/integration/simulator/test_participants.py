"""Synthetic participants over real WebRTC: they take turns with an agent, record it, and see only what they may."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from livekit import api, rtc
from talktime_simulator.participants.turns import SPEECH_LEVEL, Hearing, Move
from talktime_simulator.participants.voice_track import Microphone
from talktime_simulator.speech import Voice

pytestmark = pytest.mark.real_session
KEY, SECRET = "APItest", "secret-of-at-least-thirty-two-characters"


def token(room: str, identity: str, **grants: Any) -> str:
    access = api.AccessToken(KEY, SECRET).with_identity(identity)
    return access.with_grants(api.VideoGrants(room_join=True, room=room, **grants)).to_jwt()


@dataclass
class Agent:
    """Speaks first, then after every turn of the participant; tells an observer the cost; ends after `ends_after`."""

    url: str
    room_name: str
    ends_after: int
    room: rtc.Room = field(default_factory=rtc.Room)
    hearing: Hearing = field(default_factory=lambda: Hearing(patience=60))
    microphone: Microphone = field(default_factory=Microphone)

    async def run(self) -> None:
        voice, joined = Voice(), asyncio.Event()
        self.room.on("participant_connected", lambda *_: joined.set())
        self.room.on("track_subscribed", lambda track, *_: asyncio.ensure_future(self.listen(track)))
        await self.room.connect(self.url, token(self.room_name, "agent"))
        await self.microphone.publish(self.room)
        self.hearing.waiting_since = time.time()
        if not self.room.remote_participants:
            await joined.wait()
        await self.microphone.say(await voice.render("Welcome. How are you?"))
        spoken = 1
        while spoken <= self.ends_after:
            await self.room.local_participant.publish_data(
                json.dumps({"type": "cost_update", "total_usd": 0.01}),
                topic="talktime.cost",
                destination_identities=["observer-1"],
            )
            await asyncio.sleep(0.2)
            if self.hearing.move(time.time()) is Move.SPEAK:
                await self.room.local_participant.send_text("What I just said.", topic="lk.chat")
                await self.microphone.say(await voice.render("I see. Please tell me more."))
                self.hearing.spoke(time.time())
                spoken += 1

    async def listen(self, track: rtc.Track) -> None:
        async for event in rtc.AudioStream(track, sample_rate=24_000, num_channels=1, frame_size_ms=100):
            samples = np.frombuffer(event.frame.data, dtype=np.int16).astype(np.float32)
            self.hearing.hear(time.time(), float(np.sqrt(np.mean(samples**2))) > SPEECH_LEVEL, 0.1)


@dataclass
class FrontDoor:
    """A token endpoint; the first `waits` requests are told to come back."""

    livekit: str
    waits: int = 0
    refuse: int = 0
    ends_after: int = 99
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    agents: list[asyncio.Task[None]] = field(default_factory=list)

    async def token(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append({"key": request.headers["Authorization"], **body})
        if self.refuse:
            return web.json_response({"type": "about:blank", "title": "interview not available"}, status=self.refuse)
        if self.waits > 0:
            self.waits -= 1
            return web.json_response({}, status=429, headers={"Retry-After": "0.3"})
        if "room_name" in body:
            given = token(body["room_name"], "observer-1", hidden=True, can_publish=False)
        else:
            room = str(uuid.uuid4())
            agent = Agent(self.livekit, room, self.ends_after)
            self.agents.append(asyncio.create_task(self.staffed(agent)))
            given = token(room, "participant-1")
        return web.json_response({"server_url": self.livekit, "participant_token": given}, status=201)

    async def staffed(self, agent: Agent) -> None:
        try:
            await agent.run()
        finally:
            await agent.room.disconnect()
        async with api.LiveKitAPI(self.livekit.replace("ws", "http", 1), KEY, SECRET) as cloud:
            await cloud.room.delete_room(api.DeleteRoomRequest(room=agent.room_name))


@pytest.fixture
async def door(livekit_server: Any) -> AsyncIterator[FrontDoor]:
    door = FrontDoor(livekit_server.url)
    app = web.Application()
    app.router.add_post("/v1/projects/demo/interviews/token", door.token)
    async with TestServer(app) as server:
        door.url = str(server.make_url("/"))
        yield door
        for task in door.agents:
            task.cancel()
        await asyncio.gather(*door.agents, return_exceptions=True)


async def participants(door: FrontDoor, out: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """Runs the command line; returns exit code, summary and progress."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "talktime_simulator", "participants", "--gateway", door.url,
        "--project", "demo/interviews", "--server-key", "tts_k", "--out", str(out), *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, progress = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode is not None
    return process.returncode, json.loads(output.splitlines()[-1]), progress.decode()


async def test_an_interview_of_two_turns(door: FrontDoor, tmp_path: Path) -> None:
    door.waits = 1
    code, summary, progress = await participants(
        door, tmp_path, "--turns", "2", "--min-seconds", "5", "--observer-key", "tto_o", "--observer-seconds", "2"
    )
    assert (code, summary["failed"]) == (0, 0), progress
    row = summary["sessions"][0]
    assert row["turns"] == 2
    assert row["agent_turns"] >= 2
    assert row["waited_for_token"] >= 0.3
    assert row["cost_updates"] >= 2
    assert row["disconnect_reason"] == "CLIENT_INITIATED"
    assert "turn 2 of 2" in progress

    result = json.loads((tmp_path / f"{row['session']}.json").read_text())
    seen = result["received"]
    assert seen["claims"]["video"]["room"] == row["session"]
    assert [text["topic"] for text in seen["texts"]] == ["lk.chat"] * len(seen["texts"])
    assert len(seen["texts"]) >= 1
    assert seen["data"] == []  # cost goes to observers only
    assert "cost" not in json.dumps(seen)
    assert result["observer"]["updates"][0]["type"] == "cost_update"
    spoken = [event["text"] for event in seen["timeline"] if event["event"] == "speaks"]
    assert len(set(spoken)) == 2
    assert all(2.5 < event["seconds"] < 6.5 for event in seen["timeline"] if event["event"] == "speaks")

    with wave.open(str(tmp_path / f"{row['session']}.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
    # To the last sound that was heard: hanging up takes its own time.
    leaving = next(event["at"] for event in seen["timeline"] if event["event"] == "leaving")
    assert leaving - result["joined_at"] - 2 <= len(samples) / 24_000 <= result["seconds"] + 0.5
    frames = samples[: len(samples) // 2400 * 2400].reshape(-1, 2400)
    loud = np.sqrt(np.mean(frames**2, axis=1)) / 32768 > 10 ** (-40 / 20)
    assert loud.sum() / 10 > 2


async def test_staying_until_the_other_side_ends_it(door: FrontDoor, tmp_path: Path) -> None:
    door.ends_after = 1
    code, summary, progress = await participants(door, tmp_path, "--stay", "--turns", "1", "--min-seconds", "1")
    assert code == 0, progress
    assert summary["sessions"][0]["disconnect_reason"] == "ROOM_DELETED"


@pytest.mark.parametrize("status", [402, 403], ids=["server key", "ticket"])
async def test_a_refusal_is_told_and_fails(door: FrontDoor, tmp_path: Path, status: int) -> None:
    door.refuse = status
    code, summary, _ = await participants(door, tmp_path, "--turns", "1")
    assert (code, summary["refused"]) == (1, 1)
    assert summary["sessions"][0]["refused"] == status
    assert door.asked == [{"key": "Bearer tts_k"}]
