"""The provider: a livekit OpenAI RealtimeModel from the session's config, with the gate built into its session."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from livekit.agents import llm
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.plugins.openai import realtime
from openai.types.realtime import (
    AudioTranscription,
    RealtimeClientEvent,
    RealtimeResponseCreateParams,
    ResponseCreateEvent,
)
from openai.types.realtime.realtime_audio_input_turn_detection import ServerVad
from openai.types.realtime.realtime_truncation_retention_ratio import RealtimeTruncationRetentionRatio, TokenLimits
from pydantic import SecretStr
from talktime_ledger.wire import SessionConfig

# The provider's own service, always TLS; never taken from OPENAI_BASE_URL of the environment.
PUBLIC_ENDPOINT = "https://api.openai.com/v1"
# Below the cap the conversation is kept whole; above it this share stays, so that truncation (and the loss of the
# cache) is rare.
RETENTION = 0.8
CLOSING_MARK = "closing"


class Gate(Protocol):
    """Asked at the very moment of a response.create."""

    def admits(self) -> bool:
        """Whether a response may start now."""
        ...

    def request(self, event_id: str) -> None:
        """A response.create with this event id goes out; its worst case is held from here on."""
        ...


Listener = Callable[[Mapping[str, Any]], None]


class GatedSession(realtime.RealtimeSession):
    """The plugin's session; no response.create leaves it without the gate's consent, whoever asks."""

    def __init__(self, model: GatedModel, gate: Gate, *, turn_detection_disabled: bool = False) -> None:
        self._gate = gate
        super().__init__(model, turn_detection_disabled=turn_detection_disabled)

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

    def send_event(self, event: RealtimeClientEvent | dict[str, Any]) -> None:
        """Like the plugin's; a response.create is held before it goes out."""
        if isinstance(event, ResponseCreateEvent) and event.event_id:
            metadata = event.response.metadata if event.response else None
            if not (metadata and metadata.get("talktime") == CLOSING_MARK):
                self._gate.request(event.event_id)
        super().send_event(event)

    def say_goodbye(self, event_id: str, prompt: str, output_tokens: int) -> None:
        """A capped response outside the conversation, paid by C; the caller has held it under ``event_id``."""
        self.send_event(
            ResponseCreateEvent(
                type="response.create",
                event_id=event_id,
                response=RealtimeResponseCreateParams(
                    conversation="none",
                    input=[],
                    instructions=prompt,
                    max_output_tokens=output_tokens,
                    metadata={"client_event_id": event_id, "talktime": CLOSING_MARK},
                ),
            )
        )


class GatedModel(realtime.RealtimeModel):
    """The plugin's model; its sessions are gated and their raw server events go to ``listener``, from the first on."""

    def __init__(self, gate: Gate, listener: Listener, **options: Any) -> None:
        super().__init__(**options)
        self._gate = gate
        self._listener = listener

    @property
    def user_speaks(self) -> bool:
        """Never asked for: the framework knows it of this provider's own events."""
        return False

    def session(self, *, turn_detection_disabled: bool = False) -> GatedSession:
        """A new provider session."""
        session = GatedSession(self, self._gate, turn_detection_disabled=turn_detection_disabled)
        session.on("openai_server_event_received", self._listener)
        self._sessions.add(session)
        return session


def talking_model(model: str, config: SessionConfig, key: SecretStr, gate: Gate, listener: Listener) -> GatedModel:
    """The model of the interview, every cap in force before its first response (first session.update).

    Turn taking is ours: the provider's VAD marks turns and neither answers nor cancels by itself; on a barge-in the
    framework cancels.
    """
    talking = GatedModel(
        gate,
        listener,
        model=model,
        voice=config.voice,
        base_url=config.endpoint or PUBLIC_ENDPOINT,
        api_key=key.get_secret_value(),
        turn_detection=ServerVad(type="server_vad", create_response=False, interrupt_response=False),
        truncation=RealtimeTruncationRetentionRatio(
            type="retention_ratio",
            retention_ratio=RETENTION,
            token_limits=TokenLimits(post_instructions=config.caps.contextTokens),
        ),
        input_audio_transcription=transcription(config),
    )
    talking.update_options(max_response_output_tokens=config.caps.outputTokens)
    return talking


def rendering_model(
    model: str, config: SessionConfig, key: SecretStr, gate: Gate, listener: Listener, output_tokens: int
) -> GatedModel:
    """A model that only renders the closing line: no input, no transcription, a small answer."""
    rendering = GatedModel(
        gate,
        listener,
        model=model,
        voice=config.voice,
        base_url=config.endpoint or PUBLIC_ENDPOINT,
        api_key=key.get_secret_value(),
        turn_detection=None,
        input_audio_transcription=None,
    )
    rendering.update_options(max_response_output_tokens=output_tokens)
    return rendering


def transcription(config: SessionConfig) -> AudioTranscription | None:
    """How the user's audio is transcribed; None = not at all."""
    if not config.transcriptionModel:
        return None
    language = config.language.split("-")[0] if config.language else None
    return AudioTranscription(model=config.transcriptionModel, language=language)


def fault_of(error: BaseException) -> tuple[str, str] | None:
    """(code, message) when an error of the plugin means that the provider will not serve us; None otherwise.

    The code is looked for in the error's body (events), in the HTTP status of a refused handshake, and in what OpenSSL
    said of the provider's certificate.
    """
    body = getattr(error, "body", None)
    code = getattr(body, "code", None) or (body.get("code") if isinstance(body, Mapping) else None)
    if code:
        return str(code), str(getattr(body, "message", "") or "")
    certificate = getattr(error.__cause__, "certificate_error", None)
    if isinstance(certificate, ssl.SSLCertVerificationError):
        return "tls_untrusted", certificate.verify_message
    status = getattr(error.__cause__, "status", None)
    match status:
        case 401 | 403:
            return "invalid_api_key", f"the provider refused the key (HTTP {status})"
        case 429:
            return "rate_limited", "the provider refused the connection (HTTP 429)"
        case 404:
            return "model_not_found", "the provider does not know this address or model (HTTP 404)"
        case _:
            return None
