"""One response: speaks at a pace, stops at its cap or when cancelled, and is billed for what it generated."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .conversation import Conversation, Item
from .faults import Fault
from .journal import Journal, timestamp
from .line import Line
from .prompt import Prompt, cached
from .tokens import Tokens, Usage
from .utterance import Utterance

STEPS_PER_DELTA = 4
"""200 ms of audio per event."""


@dataclass(frozen=True, slots=True)
class Pace:
    """`speed`: generation against real time; `first_audio`: seconds until the first delta; `playback`: the speed
    against real time at which Gemini Live believes to be played back (its turns end when it thinks they were heard)."""

    speed: float = 3.0
    first_audio: float = 0.25
    playback: float = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to answer. `previous` is the input the cache still holds."""

    response_id: str
    item_id: str
    model: str
    prompt: Prompt
    previous: Prompt | None
    cap: int | None
    in_conversation: bool
    modality: str
    metadata: dict[str, Any] | None
    created_at: datetime
    faults: dict[Fault, float]

    @property
    def base(self) -> dict[str, Any]:
        return {
            "object": "realtime.response",
            "id": self.response_id,
            "conversation_id": "conv_default" if self.in_conversation else None,
            "output_modalities": [self.modality],
            "max_output_tokens": self.cap or "inf",
            "metadata": self.metadata,
        }


@dataclass(slots=True)
class Generation:
    """Runs one Order. `speech` renders the answer once the generation has begun."""

    order: Order
    utterance: Utterance
    line: Line
    conversation: Conversation
    pace: Pace
    session_id: str
    truth: Journal
    log: Journal
    step: int = 0
    status: str = "in_progress"
    reason: str | None = None
    ended: bool = False
    _begun: bool = False
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _item: Item | None = None

    def cancel(self, reason: str) -> None:
        """Stops after the present delta; what was generated is billed."""
        if self.reason is None and self.status == "in_progress":
            self.reason = reason
            self._stop.set()

    async def run(self) -> None:
        """Until `response.done`. Cancelling the task (the socket is gone) bills what was generated, undelivered."""
        delivered = False
        try:
            await asyncio.sleep(self.order.faults.get(Fault.LATE_CREATED, 0))
            self._begun = True
            created = {**self.order.base, "status": "in_progress", "output": [], "usage": None, "status_details": None}
            if not await self.line.send("response.created", response=created):
                return
            await self._speak()
            await self._finish_item()
            delivered = await self._done()
        finally:
            if self._begun:
                self._bill(delivered)

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt=self.order.prompt.tokens,
            cached=cached(self.order.prompt, self.order.previous),
            output=self.utterance.tokens(self.step) if self.step else Tokens(),
        )

    async def _speak(self) -> None:
        until = self.utterance.steps_within(self.order.cap)
        drop_at, fail_at = self.order.faults.get(Fault.DROP_SOCKET), self.order.faults.get(Fault.FAILED)
        clock = asyncio.get_running_loop()
        due = clock.time() + self.pace.first_audio
        while self.step < until and not await self._stopped_before(due):
            if self._item is None:
                await self._open_item()
            await self._delta(min(until, self.step + STEPS_PER_DELTA))
            if drop_at is not None and self.step * self.utterance.seconds_per_step >= drop_at:
                self.line.drop()
            if fail_at is not None and self.step * self.utterance.seconds_per_step >= fail_at:
                self.status = "failed"
                return
            due += STEPS_PER_DELTA * self.utterance.seconds_per_step / self.pace.speed
        if self.reason:
            self.status = "cancelled"
        elif until < self.utterance.steps:
            self.status, self.reason = "incomplete", "max_output_tokens"
        else:
            self.status = "completed"

    async def _stopped_before(self, due: float) -> bool:
        wait = due - asyncio.get_running_loop().time()
        if wait > 0 and not self._stop.is_set():
            try:
                await asyncio.wait_for(self._stop.wait(), wait)
            except TimeoutError:
                return False
        return self._stop.is_set()

    @property
    def _where(self) -> dict[str, Any]:
        return {
            "response_id": self.order.response_id,
            "item_id": self.order.item_id,
            "output_index": 0,
            "content_index": 0,
        }

    def _body(self, status: str) -> dict[str, Any]:
        text = self.utterance.text_until(self.step)
        spoken = {"type": "output_audio", "transcript": text}
        written = {"type": "output_text", "text": text}
        return {
            "id": self.order.item_id,
            "object": "realtime.item",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [] if status == "in_progress" else [spoken if self.utterance.pcm else written],
        }

    async def _open_item(self) -> None:
        self._item = Item(self.order.item_id, self._body("in_progress"), Tokens())
        place = {"response_id": self.order.response_id, "output_index": 0}
        await self.line.send("response.output_item.added", **place, item=self._item.body)
        if self.order.in_conversation:
            before = self.conversation.insert(self._item)
            await self.line.send("conversation.item.added", previous_item_id=before, item=self._item.body)
        part = {"type": "audio", "transcript": ""} if self.utterance.pcm else {"type": "text", "text": ""}
        await self.line.send("response.content_part.added", **self._where, part=part)

    async def _delta(self, until: int) -> None:
        before, self.step = self.step, until
        text = self.utterance.text_until(until)[len(self.utterance.text_until(before)) :]
        kind = "response.output_audio_transcript.delta" if self.utterance.pcm else "response.output_text.delta"
        if text:
            await self.line.send(kind, **self._where, delta=text)
        pcm = self.utterance.pcm_until(until)[len(self.utterance.pcm_until(before)) :]
        if pcm:
            await self.line.send("response.output_audio.delta", **self._where, delta=base64.b64encode(pcm).decode())
        if self._item is not None:
            self._item.tokens = self.utterance.tokens(until)
            self._item.audio_ms = self.utterance.audio_ms(until)

    async def _finish_item(self) -> None:
        if self._item is None:
            return
        self._item.body = self._body("completed" if self.status == "completed" else "incomplete")
        text = self.utterance.text_until(self.step)
        if self.utterance.pcm:
            await self.line.send("response.output_audio.done", **self._where)
            await self.line.send("response.output_audio_transcript.done", **self._where, transcript=text)
            part = {"type": "audio", "transcript": text}
        else:
            await self.line.send("response.output_text.done", **self._where, text=text)
            part = {"type": "text", "text": text}
        await self.line.send("response.content_part.done", **self._where, part=part)
        place = {"response_id": self.order.response_id, "output_index": 0}
        await self.line.send("response.output_item.done", **place, item=self._item.body)
        if self.order.in_conversation:
            await self.line.send("conversation.item.done", previous_item_id=None, item=self._item.body)

    async def _done(self) -> bool:
        await asyncio.sleep(self.order.faults.get(Fault.LATE_DONE, 0))
        self.ended = True  # before the event goes out: its reader may answer at once with the next response.create
        details: dict[str, Any] | None = {"type": self.status, "reason": self.reason}
        if self.status == "completed":
            details = None
        elif self.status == "failed":
            details = {"type": "failed", "error": {"type": "server_error", "code": "server_error"}}
        response = {
            **self.order.base,
            "status": self.status,
            "status_details": details,
            "output": [self._item.body] if self._item else [],
            "usage": self.usage.wire(),
        }
        delivered = await self.line.send("response.done", response=response)
        if Fault.DUPLICATE_DONE in self.order.faults:
            await self.line.send("response.done", response=response)
        return delivered

    def _bill(self, delivered: bool) -> None:
        status = "cancelled" if self.status == "in_progress" else self.status
        record = {
            "provider_session": self.session_id,
            "response_id": self.order.response_id,
            "model": self.order.model,
            "kind": "response",
            "conversation": "auto" if self.order.in_conversation else "none",
            "meters": self.usage.meters(),
            "status": status,
            "delivered": delivered,
            "at": timestamp(self.order.created_at),
        }
        self.truth.append(record)
        self.log.append({**record, "event": "response.done", "reason": self.reason})
