"""Two guests of one room on a livekit-server, run inside a network namespace; a JSON line per second of what the first
one's statistics say by the client helper, and one per event of its Room."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from livekit import api, rtc

ROOM = "silence"
HELPER = Path(__file__).parents[3] / "clients" / "talktime_resume.py"
RATE, FRAME = 24_000, 2_400
TONE = (3_000 * np.sin(2 * np.pi * 300 * np.arange(FRAME) / RATE)).astype(np.int16).tobytes()


def helper() -> ModuleType:
    """The client helper: one file, not a package."""
    spec = importlib.util.spec_from_file_location("talktime_resume", HELPER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def tell(**told: Any) -> None:
    print(json.dumps(told), flush=True)


async def speak(room: rtc.Room) -> None:
    """A tone without end."""
    source = rtc.AudioSource(RATE, 1)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
    await room.local_participant.publish_track(track)
    while True:
        await source.capture_frame(rtc.AudioFrame(TONE, RATE, 1, FRAME))


async def main(url: str, key: str, secret: str) -> None:
    lk = api.LiveKitAPI(url, key, secret)
    await lk.room.create_room(api.CreateRoomRequest(name=ROOM, empty_timeout=60))
    await lk.aclose()
    rooms, speaking = [], []
    for name in ("first", "second"):
        grants = api.VideoGrants(room_join=True, room=ROOM)
        token = api.AccessToken(key, secret).with_identity(name).with_grants(grants).to_jwt()
        room = rtc.Room()
        await room.connect(url, token)
        rooms.append(room)
        speaking.append(asyncio.ensure_future(speak(room)))
    rooms[0].on("reconnecting", lambda: tell(event="reconnecting"))
    resume = helper()
    silence = resume.Silence()
    while True:
        await asyncio.sleep(resume.LOOK_SEC)
        answers = await resume.answered(rooms[0])
        tell(silent=silence.seconds(time.monotonic(), answers), known=answers is not None)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
