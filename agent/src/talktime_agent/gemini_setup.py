"""Gemini Live: the models of a session, with every cap in the setup of each of their connections."""

from __future__ import annotations

from typing import Any

from google.genai import types
from pydantic import SecretStr
from talktime_ledger.wire import SessionConfig

from talktime_agent.gemini_model import GeminiModel, ListeningGate
from talktime_agent.provider import Listener

# Google's own service, always TLS; never taken from GOOGLE_GEMINI_BASE_URL of the environment.
PUBLIC_ENDPOINT = "https://generativelanguage.googleapis.com"
# The schema's default voice is OpenAI's; Google knows no such voice.
OTHERS_DEFAULT_VOICE = "marin"
DEFAULT_VOICE = "Puck"
CONNECT_MILLISECONDS = 10_000


def gemini_talking_model(
    model: str, config: SessionConfig, instructions: str, key: SecretStr, gate: ListeningGate, listener: Listener
) -> GeminiModel:
    """The model of the interview, every cap in the setup of each of its connections.

    ``instructions`` are given with the model: told later, they would cost a second connection. They name the language
    too; Google's language code is refused by models that choose it themselves.
    """
    return GeminiModel(
        gate,
        listener,
        instructions=instructions,
        max_output_tokens=config.caps.outputTokens,
        context_window_compression=compression(config.caps.contextTokens),
        realtime_input_config=types.RealtimeInputConfig(turn_coverage=types.TurnCoverage.TURN_INCLUDES_ONLY_ACTIVITY),
        **_shared(model, config, key),
    )


def gemini_rendering_model(
    model: str, config: SessionConfig, key: SecretStr, gate: ListeningGate, listener: Listener, output_tokens: int
) -> GeminiModel:
    """A model that only renders the closing line: a small answer on a connection of its own, no conversation."""
    return GeminiModel(
        gate,
        listener,
        max_output_tokens=output_tokens,
        input_audio_transcription=None,
        **_shared(model, config, key),
    )


def voice_of(config: SessionConfig) -> str:
    """The Project's voice; Google's default where the Project names none."""
    return DEFAULT_VOICE if config.voice in ("", OTHERS_DEFAULT_VOICE) else config.voice


def compression(context_tokens: int) -> types.ContextWindowCompressionConfig:
    """Bounds what every turn bills again; the half that stays makes the next compression rare."""
    return types.ContextWindowCompressionConfig(
        trigger_tokens=context_tokens, sliding_window=types.SlidingWindow(target_tokens=context_tokens // 2)
    )


def _shared(model: str, config: SessionConfig, key: SecretStr) -> dict[str, Any]:
    """What is the same for the interviewer and for who says goodbye: one voice at one address."""
    return {
        "model": model,
        "api_key": key.get_secret_value(),
        "vertexai": False,
        "voice": voice_of(config),
        "http_options": types.HttpOptions(base_url=config.endpoint or PUBLIC_ENDPOINT, timeout=CONNECT_MILLISECONDS),
        **_thinking(model),
    }


def _thinking(model: str) -> dict[str, Any]:
    """Thinking is off where it can be switched off; newer models take no budget and think little by default."""
    if "2.5" not in model:
        return {}
    return {"thinking_config": types.ThinkingConfig(thinking_budget=0)}
