"""What of the microphone goes to Gemini: speech, and the silence around it that its turn detection needs.

An open microphone is audio at 25 tokens a second, said or not. Digital silence and a quiet room are held back here; a
room louder than that passes, and the provider decides what is speech.
"""

from __future__ import annotations

import math
from collections import deque

from livekit import rtc

# About -55 dBFS, well under speech.
LOUD_RMS = 60
# Longer than any silence with which the provider ends a turn.
AFTER_SECONDS = 2.0
BEFORE_SECONDS = 0.5
SPEAKING_SECONDS = 1.0
SAMPLED = 8


class Ears:
    """Of one microphone; frames in their order."""

    def __init__(self) -> None:
        self._quiet_for = AFTER_SECONDS
        self._before: deque[rtc.AudioFrame] = deque()
        self._kept = 0.0

    @property
    def loud(self) -> bool:
        """Whether the last frame was louder than a quiet room."""
        return self._quiet_for == 0

    @property
    def speaking(self) -> bool:
        """Whether there was something louder than a quiet room within the last second."""
        return self._quiet_for < SPEAKING_SECONDS

    def heard(self, frame: rtc.AudioFrame) -> list[rtc.AudioFrame]:
        """The frames to send now: none in silence, a moment of what came before with the first speech."""
        if loudness(frame) >= LOUD_RMS:
            out = [*self._before, frame]
            self._before.clear()
            self._quiet_for = self._kept = 0.0
            return out
        self._quiet_for += frame.duration
        if self._quiet_for <= AFTER_SECONDS:
            return [frame]
        self._before.append(frame)
        self._kept += frame.duration
        while self._kept > BEFORE_SECONDS:
            self._kept -= self._before.popleft().duration
        return []


def loudness(frame: rtc.AudioFrame) -> float:
    """Root mean square of the samples (s16), from a share of them."""
    samples = memoryview(frame.data).cast("B").cast("h")[::SAMPLED]
    return math.sqrt(sum(sample * sample for sample in samples) / len(samples)) if len(samples) else 0.0
