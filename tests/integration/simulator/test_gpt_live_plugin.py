"""livekit's GPT-Live model, unmodified, over the simulator: time is what is billed, and it is told cumulatively."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import aiohttp
import numpy as np
import pytest
from livekit import rtc
from livekit.agents import APIError
from livekit.plugins.openai.realtime import GPTLiveModel

from .conftest import INSTRUCTIONS, Simulator, start_simulator

Connect = Callable[..., Any]


@dataclass
class Talk:
    """The plugin's duplex session, what it was told, and the audio it got."""

    session: Any
    events: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    errors: list[Any] = field(default_factory=list)
    heard: list[rtc.AudioFrame] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(3000):
            if condition():
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"no {what}; errors {self.errors}")

    async def listen(self) -> None:
        async for piece in self.session.audio_stream:
            self.heard.append(piece.frame)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    process: subprocess.Popen[str]
    process, server = start_simulator("--playback", "20")
    yield server
    process.terminate()
    process.wait(60)


@pytest.fixture
async def connect(simulator: Simulator) -> AsyncIterator[Connect]:
    opened: list[tuple[Talk, asyncio.Task[None]]] = []
    http = aiohttp.ClientSession()

    async def open_session(key: str = "anything") -> Talk:
        model = GPTLiveModel(
            model="gpt-live-1", base_url=f"{simulator.url}/v1", api_key=key, http_session=http, delegation="client"
        )
        talk = Talk(model.session())
        talk.session.on("openai_server_event_received", talk.events.append)
        talk.session.on("metrics_collected", talk.metrics.append)
        talk.session.on("error", talk.errors.append)
        opened.append((talk, asyncio.create_task(talk.listen())))
        await talk.session._update_session(instructions=INSTRUCTIONS)
        return talk

    yield open_session
    for talk, listening in opened:
        with contextlib.suppress(APIError):
            await talk.session.aclose()
        listening.cancel()
    await http.close()


def loud(frames: list[rtc.AudioFrame]) -> int:
    return sum(1 for frame in frames if np.abs(np.frombuffer(frame.data, dtype="<i2")).max() > 1000)


async def test_time_is_billed_from_start_to_close_whoever_speaks(
    simulator: Simulator, connect: Connect, speech: list[bytes]
) -> None:
    talk = await connect()
    talk.session.append_commentary("Greet the participant.")
    await talk.until(lambda: loud(talk.heard) > 5, "greeting")
    talk.session.push_audio(rtc.AudioFrame(speech[0] + bytes(48_000), 24_000, 1, len(speech[0]) // 2 + 24_000))
    await talk.until(lambda: len(talk.of("session.input_transcript.delta")) >= 1, "transcript")
    await talk.until(lambda: len(talk.of("session.output_transcript.delta")) >= 2, "answer")
    await talk.until(lambda: len(talk.of("session.usage.updated")) >= 2, "usage")
    await talk.session.aclose()

    told = [event["usage"]["seconds"] for event in talk.events if "usage" in event]
    assert told == sorted(told)
    # Written when both sides have closed, and the client has not waited for the server's.
    await talk.until(lambda: bool(simulator.lines("/truth")), "bill")
    (record,) = simulator.lines("/truth")
    assert record["meters"] == {"active_seconds": ceil(told[-1])}
    assert (record["delivered"], record["model"], record["response_id"]) == (True, "gpt-live-1", "session")
    assert sum(metric.session_duration or 0 for metric in talk.metrics) == pytest.approx(told[-1])
    # The clock is the stream's, silence included; what was still on its way is billed, too (the frame that the end came
    # into is not).
    kinds = [event["type"] for event in talk.events]
    at = kinds.index("session.usage.updated")
    assert kinds[:at].count("session.output_audio.delta") == 10 * told[0]
    streamed = sum(frame.samples_per_channel for frame in talk.heard) / 24_000
    assert 0 < streamed <= told[-1] + 0.101


async def test_a_drop_leaves_time_that_nobody_was_told_of(simulator: Simulator, connect: Connect) -> None:
    simulator.send("POST", "/faults", {"fault": "drop_socket", "seconds": 7})
    talk = await connect()
    await talk.until(lambda: len(talk.of("session.started")) >= 2, "second session")
    await talk.until(lambda: bool(simulator.lines("/truth")), "bill")
    record = simulator.lines("/truth")[0]
    assert record["meters"] == {"active_seconds": 7}
    assert record["delivered"] is False
    assert talk.of("session.usage.updated")[0]["usage"] == {"seconds": 5.0}


@pytest.mark.parametrize(("key", "code"), [("sim-bad-1", "invalid_api_key"), ("sim-quota-1", "insufficient_quota")])
async def test_keys_that_fail_end_the_session(connect: Connect, key: str, code: str) -> None:
    talk = await connect(key)
    await talk.until(lambda: bool(talk.errors), "error")
    assert talk.of("error")[0]["error"]["code"] == code
    assert talk.errors[0].recoverable is False
