"""GPT-Live, the full-duplex API that bills time: a continuous stream out, cumulative seconds as usage."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Any

from aiohttp import WSMsgType, web

from .connection import World, digest
from .conversation import BYTES_PER_MS
from .faults import OPENAI, Fault
from .interviewer import is_closing, is_wrap_up, reply, transcript_of
from .journal import timestamp
from .line import Line
from .settings import InvalidRequestError
from .vad import EnergyVad, SpeechStarted, TurnDetection

FRAME_MS = 100
USAGE_EVERY_MS = 5_000
SILENCE = bytes(FRAME_MS * BYTES_PER_MS)

Event = dict[str, Any]


class GptLive:
    """Serves one WebSocket. Its clock is that of the audio it sends, silence included; muting does not stop it.

    What the voice model delegates to a backend model, and standby, are not simulated.
    """

    def __init__(self, world: World, line: Line, without_quota: bool) -> None:
        self._world = world
        self._line = line
        self._without_quota = without_quota
        self.session_id = world.new_id("live")
        self._model = ""
        self._instructions = ""
        self._vad = EnergyVad(TurnDetection())
        self._muted = False
        self._sent_ms = 0
        self._speaking = b""
        self._words = ""
        self._answers = 0
        self._stream: asyncio.Task[None] | None = None
        self._closed = False
        self._handlers: dict[str, Callable[[Event], Awaitable[None]]] = {
            "session.input_audio.append": self._on_audio,
            "session.input_audio.mute": self._on_mute,
            "session.input_audio.unmute": self._on_unmute,
            "session.commentary.append": self._on_commentary,
            "session.instructions.append": self._on_context,
            "session.thinking.append": self._on_context,
            "session.update": self._on_update,
            "session.close": self._on_close,
        }

    async def serve(self, socket: web.WebSocketResponse) -> None:
        """Reads until the session is closed or the client is gone; then the seconds are billed, told or not."""
        faults: dict[Fault, float] = {}
        started_at = self._world.now()
        told = False
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                if self._stream is not None:
                    await self._receive(event)
                elif await self._start(event):
                    faults, started_at = self._world.faults.take(OPENAI), self._world.now()
                    self._stream = asyncio.create_task(self._talk(faults.get(Fault.DROP_SOCKET)))
                if self._closed:
                    await asyncio.sleep(faults.get(Fault.LATE_DONE, 0))
                    told = await self._line.send(
                        "session.closed", reason="close_requested", usage={"seconds": self.seconds}
                    )
                    await self._line.close(1000, "")
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            await self._line.error("invalid_event", f"the event was not understood: {type(error).__name__} {error}")
        finally:
            if self._stream is not None:
                self._stream.cancel()
                await asyncio.gather(self._stream, return_exceptions=True)
                self._bill(timestamp(started_at), told)

    @property
    def seconds(self) -> float:
        """Cumulative, on the audio clock."""
        return self._sent_ms / 1000

    async def _start(self, event: Event) -> bool:
        if event["type"] != "session.start":
            await self._line.error("invalid_event", "session.start must come first", event.get("event_id"))
            return False
        if self._without_quota:
            await self._line.error("insufficient_quota", "You exceeded your current quota.", event.get("event_id"))
            await self._line.close(4000, "insufficient_quota")
            return False
        self._model = event["session"]["model"]
        self._instructions = event["session"].get("instructions") or ""
        self._note("session.created", model=self._model, instructions_digest=digest(self._instructions))
        return await self._line.send("session.started", session={"id": self.session_id})

    async def _receive(self, event: Event) -> None:
        try:
            await self._handlers[event["type"]](event)
        except InvalidRequestError as error:
            await self._line.error(error.code, str(error), event.get("event_id"), error.param)

    def _note(self, event: str, **fields: Any) -> None:
        at = timestamp(self._world.now())
        self._world.log.append({"at": at, "provider_session": self.session_id, "event": event, **fields})

    async def _talk(self, drop_after: float | None) -> None:
        """The stream out, in time with the clock: speech when there is some, else silence."""
        clock = asyncio.get_running_loop()
        due = clock.time()
        while True:
            frame, self._speaking = self._speaking[: len(SILENCE)], self._speaking[len(SILENCE) :]
            pcm = frame + bytes(len(SILENCE) - len(frame))
            await self._line.send("session.output_audio.delta", delta=base64.b64encode(pcm).decode())
            if frame and self._words:
                span = {"start_ms": self._sent_ms, "end_ms": self._sent_ms + FRAME_MS}
                await self._line.send("session.output_transcript.delta", delta=self._words, **span)
                self._words = ""
            self._sent_ms += FRAME_MS
            if self._sent_ms % USAGE_EVERY_MS == 0:
                await self._line.send("session.usage.updated", usage={"seconds": self.seconds})
            if drop_after is not None and self.seconds >= drop_after:
                self._line.drop()
                return
            due += FRAME_MS / 1000 / self._world.pace.playback
            await asyncio.sleep(max(0.0, due - clock.time()))

    async def _on_audio(self, event: Event) -> None:
        try:
            pcm = base64.b64decode(event["audio"], validate=True)
        except binascii.Error as error:
            raise InvalidRequestError("invalid_value", "audio is not base64", "audio") from error
        if self._muted:
            return
        for heard in self._vad.feed(pcm):
            if isinstance(heard, SpeechStarted):
                self._speaking, self._words = b"", ""
                continue
            text = transcript_of(f"{self.session_id}{self._answers}", heard.audio_end_ms - heard.audio_start_ms)
            span = {"start_ms": heard.audio_start_ms, "end_ms": heard.audio_end_ms}
            await self._line.send("session.input_transcript.delta", delta=text, **span)
            await self._say("")

    async def _on_commentary(self, event: Event) -> None:
        extra = str(event["content"])
        self._note(
            "response.create",
            instructions_digest=digest(extra),
            instructions_extra=extra,
            wrap_up=is_wrap_up(extra),
            closing=is_closing(extra),
            conversation="auto",
        )
        await self._acknowledge("session.commentary.appended", event)
        await self._say(extra)

    async def _say(self, extra: str) -> None:
        text = reply(self._answers, int(digest(self._instructions), 16), extra)
        self._answers += 1
        pcm = await self._world.voice.render(text)
        self._speaking, self._words = pcm, text

    async def _on_context(self, event: Event) -> None:
        await self._acknowledge(event["type"].replace(".append", ".appended"), event)

    async def _on_mute(self, event: Event) -> None:
        self._muted = True
        self._vad.forget()
        await self._acknowledge("session.input_audio.muted", event)

    async def _on_unmute(self, event: Event) -> None:
        self._muted = False
        await self._acknowledge("session.input_audio.unmuted", event)

    async def _on_update(self, event: Event) -> None:
        await self._acknowledge("session.updated", event)

    async def _on_close(self, event: Event) -> None:
        if self._stream is not None:
            self._stream.cancel()
        self._closed = True

    async def _acknowledge(self, name: str, event: Event) -> None:
        await self._line.send(name, client_event_id=event.get("event_id"))

    def _bill(self, at: str, told: bool) -> None:
        record = {
            "provider_session": self.session_id,
            "response_id": "session",
            "model": self._model,
            "kind": "response",
            "conversation": "auto",
            # By the second, a started one counts.
            "meters": {"active_seconds": ceil(self.seconds)},
            "status": "completed" if self._closed else "cancelled",
            "delivered": told,
            "at": at,
        }
        self._world.truth.append(record)
        self._world.log.append({**record, "event": "session.closed", "reason": None})
