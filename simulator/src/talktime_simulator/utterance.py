"""One answer cut into steps: how far it may go under an output cap, and what has been generated so far."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .conversation import BYTES_PER_MS
from .tokens import ASSISTANT_AUDIO_MS_PER_TOKEN, CHARACTERS_PER_TEXT_TOKEN, Tokens, text_tokens

STEP_BYTES = ASSISTANT_AUDIO_MS_PER_TOKEN * BYTES_PER_MS
"""Of OpenAI's clock."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """`text` and its `pcm` (empty: a text answer). A step is one audio token, or one text token without audio.

    `transcribed`: the text of speech is told and billed, too.
    """

    text: str
    pcm: bytes
    ms_per_token: int = ASSISTANT_AUDIO_MS_PER_TOKEN
    transcribed: bool = True

    @property
    def step_bytes(self) -> int:
        return self.ms_per_token * BYTES_PER_MS

    @property
    def steps(self) -> int:
        if self.pcm:
            return ceil(len(self.pcm) / self.step_bytes)
        return ceil(len(self.text) / CHARACTERS_PER_TEXT_TOKEN)

    @property
    def seconds_per_step(self) -> float:
        """Length of a step in real time; text is made as fast as it would be spoken."""
        return self.ms_per_token / 1000 if self.pcm else 0.25

    def text_until(self, step: int) -> str:
        """The transcript of the first `step` steps: it grows with the audio."""
        return self.text if step >= self.steps else self.text[: len(self.text) * step // self.steps]

    def pcm_until(self, step: int) -> bytes:
        return self.pcm[: step * self.step_bytes]

    def audio_ms(self, step: int) -> float:
        return min(step * self.step_bytes, len(self.pcm)) / BYTES_PER_MS

    def tokens(self, step: int) -> Tokens:
        """What the first `step` steps are billed: the transcript and, for speech, the audio."""
        text = text_tokens(self.text_until(step)) if self.transcribed or not self.pcm else 0
        return Tokens(text=text, audio=ceil(round(self.audio_ms(step), 3) / self.ms_per_token))

    def steps_within(self, cap: int | None) -> int:
        """The most steps whose tokens, text and audio together, do not pass `cap`."""
        if cap is None:
            return self.steps
        return next((step for step in range(self.steps, 0, -1) if self.tokens(step).total <= cap), 0)
