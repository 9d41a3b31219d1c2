"""Gemini Live: livekit's Google RealtimeModel with the gate built into its session.

Gemini answers by itself as soon as it believes that the user has finished, so a response cannot be asked for or
withheld. What is gated is what can make it answer: the user's audio, and the turns we write. Both pass only while the
account holds two worst cases: the answer that may be on its way already, and the one that what passes now may start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from google.genai import errors, types
from google.genai.live import AsyncSession
from livekit import rtc
from livekit.agents import llm
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.plugins.google.realtime import realtime_api as realtime
from websockets.exceptions import InvalidStatus

from talktime_agent.gemini_ears import Ears
from talktime_agent.provider import Gate, Listener

logger = logging.getLogger("talktime.agent.gemini")

# Of the time that a goAway leaves, kept for closing and connecting anew.
LEAVE_SECONDS = 3.0
# Usage that does not come with the end of its turn comes about a second later.
USAGE_SECONDS = 1.5


class ListeningGate(Gate, Protocol):
    """A gate that also decides whether the user is heard."""

    def hears(self) -> bool:
        """Whether the user's audio may go to the provider now."""
        ...


class GeminiSession(realtime.RealtimeSession):
    """The plugin's session; tells the listener all that is billed, and asks the gate before anything is answered."""

    def __init__(self, model: GeminiModel, gate: ListeningGate, listener: Listener) -> None:
        self._gate = gate
        self._listener = listener
        self._ears = Ears()
        self._leaving: asyncio.Task[None] | None = None
        self._kept: list[Any] = []
        self._kept_told: list[dict[str, Any]] = []
        self._connected = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._usage_told = asyncio.Event()
        self._interrupted = False
        super().__init__(model)

    def generate_reply(
        self,
        *,
        instructions: NotGivenOr[str] = NOT_GIVEN,
        tool_choice: NotGivenOr[llm.ToolChoice] = NOT_GIVEN,
        tools: NotGivenOr[list[llm.Tool]] = NOT_GIVEN,
    ) -> asyncio.Future[llm.GenerationCreatedEvent]:
        """Like the plugin's; the future fails at once when the gate is shut."""
        if not self._gate.admits():
            refused: asyncio.Future[llm.GenerationCreatedEvent] = asyncio.get_running_loop().create_future()
            refused.set_exception(llm.RealtimeError("response not admitted"))
            return refused
        return super().generate_reply(instructions=instructions, tool_choice=tool_choice, tools=tools)

    @property
    def user_speaks(self) -> bool:
        """Whether the microphone is louder than a quiet room, or was a moment ago."""
        return self._ears.speaking

    def push_audio(self, frame: rtc.AudioFrame) -> None:
        """Forwards what the user says while an answer to it is paid for; else it is not heard by anybody."""
        for heard in self._ears.heard(frame):
            if self._gate.hears():
                told = {"type": "forwarded", "seconds": heard.duration, "speech": self._ears.loud}
                if self._between_connections or not self._connected:
                    # Said to the next connection: it is no loss of this one.
                    self._kept_told.append(told)
                else:
                    self._forwarded(told)
                super().push_audio(heard)

    def _forwarded(self, told: dict[str, Any]) -> None:
        if told["speech"]:
            # An answer may be on its way from here on.
            self._idle.clear()
        self._listener(told)

    def _send_client_event(self, event: Any) -> None:
        if self._between_connections:
            # An answer that began now would be cut off: it is asked for on the next connection.
            self._kept.append(event)
            return
        # Whatever completes a turn is answered, and a tool's result is, too.
        asks = isinstance(event, types.LiveClientContent) and event.turn_complete is not False
        if asks or isinstance(event, types.LiveClientToolResponse):
            request = f"ask_{uuid.uuid4().hex}"
            self._gate.request(request)
            self._listener({"type": "asked", "request": request})
            self._idle.clear()
        super()._send_client_event(event)

    async def _recv_task(self, session: AsyncSession) -> None:
        """Every message is told before the plugin sees it: it drops usage it has no generation for."""
        self._listener({"type": "connected", "connection": session.session_id or f"live_{uuid.uuid4().hex}"})
        self._idle.set()
        self._connected, self._interrupted = True, False
        if self._leaving is not None:
            # It may have been cut off before it left.
            self._leaving.cancel()
            self._leaving = None
        told, self._kept_told = self._kept_told, []
        for heard in told:
            self._forwarded(heard)
        kept, self._kept = self._kept, []
        for event in kept:
            self._send_client_event(event)
        receive = session.receive

        async def noted() -> AsyncIterator[types.LiveServerMessage]:
            async for message in receive():
                event = event_of(message)
                if event is not None:
                    self._note(event)
                    self._listener(event)
                yield message

        session.receive = noted  # type: ignore[method-assign]
        try:
            await super()._recv_task(session)
        finally:
            self._connected = False

    def _note(self, event: Mapping[str, Any]) -> None:
        """Whether a turn of the model is going on or about to, and its usage known, for `_leave`."""
        if event["output"]:
            self._idle.clear()
        if "usageMetadata" in event:
            self._usage_told.set()
        self._interrupted = self._interrupted or event["interrupted"]
        if event["turnComplete"]:
            if not self._interrupted:
                # What interrupts a turn is answered by the next one.
                self._idle.set()
            self._interrupted = False
            if "usageMetadata" not in event:
                self._usage_told.clear()

    @property
    def _between_connections(self) -> bool:
        """The old connection has given its last answer, the next one is not there yet."""
        return self._leaving is not None and self._idle.is_set()

    def _handle_go_away(self, go_away: types.LiveServerGoAway) -> None:
        """The plugin would drop the connection at once, and with it the usage of the answer that is being given."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(go_away))

    async def _leave(self, go_away: types.LiveServerGoAway) -> None:
        left = max(0.0, seconds_of(go_away.time_left) - LEAVE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._idle.wait()
                async with asyncio.timeout(USAGE_SECONDS):
                    await self._usage_told.wait()
        super()._handle_go_away(go_away)

    async def aclose(self) -> None:
        """Like the plugin's."""
        if self._leaving is not None:
            self._leaving.cancel()
        await super().aclose()


class GeminiModel(realtime.RealtimeModel):
    """The plugin's model; its sessions are gated and tell `listener` (see `gemini_meter`) what is billed."""

    def __init__(self, gate: ListeningGate, listener: Listener, **options: Any) -> None:
        super().__init__(**options)
        self._gate = gate
        self._listener = listener

    def session(self, *, turn_detection_disabled: bool = False) -> GeminiSession:
        """A new provider session; Gemini's turn detection cannot be disabled."""
        session = GeminiSession(self, self._gate, self._listener)
        self._sessions.add(session)
        return session

    @property
    def user_speaks(self) -> bool:
        """Whether the user is speaking, by the loudness of the microphone: Gemini does not say."""
        return any(isinstance(session, GeminiSession) and session.user_speaks for session in self._sessions)


def event_of(message: types.LiveServerMessage) -> dict[str, Any] | None:
    """What the meter wants to know of a server message (see `gemini_meter`); None when it says nothing of money."""
    content, usage = message.server_content, message.usage_metadata
    if content is None and usage is None and message.tool_call is None:
        return None
    spoken = content is not None and bool(
        content.model_turn or (content.output_transcription and content.output_transcription.text)
    )
    event: dict[str, Any] = {
        "type": "message",
        "output": spoken or message.tool_call is not None,
        "interrupted": bool(content and content.interrupted),
        "turnComplete": bool(content and content.turn_complete),
    }
    if usage is not None:
        event["usageMetadata"] = usage.model_dump(mode="json", by_alias=True, exclude_none=True)
    return event


def seconds_of(duration: str | None) -> float:
    """Seconds of a protobuf duration (`9.5s`); 0 when it is none."""
    with contextlib.suppress(ValueError):
        return max(0.0, float((duration or "").removesuffix("s")))
    return 0.0


def gemini_fault_of(error: BaseException) -> tuple[str, str] | None:
    """(code, message) when an error of the plugin means that Gemini will not serve us; None otherwise.

    Google says so in the status of a refused handshake or with the code and reason of closing the socket.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return "tls_untrusted", error.verify_message
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        said = f"the provider refused the connection (HTTP {status})"
    elif isinstance(error, errors.APIError):
        status, said = int(error.code or 0), str(error.message or "")
    else:
        return None
    words = said.lower()
    if status in (401, 403) or "api key" in words or "api_key" in words:
        return "invalid_api_key", said
    if "quota" in words or "billing" in words or "credits" in words:
        return "insufficient_quota", said
    if status == 429:
        return "rate_limited", said
    if status == 404 or "not found for api version" in words or "is not supported for bidi" in words:
        return "model_not_found", said
    return None
