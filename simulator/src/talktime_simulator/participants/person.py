"""One synthetic participant in one interview, from the token to the goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from livekit import rtc

from talktime_simulator.speech import Voice

from .answers import answer
from .door import Entry
from .received import Received, reason_name
from .recording import RATE, Recording
from .turns import SPEECH_LEVEL, Hearing, Move
from .voice_track import Microphone

FRAME_MS = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to take part: at least `turns` turns and `min_seconds`; with `stay` until the other side ends it.

    `first_audio_seconds`: how long to wait for the agent; `max_seconds`: the end in any case.
    """

    turns: int
    min_seconds: float
    stay: bool
    max_seconds: float
    first_audio_seconds: float
    out: Path


class Person:
    """Joins, listens, answers in turn, records. `result` is written by the caller."""

    def __init__(self, number: int, plan: Plan, voice: Voice) -> None:
        self.number = number
        self._plan = plan
        self._voice = voice
        self._room = rtc.Room()
        self.received = Received(self._room)
        self.hearing = Hearing()
        self.turns = 0
        self.joined_at: float | None = None
        self.left_at: float | None = None
        self.first_audio: float | None = None
        self.disconnect_reason: str | None = None
        self._gone = asyncio.Event()
        self._microphone = Microphone()
        self._recording: Recording | None = None
        self._listeners: set[asyncio.Task[None]] = set()
        self._room.on("disconnected", self._on_disconnected)
        self._room.on("track_subscribed", self._on_track)

    async def take_part(self, entry: Entry, server_url: str | None = None) -> None:
        """The whole interview. Raises rtc.ConnectError when the room cannot be joined."""
        started = time.time()
        await self._room.connect(server_url or entry.server_url, entry.token)
        self.joined_at = time.time()
        self.received.note("joined", connect_seconds=round(self.joined_at - started, 3), **self.received.seen())
        self._recording = Recording(self._plan.out / f"{entry.room}.wav", self.joined_at)
        try:
            await self._microphone.publish(self._room)
            self.hearing.waiting_since = time.time() + self._plan.first_audio_seconds - self.hearing.patience
            await self._converse()
            self.received.note("leaving", **self.received.seen())
            await self.received.settle()
        finally:
            await self._leave()

    async def _converse(self) -> None:
        while not self._gone.is_set():
            now = time.time()
            if self._lost_patience(now):
                return
            # Leaving is decided when it is our turn: the last answer has been asked for, and is paid for.
            if self.hearing.move(now) is Move.SPEAK:
                if self._had_enough(now):
                    return
                await self._speak()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), FRAME_MS / 1000)

    def _lost_patience(self, now: float) -> bool:
        lasted = now - (self.joined_at or now)
        silent = self.first_audio is None and lasted >= self._plan.first_audio_seconds
        return silent or lasted >= self._plan.max_seconds

    def _had_enough(self, now: float) -> bool:
        lasted = now - (self.joined_at or now)
        return not self._plan.stay and self.turns >= self._plan.turns and lasted >= self._plan.min_seconds

    async def _speak(self) -> None:
        text = answer(self.turns, self.number)
        pcm = await self._voice.render(text)
        self.received.note("speaks", turn=self.turns, text=text, seconds=round(len(pcm) / 2 / RATE, 2))
        done = asyncio.ensure_future(self._microphone.say(pcm))
        gone = asyncio.ensure_future(self._gone.wait())
        await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
        for task in (done, gone):
            task.cancel()
        self.turns += 1
        self.hearing.spoke(time.time())

    def _on_track(self, track: rtc.Track, _: rtc.RemoteTrackPublication, person: rtc.RemoteParticipant) -> None:
        self.received.note("track_subscribed", identity=person.identity, kind=int(track.kind))
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            task = asyncio.create_task(self._listen(track))
            self._listeners.add(task)
            task.add_done_callback(self._listeners.discard)

    async def _listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=FRAME_MS)
        try:
            async for event in stream:
                self._hear(event.frame)
        finally:
            await stream.aclose()

    def _hear(self, frame: rtc.AudioFrame) -> None:
        now = time.time()
        samples = np.frombuffer(frame.data, dtype=np.int16)
        loud = float(np.linalg.norm(samples.astype(np.float32))) >= SPEECH_LEVEL * len(samples) ** 0.5
        self.hearing.hear(now, loud, len(samples) / RATE)
        if loud and self.first_audio is None and self.joined_at is not None:
            self.first_audio = round(now - self.joined_at, 3)
            self.received.note("first_audio", seconds=self.first_audio)
        if self._recording is not None:
            self._recording.write(now, samples.tobytes())

    def _on_disconnected(self, reason: Any) -> None:
        name = self.disconnect_reason = reason_name(reason)
        self.left_at = time.time()
        self.received.note("disconnected", reason=name)
        self._gone.set()

    async def _leave(self) -> None:
        for task in list(self._listeners):
            task.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        await self._microphone.aclose()
        with contextlib.suppress(TimeoutError):
            # Seen once against a hung server: disconnect() never returned.
            await asyncio.wait_for(self._room.disconnect(), 10)
        self.left_at = self.left_at or time.time()
        self.disconnect_reason = self.disconnect_reason or "CLIENT_INITIATED"
        if self._recording is not None:
            self._recording.close()

    @property
    def ended_by_other_side(self) -> bool:
        return self.disconnect_reason not in (None, "CLIENT_INITIATED")

    def problems(self) -> list[str]:
        """Why this session did not work; empty when it did."""
        found = []
        lasted = (self.left_at or 0) - (self.joined_at or 0)
        if self.first_audio is None:
            found.append("the agent was never heard")
        if self._plan.stay:
            if not self.ended_by_other_side:
                found.append(f"the other side did not end the session within {self._plan.max_seconds:.0f} s")
            return found
        if self.hearing.agent_turns < self._plan.turns or self.turns < self._plan.turns:
            found.append(f"{self.hearing.agent_turns} agent turns and {self.turns} own turns of {self._plan.turns}")
        if lasted < self._plan.min_seconds:
            found.append(f"lasted {lasted:.1f} s of {self._plan.min_seconds:.0f} s")
        return found

    def result(self, entry: Entry) -> dict[str, Any]:
        """What was done and heard, for the session's JSON file; `received` is all that a participant can see."""
        lasted = (self.left_at or 0) - (self.joined_at or 0)
        return {
            "session": entry.room,
            "participant": self.number,
            "waited_for_token": round(entry.waited, 3),
            "joined_at": self.joined_at,
            "left_at": self.left_at,
            "seconds": round(lasted, 2),
            "turns": self.turns,
            "agent_turns": self.hearing.agent_turns,
            "agent_speech_seconds": round(self.hearing.agent_seconds, 2),
            "agent_starts": self.hearing.starts,
            "unanswered": self.hearing.unanswered,
            "first_audio_seconds": self.first_audio,
            "disconnect_reason": self.disconnect_reason,
            "recording": {"file": f"{entry.room}.wav", "started_at": self.joined_at, "rate": RATE},
            "received": {
                "server_url": entry.server_url,
                "token": entry.token,
                "claims": entry.claims,
                "timeline": self.received.events,
                "data": self.received.data,
                "texts": self.received.texts,
            },
            "problems": self.problems(),
        }
