"""The first message of a connection, understood: what the model is, knows, hears and may say."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from talktime_simulator.tokens import Tokens, text_tokens
from talktime_simulator.vad import TurnDetection

from .context import CONTEXT_LIMIT, Compression

INVALID_ARGUMENT = 1007
POLICY = 1008
INTERNAL = 1011


class RefusedError(Exception):
    """Ends the connection the way Google does: a close code and its reason, no error message."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Setup:
    """`automatic` None: the client marks its activity itself. `handle`: of the session to go on with."""

    model: str
    instructions: str
    tools: str
    searches: bool
    output_cap: int | None
    spoken: bool
    thinks: bool
    input_transcription: bool
    output_transcription: bool
    automatic: TurnDetection | None
    interrupts: bool
    hears_all: bool
    compression: Compression | None
    resumable: bool
    handle: str | None

    @property
    def head(self) -> Tokens:
        """Instructions and tools: billed in every turn, never compressed away."""
        return Tokens(text=text_tokens(self.tools) + text_tokens(self.instructions))


def camel(value: Any) -> Any:
    """`value` with every key in lowerCamelCase: the wire takes either spelling, and clients send both."""
    if isinstance(value, dict):
        return {re.sub(r"_([a-z0-9])", lambda m: m[1].upper(), key): camel(item) for key, item in value.items()}
    return [camel(item) for item in value] if isinstance(value, list) else value


def setup_of(body: dict[str, Any], version: str) -> Setup:
    """`setup` (camelCase) of a connection by API `version`. Raises RefusedError."""
    model = str(body.get("model") or "")
    name = model.removeprefix("models/")
    if not name.startswith("gemini-"):
        raise RefusedError(
            POLICY,
            f"{model} is not found for API version {version}, or is not supported for bidiGenerateContent.",
        )
    try:
        return _setup(body, name)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(INVALID_ARGUMENT, "Request contains an invalid argument.") from error


def _setup(body: dict[str, Any], model: str) -> Setup:
    generation = body.get("generationConfig") or {}
    heard = body.get("realtimeInputConfig") or {}
    tools = body.get("tools") or []
    resumption = body.get("sessionResumption")
    cap = generation.get("maxOutputTokens")
    if cap is not None and int(cap) < 1:
        raise ValueError("maxOutputTokens")
    modalities = [str(kind).upper() for kind in generation.get("responseModalities") or ["AUDIO"]]
    thinking = generation.get("thinkingConfig") or {}
    return Setup(
        model=model,
        instructions=text_of(body.get("systemInstruction")),
        tools=json.dumps(tools, sort_keys=True, separators=(",", ":")) if tools else "",
        searches=any("googleSearch" in tool for tool in tools),
        output_cap=None if cap is None else int(cap),
        spoken="AUDIO" in modalities,
        thinks=thinking.get("thinkingBudget") != 0,
        input_transcription=body.get("inputAudioTranscription") is not None,
        output_transcription=body.get("outputAudioTranscription") is not None,
        automatic=_activity(heard.get("automaticActivityDetection") or {}),
        interrupts=heard.get("activityHandling") != "NO_INTERRUPTION",
        hears_all=heard.get("turnCoverage") == "TURN_INCLUDES_ALL_INPUT",
        compression=_compression(body.get("contextWindowCompression")),
        resumable=resumption is not None,
        handle=(resumption or {}).get("handle") or None,
    )


def text_of(content: Any) -> str:
    """All text of a Content; clients may give a bare string."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(part.get("text") or "") for part in content.get("parts") or [])


def _activity(given: dict[str, Any]) -> TurnDetection | None:
    if given.get("disabled"):
        return None
    # Sensitivity moves the level that counts as speech; the padding is part of what is heard.
    eager = given.get("startOfSpeechSensitivity") == "START_SENSITIVITY_HIGH"
    return TurnDetection(
        threshold=0.4 if eager else 0.5,
        prefix_padding_ms=int(given.get("prefixPaddingMs") or 100),
        silence_duration_ms=int(given.get("silenceDurationMs") or 500),
    )


def _compression(given: dict[str, Any] | None) -> Compression | None:
    if given is None:
        return None
    # Defaults as documented: 80 % of the context window, and half of the trigger.
    trigger = int(given.get("triggerTokens") or CONTEXT_LIMIT * 8 // 10)
    target = int((given.get("slidingWindow") or {}).get("targetTokens") or trigger // 2)
    if not 0 < target <= trigger <= CONTEXT_LIMIT:
        raise ValueError("contextWindowCompression")
    return Compression(trigger, target)
