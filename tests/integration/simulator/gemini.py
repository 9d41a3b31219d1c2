"""The unmodified Google plugin as a client of the simulator over TLS, and everything that the wire told it."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.genai import types
from livekit import rtc
from livekit.plugins.google import realtime

from .conftest import Simulator

MODEL = "gemini-3.8-live"
RATE = 16_000


@dataclass
class LiveSimulator(Simulator):
    """A running server that also speaks TLS."""

    tls_port: int = 0
    ca: Path = Path()

    @property
    def tls_url(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))


@contextmanager
def live_simulator(directory: Path, *options: str) -> Iterator[LiveSimulator]:
    """A server on free ports with a certificate of its own in `directory`."""
    command = [sys.executable, "-m", "talktime_simulator", "serve", "--host", "127.0.0.1", "--port", "0"]
    tls = ["--tls-port", "0", "--tls-dir", str(directory), "--tls-name", "127.0.0.1"]
    process = subprocess.Popen([*command, *tls, *options], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    secure = plain = 0
    for line in process.stderr:
        if found := re.search(r"TLS port (\d+)", line):
            secure = int(found[1])
        if found := re.search(r"listening on .*?(\d+)\)\]", line):
            plain = int(found[1])
            break
    assert plain and secure, "the simulator did not start"
    try:
        yield LiveSimulator(plain, secure, directory / "ca.pem")
    finally:
        process.terminate()
        process.wait(60)


@dataclass
class LiveClient:
    """The plugin's session; `told` keeps what the server sent, in order, before the plugin handles it."""

    model: realtime.RealtimeModel
    session: Any
    told: list[types.LiveServerMessage] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    errors: list[Any] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    spoken: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def contents(self) -> list[types.LiveServerContent]:
        return [message.server_content for message in self.told if message.server_content]

    @property
    def turns(self) -> int:
        return sum(1 for content in self.contents if content.turn_complete)

    def usages(self) -> list[types.UsageMetadata]:
        """The last snapshot of every turn, read by the rule of the contract."""
        last: dict[int, types.UsageMetadata] = {}
        ended, fresh = 0, True
        for message in self.told:
            content = message.server_content
            if content is not None and not content.turn_complete:
                fresh = False
            if message.usage_metadata:
                ends = content is not None and content.turn_complete
                last[ended if ends or not fresh else ended - 1] = message.usage_metadata
            if content is not None and content.turn_complete:
                ended, fresh = ended + 1, True
        return [last[turn] for turn in sorted(last)]

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        for _ in range(int(seconds / 0.02)):
            if condition():
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"no {what} within {seconds} s; errors {self.errors}; got {len(self.told)} messages")

    async def ended(self, turns: int) -> None:
        await self.until(lambda: self.turns >= turns, f"turn {turns}")

    def speak(self, pcm: bytes) -> None:
        """Pushes speech and the silence after it as fast as it goes: the server hears an audio clock."""
        data = pcm + bytes(2 * RATE)
        self.session.push_audio(rtc.AudioFrame(data, RATE, 1, len(data) // 2))


def meters(usage: types.UsageMetadata) -> dict[str, int]:
    """The disjoint meters of a raw usage, worked out the way a meter of ours has to."""
    given = {str(d.modality.value): d.token_count or 0 for d in usage.prompt_tokens_details or [] if d.modality}
    out = {str(d.modality.value): d.token_count or 0 for d in usage.response_tokens_details or [] if d.modality}
    counted = {
        "text_in": given.get("TEXT", 0),
        "audio_in": given.get("AUDIO", 0),
        "unassigned_in": (usage.prompt_token_count or 0) - sum(given.values()),
        "tool_prompt_in": usage.tool_use_prompt_token_count or 0,
        "text_out": out.get("TEXT", 0),
        "audio_out": out.get("AUDIO", 0),
        "thoughts_out": usage.thoughts_token_count or 0,
    }
    return {name: count for name, count in counted.items() if count}
