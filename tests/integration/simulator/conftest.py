"""A simulator process per module, and the unmodified OpenAI plugin as its client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from livekit import rtc
from livekit.agents import APIError
from livekit.plugins import openai
from openai.types.realtime.realtime_audio_input_turn_detection import ServerVad

INSTRUCTIONS = (
    "You hold a calm research interview about everyday work in small libraries. Ask one short question at a time, "
    "listen, and follow up on what the person said. Never judge, never give advice, and stay with the topic. "
    "Speak plainly and in a friendly voice; when the person is silent, wait for a moment before you ask again."
)


LONG = " and so on, ".join(["a long story"] * 60)
"""Nearly a minute of speech: also a machine that does other things interrupts in the middle of it."""


@dataclass
class Simulator:
    """A running server."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lines(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text(path).splitlines()]

    def text(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}") as answer:
            return str(answer.read().decode())

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def start_simulator(*options: str) -> tuple[subprocess.Popen[str], Simulator]:
    """Starts a server on a free port; the caller ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "talktime_simulator", "serve", "--host", "127.0.0.1", "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"listening on .*?(\d+)\)\]", line):
            return process, Simulator(int(found[1]))
    raise AssertionError("the simulator did not start")


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    process, server = start_simulator("--speed", "10", "--first-audio", "0.05", "--transcription", "0.05")
    yield server
    process.terminate()
    process.wait(60)


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> None:
    """An empty bill. The server writes a session's last record when its client is gone: that is waited for."""
    if "simulator" in request.fixturenames:
        server: Simulator = request.getfixturevalue("simulator")
        deadline = time.monotonic() + 60
        while json.loads(server.text("/healthz"))["sessions"]:
            assert time.monotonic() < deadline, "a client of the test before is still there"
            time.sleep(0.02)
        server.send("DELETE", "/truth")
        server.send("DELETE", "/faults")


@dataclass
class Client:
    """The plugin's session and everything the server sent to it."""

    model: openai.realtime.RealtimeModel
    session: Any
    events: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    @property
    def usages(self) -> list[dict[str, Any]]:
        return [event["response"]["usage"] for event in self.of("response.done")]

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        for _ in range(int(seconds / 0.02)):
            if condition():
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"no {what} within {seconds} s; got {[e['type'] for e in self.events][-12:]}")

    async def count(self, kind: str, wanted: int) -> None:
        await self.until(lambda: len(self.of(kind)) >= wanted, f"{wanted} x {kind}")

    def speak(self, pcm: bytes) -> None:
        """Pushes speech and the silence after it as fast as it goes: the server hears an audio clock."""
        data = pcm + bytes(2 * 24_000)
        self.session.push_audio(rtc.AudioFrame(data, 24_000, 1, len(data) // 2))

    async def turn(self, pcm: bytes) -> None:
        """One turn of the user, answered on our own decision."""
        before = len(self.of("response.done"))
        committed = len(self.of("input_audio_buffer.committed"))
        self.speak(pcm)
        await self.count("input_audio_buffer.committed", committed + 1)
        await self.session.generate_reply()
        await self.count("response.done", before + 1)


@pytest.fixture
async def connect(simulator: Simulator) -> AsyncIterator[Callable[..., Any]]:
    """`await connect(key=..., **model options)` -> Client, with a gate like the agent's: no response by itself."""
    opened: list[Client] = []
    http = aiohttp.ClientSession()

    async def open_client(key: str = "sk-anything", **options: Any) -> Client:
        settings: dict[str, Any] = {
            "model": "gpt-realtime-2.1-mini",
            "turn_detection": ServerVad(type="server_vad", create_response=False, interrupt_response=False),
            **options,
        }
        model = openai.realtime.RealtimeModel(
            base_url=f"{simulator.url}/v1", api_key=key, http_session=http, **settings
        )
        client = Client(model, model.session())
        client.session.on("openai_server_event_received", client.events.append)
        await client.session.update_instructions(INSTRUCTIONS)
        opened.append(client)
        return client

    yield open_client
    for client in opened:
        with contextlib.suppress(APIError):  # a session that a fatal key ended says so again
            await client.session.aclose()
    await http.close()


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Three spoken answers."""
    from talktime_simulator.participants.answers import answer
    from talktime_simulator.speech import Voice

    async def render() -> list[bytes]:
        voice = Voice("en-gb+m3", cache=Path(tmp_path_factory.mktemp("speech")))
        return [await voice.render(answer(turn, 0)) for turn in range(3)]

    return asyncio.run(render())
