"""A pool's Redis hangs, then dies: two people who talk over livekit-server, both as the operator configures them."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from livekit import api, rtc
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.redis import build_redis_deployment
from talktime_operator.children.sfu_config import NODE_IP, livekit_config
from talktime_operator.names import Key, Owner

from tests.integration.operator.apiserver import binary, free_port
from tests.integration.operator.netns import process

pytestmark = pytest.mark.real_session

POOL = Key("talktime", "eu")
PASSWORD = "of-this-redis"
KEY, SECRET = "APIaway", "a-secret-of-at-least-32-characters-long"
LONGER_THAN_LIVEKITS_OWN_PATIENCE = 14.0
"""With its default of 7.5 s every connection broke 8.3 s after Redis had stopped."""
RATE = 48000


@dataclass
class Redis:
    """The embedded one with the operator's arguments, in a folder that lasts as the pod's does."""

    folder: Path
    port: int = field(default_factory=free_port)

    def words(self) -> list[str]:
        made = build_redis_deployment(
            POOL, Owner("talktime.dev/v1alpha1", "SFUPool", "eu", "uid"), "redis:7", "IfNotPresent"
        )
        (container,) = made["spec"]["template"]["spec"]["containers"]
        told = {"$(REDIS_PASSWORD)": PASSWORD, "/data": str(self.folder)}
        return [
            binary("redis-server"),
            *(told.get(word, word) for word in container["args"]),
            *("--port", str(self.port), "--bind", "127.0.0.1"),
        ]


@dataclass
class Talker:
    """Hums into the room, and hears the other."""

    room: rtc.Room = field(default_factory=rtc.Room)
    heard_at: float = 0.0
    troubles: list[str] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def join(self, url: str, who: str) -> None:
        for trouble in ("reconnecting", "disconnected"):
            self.room.on(trouble, lambda *_, trouble=trouble: self.troubles.append(trouble))
        self.room.on("track_subscribed", lambda track, *_: self._keep(self._listen(track)))
        grants = api.VideoGrants(room_join=True, room="study")
        token = api.AccessToken(KEY, SECRET).with_identity(who).with_grants(grants).to_jwt()
        await self.room.connect(url, token)
        source = rtc.AudioSource(RATE, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        await self.room.local_participant.publish_track(track)
        self._keep(self._hum(source))

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.room.disconnect()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.ensure_future(work))

    async def _hum(self, source: rtc.AudioSource) -> None:
        samples = RATE // 50
        wave = b"".join((8000 if at // 60 % 2 else -8000).to_bytes(2, "little", signed=True) for at in range(samples))
        while True:
            await source.capture_frame(rtc.AudioFrame(wave, RATE, 1, samples))

    async def _listen(self, track: rtc.Track) -> None:
        async for event in rtc.AudioStream(track):
            if max(memoryview(event.frame.data).cast("B").cast("h")) > 1000:
                self.heard_at = time.monotonic()


def config(redis: Redis, http: int) -> str:
    tcp, udp, metrics = (free_port() for _ in range(3))
    spec = {
        "network": {"ports": {"http": http, "tcp": tcp, "udp": udp, "metrics": metrics}},
        "redis": {"address": f"127.0.0.1:{redis.port}"},
    }
    made = livekit_config(POOL, SFUPoolSpec.model_validate(spec))
    del made["key_file"], made["webhook"]
    made["rtc"]["enable_loopback_candidate"] = True
    text = yaml.safe_dump(made | {"keys": {KEY: SECRET}, "bind_addresses": ["127.0.0.1"]})
    return str(text.replace(NODE_IP, "127.0.0.1"))


async def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


async def test_nobody_in_a_room_notices_and_a_killed_redis_finds_the_rooms_again(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    redis, http = Redis(tmp_path / "redis"), free_port()
    url = f"http://127.0.0.1:{http}"
    talkers = [Talker(), Talker()]

    async def hear_each_other() -> None:
        """From now on; how soon is the machine's affair, that no connection broke is looked at last."""
        now = time.monotonic()

        async def heard() -> bool:
            return all(talker.heard_at > now for talker in talkers)

        await until(heard)

    with ExitStack() as processes:
        first = processes.enter_context(process(redis.words(), tmp_path / "redis.log"))
        await until(partial(listens, redis.port))
        words = [binary("livekit-server"), "--node-ip=127.0.0.1"]
        environment = {"LIVEKIT_CONFIG": config(redis, http), "REDIS_PASSWORD": PASSWORD}
        processes.enter_context(process(words, tmp_path / "livekit.log", **environment))
        await until(partial(listens, http))
        async with api.LiveKitAPI(url, KEY, SECRET) as livekit:
            await livekit.room.create_room(api.CreateRoomRequest(name="study", empty_timeout=60))
            for number, talker in enumerate(talkers):
                await talker.join(url.replace("http", "ws"), f"talker-{number}")
            await hear_each_other()

            first.send_signal(signal.SIGSTOP)
            await asyncio.sleep(LONGER_THAN_LIVEKITS_OWN_PATIENCE)
            await hear_each_other()
            first.kill()
            first.wait()
            processes.enter_context(process(redis.words(), tmp_path / "redis-again.log"))
            await until(partial(listens, redis.port))

            async def known() -> bool:
                try:
                    found = await livekit.room.list_participants(api.ListParticipantsRequest(room="study"))
                except (api.TwirpError, OSError):
                    return False
                return len(found.participants) == len(talkers)

            await until(known)
            await hear_each_other()
            assert [talker.troubles for talker in talkers] == [[], []]
            for talker in talkers:
                await talker.leave()
