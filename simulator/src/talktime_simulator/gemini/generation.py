"""One turn of the model: speaks at a pace, tells its usage as it grows, and ends when it believes it was heard."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from talktime_simulator.faults import Fault
from talktime_simulator.generation import Pace
from talktime_simulator.journal import Journal, timestamp
from talktime_simulator.tokens import Tokens
from talktime_simulator.utterance import Utterance

from .tokens import LiveUsage
from .wire import Wire

STEPS_PER_MESSAGE = 5
"""200 ms of audio per message."""


@dataclass(frozen=True, slots=True)
class LiveOrder:
    """What to answer. `number` counts the generations of the connection from 1; `heard` is the input transcription."""

    number: int
    model: str
    prompt: Tokens
    unassigned: int
    tool_prompt: int
    thoughts: int
    cap: int | None
    heard: str
    created_at: datetime
    faults: dict[Fault, float]


@dataclass(slots=True)
class LiveGeneration:
    """Runs one LiveOrder; `answered` gets what goes into the context before anybody can react to its end."""

    order: LiveOrder
    utterance: Utterance
    wire: Wire
    pace: Pace
    session_id: str
    truth: Journal
    log: Journal
    answered: Callable[[Tokens], None]
    step: int = 0
    status: str = "cancelled"
    told: bool = False
    """Something of the answer has been sent."""
    _interrupted: asyncio.Event = field(default_factory=asyncio.Event)
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def interrupt(self) -> None:
        """The user speaks: stops after the present message; what was generated is billed."""
        self._interrupted.set()

    def hurry(self) -> None:
        """The next turn waits: usage that is late comes before it."""
        self._hurry.set()

    async def run(self) -> None:
        """Until the turn is complete and billed. Cancelling (the socket is gone) bills it as undelivered."""
        delivered = False
        try:
            await self._hear()
            await self._speak()
            delivered = await self._complete()
        finally:
            self._bill(delivered)

    @property
    def output(self) -> Tokens:
        return self.utterance.tokens(self.step) if self.step else Tokens()

    @property
    def usage(self) -> LiveUsage:
        order = self.order
        return LiveUsage(order.prompt, order.unassigned, order.tool_prompt, self.output, order.thoughts)

    @property
    def _late(self) -> float | None:
        return self.order.faults.get(Fault.LATE_USAGE)

    async def _hear(self) -> None:
        if self.order.heard:
            await self.wire.send(serverContent={"inputTranscription": {"text": self.order.heard}})

    async def _speak(self) -> None:
        cap = None if self.order.cap is None else self.order.cap - self.order.thoughts
        until = self.utterance.steps_within(cap)
        drop_at = self.order.faults.get(Fault.DROP_SOCKET)
        clock = asyncio.get_running_loop()
        due = clock.time() + self.pace.first_audio
        heard_at = due
        while self.step < until and not await self._interrupted_before(due):
            await self._message(min(until, self.step + STEPS_PER_MESSAGE))
            if drop_at is not None and self.step * self.utterance.seconds_per_step >= drop_at:
                self.wire.drop()
            due += STEPS_PER_MESSAGE * self.utterance.seconds_per_step / self.pace.speed
        if self.step < until:
            return
        self.status = "completed" if until == self.utterance.steps else "incomplete"
        await self.wire.send(serverContent={"generationComplete": True})
        heard_at += self.step * self.utterance.seconds_per_step / self.pace.playback
        await self._interrupted_before(heard_at)

    async def _interrupted_before(self, due: float) -> bool:
        wait = due - asyncio.get_running_loop().time()
        if wait > 0:
            await happened(self._interrupted, wait)
        return self._interrupted.is_set()

    async def _message(self, until: int) -> None:
        before, self.step = self.step, until
        text = self.utterance.text_until(until)[len(self.utterance.text_until(before)) :]
        pcm = self.utterance.pcm_until(until)[len(self.utterance.pcm_until(before)) :]
        part: dict[str, Any] = {"text": text}
        if pcm:
            part = {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": base64.b64encode(pcm).decode()}}
        # A snapshot: what this turn has used so far.
        usage = None if self._late is not None else self.usage.wire()
        self.told = True
        await self.wire.send(serverContent={"modelTurn": {"role": "model", "parts": [part]}}, usageMetadata=usage)
        if pcm and text and self.utterance.transcribed:
            await self.wire.send(serverContent={"outputTranscription": {"text": text}})

    async def _complete(self) -> bool:
        if self._interrupted.is_set():
            await self.wire.send(serverContent={"interrupted": True})
        await asyncio.sleep(self.order.faults.get(Fault.LATE_DONE, 0))
        self.answered(Tokens(audio=self.output.audio, text=0 if self.utterance.pcm else self.output.text))
        usage = self.usage.wire()
        if self._late is None:
            delivered = await self.wire.send(serverContent={"turnComplete": True}, usageMetadata=usage)
        else:
            await self.wire.send(serverContent={"turnComplete": True})
            await happened(self._hurry, self._late)
            delivered = await self.wire.send(usageMetadata=usage)
        if Fault.DUPLICATE_DONE in self.order.faults:
            await self.wire.send(usageMetadata=usage)
        return delivered

    def _bill(self, delivered: bool) -> None:
        record = {
            "provider_session": self.session_id,
            "response_id": str(self.order.number),
            "model": self.order.model,
            "kind": "response",
            "conversation": "auto",
            "meters": self.usage.meters(),
            "status": self.status,
            "delivered": delivered,
            "at": timestamp(self.order.created_at),
        }
        self.truth.append(record)
        reason = "interrupted" if self._interrupted.is_set() else None
        self.log.append({**record, "event": "response.done", "reason": reason})


@dataclass(slots=True)
class Ask:
    """Something to answer, from its trigger on: it may have to wait for the turn before, and be interrupted then."""

    heard: str
    searched: bool
    extra: str
    generation: LiveGeneration | None = None
    ended: bool = False
    _interrupted: bool = False

    @property
    def unspoken(self) -> bool:
        """Still open, and nothing of the answer has been sent."""
        return not self.ended and (self.generation is None or not self.generation.told)

    def begin(self, generation: LiveGeneration) -> None:
        self.generation = generation
        if self._interrupted:
            generation.interrupt()

    def interrupt(self) -> None:
        """The user speaks, or new content came."""
        self._interrupted = True
        if self.generation is not None:
            self.generation.interrupt()

    def hurry(self) -> None:
        """The next turn waits."""
        if self.generation is not None:
            self.generation.hurry()


async def happened(event: asyncio.Event, seconds: float) -> bool:
    """Whether `event` is set within `seconds`."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
