"""Which generation a ``usageMetadata`` in a capture of Gemini Live messages belongs to; the last of each counts.

Gemini names no generation. One begins with the first words of the model (or a tool call) after the end of the one
before, ends with ``turnComplete``, and its last usage may come later still, alone. A ``setupComplete`` is a new
connection, whose generations count from 1 again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.alias_generators import to_camel
from talktime_ledger.core.usage import UsageError
from talktime_ledger.core.usage_gemini import gemini_meters

from .session_dump import Item

MESSAGES = frozenset(
    {"usageMetadata", "serverContent", "setupComplete", "toolCall", "goAway", "sessionResumptionUpdate"}
)


def camel(value: Any) -> Any:
    """Names as on the wire, all the way down."""
    if isinstance(value, Mapping):
        return {to_camel(name) if "_" in name else name: camel(part) for name, part in value.items()}
    return [camel(part) for part in value] if isinstance(value, list) else value


def is_message(value: Mapping[str, Any]) -> bool:
    """Whether it is a server message."""
    return any(name in MESSAGES or to_camel(name) in MESSAGES for name in value)


def is_metadata(value: Mapping[str, Any]) -> bool:
    """Whether it is a bare usageMetadata."""
    return any(name.endswith(("TokenCount", "_token_count")) for name in value)


@dataclass
class GeminiTurns:
    """Walks the messages of one capture in order."""

    connection: int = 1
    generation: int = 0
    _open: bool = False

    def items(self, message: Mapping[str, Any], place: str) -> Iterator[Item]:
        """The snapshot in one message, if any, under the name of its generation."""
        told = {to_camel(name) if "_" in name else name: part for name, part in message.items()}
        content = camel(told.get("serverContent") or {})
        if not isinstance(content, Mapping):
            raise UsageError("serverContent is not an object")
        if "setupComplete" in told and self.generation:
            self.connection, self.generation, self._open = self.connection + 1, 0, False
        over = bool(content.get("turnComplete"))
        if (over or "modelTurn" in content or told.get("toolCall")) and not self._open:
            self.generation, self._open = self.generation + 1, True
        if (usage := told.get("usageMetadata")) is not None:
            if not isinstance(usage, Mapping):
                raise UsageError("usageMetadata is not an object")
            name = f"generation {self.connection}/{self.generation}" if self.generation else place
            yield Item(name, gemini_meters(camel(usage)), identity="gemini" if self.generation else "")
        self._open = self._open and not over
