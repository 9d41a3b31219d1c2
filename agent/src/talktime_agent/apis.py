"""The two APIs an interview can be held by, side by side. OpenAI Realtime: `provider`, `meter`. Gemini Live:
`gemini_model` (session and gate), `gemini_meter` (what is billed), `gemini_ears` (what it hears), `gemini_hook` (what
of the plugin that rests on). Everything else in the agent is the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol

from pydantic import SecretStr
from talktime_ledger.core.usage import UsageKind
from talktime_ledger.resources.project import Api
from talktime_ledger.wire import Session, SessionConfig

from talktime_agent.facts import Fact
from talktime_agent.gate import session_instructions
from talktime_agent.gemini_hook import check_plugin
from talktime_agent.gemini_meter import GeminiMeter
from talktime_agent.gemini_model import GeminiModel, ListeningGate, gemini_fault_of
from talktime_agent.gemini_setup import gemini_rendering_model, gemini_talking_model
from talktime_agent.meter import ProviderMeter
from talktime_agent.provider import GatedModel, Listener, fault_of, rendering_model, talking_model

Model = GatedModel | GeminiModel
TurnDetection = Literal["manual", "realtime_llm"]


class Meter(Protocol):
    """What the account asks of a provider's meter."""

    @property
    def connected(self) -> bool: ...
    @property
    def open_responses(self) -> frozenset[str]: ...
    @property
    def context_tokens(self) -> int: ...
    @property
    def pending_seconds(self) -> float: ...
    def text_added(self, tokens: int) -> None: ...
    def feed(self, event: Mapping[str, Any], at: datetime) -> list[Fact]: ...


def answers_by_itself(api: Api) -> bool:
    """Whether the provider answers without being asked: then two worst cases are held, and hearing is gated."""
    return api is Api.GEMINI_LIVE


def turn_detection(api: Api) -> TurnDetection:
    """livekit's turn taking: ours by the raw events, or the provider's."""
    return "realtime_llm" if answers_by_itself(api) else "manual"


def meter_of(told: Session, config: SessionConfig, kind: UsageKind = UsageKind.RESPONSE) -> Meter:
    """The meter of one provider session; ``kind`` is what its responses are posted as."""
    if told.api is Api.GEMINI_LIVE:
        return GeminiMeter(told.provider, told.model, config.caps.outputTokens, kind)
    heard = config.transcriptionModel if kind is UsageKind.RESPONSE else None
    return ProviderMeter(provider=told.provider, model=told.model, transcription_model=heard, kind=kind)


def talking(told: Session, config: SessionConfig, key: SecretStr, gate: ListeningGate, listener: Listener) -> Model:
    """The model of the interview, its caps in force from the first response on. PluginChangedError (Gemini)."""
    if told.api is Api.GEMINI_LIVE:
        check_plugin()
        return gemini_talking_model(told.model, config, session_instructions(config), key, gate, listener)
    return talking_model(told.model, config, key, gate, listener)


def rendering(
    told: Session, config: SessionConfig, key: SecretStr, gate: ListeningGate, listener: Listener, output_tokens: int
) -> Model:
    """A model that only renders the closing line, on a connection of its own."""
    if told.api is Api.GEMINI_LIVE:
        return gemini_rendering_model(told.model, config, key, gate, listener, output_tokens)
    return rendering_model(told.model, config, key, gate, listener, output_tokens)


def provider_fault(error: BaseException) -> tuple[str, str] | None:
    """(code, message) when an error of either plugin means that the provider will not serve us."""
    return fault_of(error) or gemini_fault_of(error)
