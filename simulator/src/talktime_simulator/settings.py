"""The session object of one connection: what `session.update` may change, and the typed view the server acts on."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from .prompt import Truncation
from .vad import TurnDetection

DEFAULT_INSTRUCTIONS = "You are a helpful interviewer."
SMALL_CONTEXT_MODELS = ("gpt-realtime", "gpt-realtime-mini", "gpt-realtime-1.5")
SMALL_CONTEXT_LIMIT = 28_672
"""32k window minus the largest answer (4k); the newer models have 128k minus 32k."""
LARGE_CONTEXT_LIMIT = 96_000


class InvalidRequestError(Exception):
    """Becomes an `error` event of type `invalid_request_error`."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class SessionSettings:
    """`wire` is the API's session object; everything else reads it."""

    def __init__(self, session_id: str, model: str) -> None:
        self.wire: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": session_id,
            "model": model,
            "output_modalities": ["audio"],
            "instructions": DEFAULT_INSTRUCTIONS,
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "truncation": "auto",
            "tracing": None,
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": None,
                    "noise_reduction": None,
                    "turn_detection": {"type": "server_vad"},
                },
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
            },
        }

    def update(self, patch: dict[str, Any]) -> None:
        """Takes over a `session.update`; unset fields stay. Raises InvalidRequestError and changes nothing."""
        merged = deepcopy(self.wire)
        audio = patch.get("audio") or {}
        for side in ("input", "output"):
            merged["audio"][side].update(audio.get(side) or {})
            rate = (merged["audio"][side].get("format") or {}).get("rate", 24000)
            kind = (merged["audio"][side].get("format") or {}).get("type", "audio/pcm")
            if (kind, rate) != ("audio/pcm", 24000):
                raise InvalidRequestError(
                    "invalid_value", "only audio/pcm at 24000 Hz is simulated", f"session.audio.{side}.format"
                )
        # The model is fixed by the connection's URL; the API ignores the field here, too.
        merged.update({k: v for k, v in patch.items() if k not in ("audio", "model", "id", "object", "type")})
        cap_of(merged["max_output_tokens"], "session.max_output_tokens")
        _truncation(merged["truncation"], merged["model"])
        _turn_detection(merged["audio"]["input"].get("turn_detection"))
        self.wire = merged

    @property
    def instructions(self) -> str:
        return str(self.wire["instructions"] or "")

    @property
    def tools(self) -> str:
        """The tools as the model reads them: their JSON text, nothing when there are none."""
        return tools_text(self.wire["tools"])

    @property
    def output_cap(self) -> int | None:
        return cap_of(self.wire["max_output_tokens"], "session.max_output_tokens")

    @property
    def truncation(self) -> Truncation:
        return _truncation(self.wire["truncation"], self.wire["model"])

    @property
    def turn_detection(self) -> TurnDetection | None:
        return _turn_detection(self.wire["audio"]["input"].get("turn_detection"))

    @property
    def transcription(self) -> dict[str, Any] | None:
        given: dict[str, Any] | None = self.wire["audio"]["input"].get("transcription")
        return given if given and given.get("model") else None

    @property
    def modality(self) -> str:
        return "audio" if "audio" in self.wire["output_modalities"] else "text"


def tools_text(tools: list[Any] | None) -> str:
    """The text of a list of tools that is billed as text input."""
    return json.dumps(tools, sort_keys=True, separators=(",", ":")) if tools else ""


def cap_of(value: Any, param: str) -> int | None:
    """Output tokens at most, None for no cap of its own."""
    if value in (None, "inf"):
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidRequestError("invalid_value", f"{param} must be 'inf' or an integer from 1", param)
    return value


def _truncation(value: Any, model: str) -> Truncation:
    most = SMALL_CONTEXT_LIMIT if model in SMALL_CONTEXT_MODELS else LARGE_CONTEXT_LIMIT
    if value in (None, "auto", "disabled"):
        return Truncation(limit=most, ratio=1.0, enabled=value != "disabled")
    if not isinstance(value, dict) or value.get("type") != "retention_ratio":
        raise InvalidRequestError("invalid_value", "unknown truncation strategy", "session.truncation")
    ratio = value.get("retention_ratio", 1.0)
    limit = (value.get("token_limits") or {}).get("post_instructions") or most
    if not 0 <= ratio <= 1 or not 0 < limit <= most:
        raise InvalidRequestError("invalid_value", f"retention_ratio 0..1, limit 1..{most}", "session.truncation")
    return Truncation(limit=limit, ratio=ratio)


def _turn_detection(value: dict[str, Any] | None) -> TurnDetection | None:
    if value is None:
        return None
    if value.get("type") not in ("server_vad", "semantic_vad"):
        raise InvalidRequestError("invalid_value", "unknown turn detection", "session.audio.input.turn_detection")
    given = {name: value[name] for name in TurnDetection.__dataclass_fields__ if value.get(name) is not None}
    return TurnDetection(**given)
