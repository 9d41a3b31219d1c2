"""OpenAI Realtime's clocks: user audio 10 tokens/s, assistant audio 20 tokens/s, text about 4 characters per token."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

CHARACTERS_PER_TEXT_TOKEN = 4
USER_AUDIO_MS_PER_TOKEN = 100
ASSISTANT_AUDIO_MS_PER_TOKEN = 50


@dataclass(frozen=True, slots=True)
class Tokens:
    """A number of tokens by modality."""

    text: int = 0
    audio: int = 0

    @property
    def total(self) -> int:
        return self.text + self.audio

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.text + other.text, self.audio + other.audio)


def text_tokens(text: str) -> int:
    """Text tokens of `text`, rounded up."""
    return ceil(len(text) / CHARACTERS_PER_TEXT_TOKEN)


def user_audio_tokens(milliseconds: float) -> int:
    """Audio tokens of committed user audio; a started token counts."""
    return ceil(round(milliseconds, 3) / USER_AUDIO_MS_PER_TOKEN)


def assistant_audio_tokens(milliseconds: float) -> int:
    """Audio tokens of generated speech; a started token counts."""
    return ceil(round(milliseconds, 3) / ASSISTANT_AUDIO_MS_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one response is billed for. `cached` is part of `prompt`."""

    prompt: Tokens
    cached: Tokens
    output: Tokens

    def wire(self) -> dict[str, Any]:
        """`response.usage` as the API sends it: input details include the cached part."""
        return {
            "total_tokens": self.prompt.total + self.output.total,
            "input_tokens": self.prompt.total,
            "output_tokens": self.output.total,
            "input_token_details": {
                "text_tokens": self.prompt.text,
                "audio_tokens": self.prompt.audio,
                "image_tokens": 0,
                "cached_tokens": self.cached.total,
                "cached_tokens_details": {
                    "text_tokens": self.cached.text,
                    "audio_tokens": self.cached.audio,
                    "image_tokens": 0,
                },
            },
            "output_token_details": {"text_tokens": self.output.text, "audio_tokens": self.output.audio},
        }

    def meters(self) -> dict[str, int]:
        """Disjoint meters: a token is in exactly one."""
        return {
            "text_in": self.prompt.text - self.cached.text,
            "text_cached_in": self.cached.text,
            "audio_in": self.prompt.audio - self.cached.audio,
            "audio_cached_in": self.cached.audio,
            "text_out": self.output.text,
            "audio_out": self.output.audio,
        }


@dataclass(frozen=True, slots=True)
class TranscriptionUsage:
    """What the transcription of one user item is billed for, by the transcription model's own prices."""

    audio: int
    prompt: int
    output: int
    seconds: float
    by_duration: bool

    @classmethod
    def of(cls, model: str, milliseconds: float, prompt: str, transcript: str) -> TranscriptionUsage:
        """Whisper is billed by the second, the other models by tokens."""
        return cls(
            user_audio_tokens(milliseconds),
            text_tokens(prompt),
            text_tokens(transcript),
            round(milliseconds / 1000, 3),
            model.startswith("whisper"),
        )

    def wire(self) -> dict[str, Any]:
        """`usage` of `conversation.item.input_audio_transcription.completed`."""
        if self.by_duration:
            return {"type": "duration", "seconds": self.seconds}
        return {
            "type": "tokens",
            "total_tokens": self.audio + self.prompt + self.output,
            "input_tokens": self.audio + self.prompt,
            "input_token_details": {"text_tokens": self.prompt, "audio_tokens": self.audio},
            "output_tokens": self.output,
        }

    def meters(self) -> dict[str, int | float]:
        """Disjoint meters of the transcription model."""
        if self.by_duration:
            return {"active_seconds": self.seconds}
        return {"audio_in": self.audio, "text_in": self.prompt, "text_out": self.output}
