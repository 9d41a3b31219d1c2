"""One client: its session, conversation and buffer; client events in, server events out."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import WSMsgType, web

from .conversation import Conversation, input_prompt, item_of, spoken_user_item
from .faults import OPENAI, FaultPlan
from .generation import Generation, Order, Pace
from .interviewer import given_sentence, is_closing, is_wrap_up, reply, response_instructions
from .journal import Journal, timestamp
from .line import Line, NewId
from .prompt import ContextOverflowError, Prompt
from .settings import InvalidRequestError, SessionSettings, cap_of, tools_text
from .speech import Voice
from .transcription import Transcription
from .utterance import Utterance
from .vad import EnergyVad, SpeechStarted, SpeechStopped, TurnDetection

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class World:
    """What all connections share."""

    truth: Journal
    log: Journal
    voice: Voice
    faults: FaultPlan
    pace: Pace
    transcription_seconds: float
    new_id: NewId
    now: Callable[[], datetime]
    connection_seconds: float = 600.0
    """How long Gemini Live keeps a connection."""


class Connection:
    """Serves one WebSocket from `session.created` until it closes."""

    def __init__(self, world: World, line: Line, model: str, without_quota: bool) -> None:
        self._world = world
        self._line = line
        self._without_quota = without_quota
        self.session_id = world.new_id("sess")
        self._settings = SessionSettings(self.session_id, model)
        self._conversation = Conversation()
        self._vad = EnergyVad(self._settings.turn_detection or TurnDetection())
        self._speech_item: str | None = None
        self._previous: Prompt | None = None
        self._current: Generation | None = None
        self._open: dict[str, Generation] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Callable[[Event], Awaitable[None]]] = {
            "session.update": self._on_session_update,
            "input_audio_buffer.append": self._on_append,
            "input_audio_buffer.commit": self._on_commit,
            "input_audio_buffer.clear": self._on_clear,
            "conversation.item.create": self._on_item_create,
            "conversation.item.delete": self._on_item_delete,
            "conversation.item.truncate": self._on_item_truncate,
            "conversation.item.retrieve": self._on_item_retrieve,
            "response.create": self._on_response_create,
            "response.cancel": self._on_response_cancel,
        }

    async def serve(self, socket: web.WebSocketResponse) -> None:
        """Reads until the client is gone; open responses and transcriptions are then billed as undelivered."""
        self._note("session.created", model=self._settings.wire["model"])
        try:
            await self._line.send("session.created", session=self._settings.wire)
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._receive(message.data)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._note("session.closed")

    async def _receive(self, data: str) -> None:
        event: Event = {}
        try:
            event = json.loads(data)
            await self._handlers[event["type"]](event)
        except InvalidRequestError as error:
            await self._line.error(error.code, str(error), event.get("event_id"), error.param)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"the event was not understood: {type(error).__name__} {error}"
            await self._line.error("invalid_event", reason, event.get("event_id") if isinstance(event, dict) else None)

    def _note(self, event: str, **fields: Any) -> None:
        at = timestamp(self._world.now())
        self._world.log.append({"at": at, "provider_session": self.session_id, "event": event, **fields})

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _on_session_update(self, event: Event) -> None:
        before = self._settings.turn_detection
        self._settings.update(event["session"])
        if self._settings.turn_detection not in (None, before):
            self._vad.settings = self._settings.turn_detection or TurnDetection()
        wire = self._settings.wire
        self._note(
            "session.update",
            fields=sorted(event["session"]),
            instructions_digest=digest(self._settings.instructions),
            max_output_tokens=wire["max_output_tokens"],
            truncation=wire["truncation"],
            turn_detection=wire["audio"]["input"]["turn_detection"],
        )
        await self._line.send("session.updated", session=wire)

    async def _on_append(self, event: Event) -> None:
        try:
            pcm = base64.b64decode(event["audio"], validate=True)
        except binascii.Error as error:
            raise InvalidRequestError("invalid_value", "audio is not base64", "audio") from error
        for heard in self._vad.feed(pcm, detect=self._settings.turn_detection is not None):
            if isinstance(heard, SpeechStarted):
                await self._speech_started(heard)
            else:
                await self._speech_stopped(heard)

    async def _speech_started(self, heard: SpeechStarted) -> None:
        self._speech_item = self._world.new_id("item")
        fields = {"audio_start_ms": heard.audio_start_ms, "item_id": self._speech_item}
        self._note("input_audio_buffer.speech_started", **fields)
        await self._line.send("input_audio_buffer.speech_started", **fields)
        if self._vad.settings.interrupt_response and self._current is not None:
            self._current.cancel("turn_detected")

    async def _speech_stopped(self, heard: SpeechStopped) -> None:
        item_id = self._speech_item or self._world.new_id("item")
        self._speech_item = None
        fields = {"audio_end_ms": heard.audio_end_ms, "item_id": item_id}
        self._note("input_audio_buffer.speech_stopped", **fields)
        await self._line.send("input_audio_buffer.speech_stopped", **fields)
        await self._commit(item_id, heard.audio_end_ms - heard.audio_start_ms)
        if self._vad.settings.create_response:
            await self._respond({}, None)

    async def _on_commit(self, event: Event) -> None:
        length = self._vad.buffered_ms
        if length < 100:
            raise InvalidRequestError(
                "input_audio_buffer_commit_empty", f"buffer too small: {length} ms, at least 100 ms are needed"
            )
        item_id = self._speech_item or self._world.new_id("item")
        self._speech_item = None
        self._vad.forget()
        await self._commit(item_id, length)

    async def _commit(self, item_id: str, milliseconds: int) -> None:
        item = spoken_user_item(item_id, milliseconds)
        before = self._conversation.insert(item)
        self._note("input_audio_buffer.committed", item_id=item_id, audio_ms=milliseconds, tokens=item.tokens.audio)
        await self._line.send("input_audio_buffer.committed", previous_item_id=before, item_id=item_id)
        await self._line.send("conversation.item.added", previous_item_id=before, item=item.body)
        await self._line.send("conversation.item.done", previous_item_id=before, item=item.body)
        if self._settings.transcription is not None:
            job = Transcription(self.session_id, item, milliseconds, self._settings.transcription, self._world.now())
            self._start(job.run(self._line, self._world.truth, self._world.transcription_seconds))

    async def _on_clear(self, event: Event) -> None:
        self._vad.forget()
        self._speech_item = None
        await self._line.send("input_audio_buffer.cleared")

    async def _on_item_create(self, event: Event) -> None:
        body = event["item"]
        item = item_of(body, body.get("id") or self._world.new_id("item"))
        before = self._conversation.insert(item, event.get("previous_item_id"))
        self._note("conversation.item.create", item_id=item.id, role=body.get("role"))
        await self._line.send("conversation.item.added", previous_item_id=before, item=item.body)
        await self._line.send("conversation.item.done", previous_item_id=before, item=item.body)

    async def _on_item_delete(self, event: Event) -> None:
        self._conversation.delete(event["item_id"])
        self._note("conversation.item.delete", item_id=event["item_id"])
        await self._line.send("conversation.item.deleted", item_id=event["item_id"])

    async def _on_item_truncate(self, event: Event) -> None:
        self._conversation.truncate(event["item_id"], event["audio_end_ms"])
        cut = {key: event.get(key, 0) for key in ("item_id", "content_index", "audio_end_ms")}
        self._note("conversation.item.truncate", **cut)
        await self._line.send("conversation.item.truncated", **cut)

    async def _on_item_retrieve(self, event: Event) -> None:
        item = self._conversation.get(event["item_id"])
        if item is None:
            raise InvalidRequestError("item_retrieve_invalid_item_id", "no such item", "item_id")
        await self._line.send("conversation.item.retrieved", item=item.body)

    async def _on_response_create(self, event: Event) -> None:
        await self._respond(event.get("response") or {}, event.get("event_id"))

    async def _respond(self, wanted: dict[str, Any], event_id: str | None) -> None:
        settings = self._settings
        extra = response_instructions(settings.instructions, wanted.get("instructions"))
        in_conversation = wanted.get("conversation") != "none"
        self._note(
            "response.create",
            instructions_digest=digest(wanted.get("instructions") or settings.instructions),
            instructions_extra=extra,
            wrap_up=is_wrap_up(extra),
            closing=is_closing(extra),
            conversation="auto" if in_conversation else "none",
        )
        if self._without_quota:
            await self._line.error("insufficient_quota", "You exceeded your current quota.", event_id)
            await self._line.close(4000, "insufficient_quota")
            return
        if in_conversation and self._current is not None and not self._current.ended:
            raise InvalidRequestError(
                "conversation_already_has_active_response", "Conversation already has an active response in progress"
            )
        cap = cap_of(wanted.get("max_output_tokens") or settings.wire["max_output_tokens"], "response")
        order = Order(
            response_id=self._world.new_id("resp"),
            item_id=self._world.new_id("item"),
            model=settings.wire["model"],
            prompt=self._prompt(wanted),
            previous=self._previous,
            cap=cap,
            in_conversation=in_conversation,
            modality="text" if wanted.get("output_modalities") == ["text"] else settings.modality,
            metadata=wanted.get("metadata"),
            created_at=self._world.now(),
            faults=self._world.faults.take(OPENAI),
        )
        turn = sum(1 for item in self._conversation.items if item.body.get("role") == "assistant")
        text = reply(turn, int(digest(self.session_id), 16), extra)
        self._note("response.created", response_id=order.response_id, given=given_sentence(extra) is not None)
        pcm = await self._world.voice.render(text) if order.modality == "audio" else b""
        self._generate(order, Utterance(text, pcm))

    def _prompt(self, wanted: dict[str, Any]) -> Prompt:
        settings = self._settings
        tools = tools_text(wanted["tools"]) if wanted.get("tools") is not None else settings.tools
        instructions = wanted.get("instructions") or settings.instructions
        if wanted.get("input") is not None:
            return input_prompt(wanted["input"], self._conversation, tools, instructions)
        try:
            return self._conversation.prompt(tools, instructions, settings.truncation)
        except ContextOverflowError as error:
            raise InvalidRequestError(
                "context_length_exceeded", "the conversation is over the limit and truncation is disabled"
            ) from error

    def _generate(self, order: Order, utterance: Utterance) -> None:
        world = self._world
        generation = Generation(
            order, utterance, self._line, self._conversation, world.pace, self.session_id, world.truth, world.log
        )
        self._open[order.response_id] = generation
        if order.in_conversation:
            self._current, self._previous = generation, order.prompt
        self._start(self._run(generation))

    async def _run(self, generation: Generation) -> None:
        try:
            await generation.run()
        finally:
            self._open.pop(generation.order.response_id, None)
            if self._current is generation:
                self._current = None

    async def _on_response_cancel(self, event: Event) -> None:
        wanted = event.get("response_id")
        generation = self._open.get(wanted) if wanted else self._current
        self._note("response.cancel", response_id=generation.order.response_id if generation else None)
        if generation is None:
            raise InvalidRequestError(
                "response_cancel_not_active", "Cancellation failed: no active response found", "response_id"
            )
        generation.cancel("client_cancelled")


def digest(text: str) -> str:
    """Short fingerprint of instructions: enough to see that they changed, without telling them."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
