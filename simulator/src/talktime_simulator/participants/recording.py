"""The received audio as a WAV file whose samples stay aligned with the clock."""

from __future__ import annotations

import wave
from pathlib import Path

RATE = 24_000
DRIFT = 0.25
"""Seconds a recording may lag behind the clock before silence is put in."""


class Recording:
    """`started` is the wall time (epoch seconds) of sample 0: sample n was received at started + n / RATE."""

    def __init__(self, file: Path, started: float) -> None:
        self.file = file
        self.started = started
        self._samples = 0
        self._wave = wave.open(str(file), "wb")  # noqa: SIM115 - open for the whole session
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(RATE)

    @property
    def seconds(self) -> float:
        return self._samples / RATE

    def write(self, now: float, pcm: bytes) -> None:
        """Appends PCM16 that ended at wall time `now`; a gap before it becomes silence."""
        lag = now - self.started - self.seconds - len(pcm) / 2 / RATE
        if lag > DRIFT:
            silence = int(lag * RATE)
            self._wave.writeframes(bytes(2 * silence))
            self._samples += silence
        self._wave.writeframes(pcm)
        self._samples += len(pcm) // 2

    def close(self) -> None:
        self._wave.close()
