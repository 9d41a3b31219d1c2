"""Gemini Live's clock: 25 audio tokens a second in and out; usage as the real wire tells it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from talktime_simulator.tokens import Tokens

AUDIO_MS_PER_TOKEN = 40
INPUT_RATE = 16_000
INPUT_BYTES_PER_MS = INPUT_RATE * 2 // 1000


def audio_tokens(milliseconds: float) -> int:
    """Audio tokens of so much speech; a started token counts."""
    return ceil(round(milliseconds, 3) / AUDIO_MS_PER_TOKEN)


def unassigned_tokens(generation: int) -> int:
    """Prompt tokens of no modality in the generation number `generation`: 25 to 51, as seen on the real wire."""
    return 25 + generation * 13 % 27


def thought_tokens(generation: int) -> int:
    """What the model thinks before the generation number `generation`: 40 to 139 tokens."""
    return 40 + generation * 37 % 100


def searched_tokens(generation: int) -> int:
    """The results of a server-side tool, read as a prompt of their own: 80 to 139 tokens."""
    return 80 + generation * 23 % 60


@dataclass(frozen=True, slots=True)
class LiveUsage:
    """What one generation is billed for. `prompt` is the whole context, again; `unassigned` comes on top of it."""

    prompt: Tokens
    unassigned: int
    tool_prompt: int
    output: Tokens
    thoughts: int

    def wire(self) -> dict[str, Any]:
        """`usageMetadata`: the details leave the unassigned tokens out, the total the thoughts."""
        prompt = self.prompt.total + self.unassigned
        told: dict[str, Any] = {
            "promptTokenCount": prompt,
            "totalTokenCount": prompt + self.output.total + self.tool_prompt,
            "promptTokensDetails": _details(self.prompt),
        }
        if self.output.total:
            told["responseTokenCount"] = self.output.total
            told["responseTokensDetails"] = _details(self.output)
        if self.thoughts:
            told["thoughtsTokenCount"] = self.thoughts
        if self.tool_prompt:
            told["toolUsePromptTokenCount"] = self.tool_prompt
            told["toolUsePromptTokensDetails"] = _details(Tokens(text=self.tool_prompt))
        return told

    def meters(self) -> dict[str, int]:
        """Disjoint meters, those that are not zero."""
        counted = {
            "text_in": self.prompt.text,
            "audio_in": self.prompt.audio,
            "unassigned_in": self.unassigned,
            "tool_prompt_in": self.tool_prompt,
            "text_out": self.output.text,
            "audio_out": self.output.audio,
            "thoughts_out": self.thoughts,
        }
        return {meter: count for meter, count in counted.items() if count}


def _details(tokens: Tokens) -> list[dict[str, Any]]:
    counted = (("TEXT", tokens.text), ("AUDIO", tokens.audio))
    return [{"modality": modality, "tokenCount": count} for modality, count in counted if count]
