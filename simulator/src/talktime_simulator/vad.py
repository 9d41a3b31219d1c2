"""Server voice activity detection on the energy of the PCM that really arrived."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 24_000
FRAME_MS = 20


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """`turn_detection` of the session, defaults as the API documents them. `threshold` 0..1 is mapped to a level."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    create_response: bool = True
    interrupt_response: bool = True

    @property
    def level(self) -> float:
        """RMS (of full scale 32768) that counts as speech: -40 dBFS at threshold 0.5, 20 dB either way."""
        return float(32768 * 10 ** ((-60 + 40 * self.threshold) / 20))


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """`audio_start_ms` on the session's audio clock, prefix padding included."""

    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """`audio_end_ms` on the session's audio clock, the detected silence included: this is what gets committed."""

    audio_start_ms: int
    audio_end_ms: int


class EnergyVad:
    """Feeds on PCM16 mono at `rate` Hz in pieces of any length; the audio clock counts what was fed, not the time."""

    ONSET_MS = 60
    """Speech that is shorter than this is a click."""

    def __init__(self, settings: TurnDetection, rate: int = SAMPLE_RATE) -> None:
        self.settings = settings
        self._frame_samples = rate * FRAME_MS // 1000
        self.position_ms = 0
        self.floor_ms = 0
        self._rest = b""
        self._loud_ms = 0
        self._quiet_ms = 0
        self._started_ms: int | None = None

    @property
    def speaking(self) -> bool:
        return self._started_ms is not None

    def forget(self) -> None:
        """Drops what was heard so far (buffer cleared or committed by the client)."""
        self.floor_ms = self.position_ms
        self._loud_ms = self._quiet_ms = 0
        self._started_ms = None

    @property
    def buffered_ms(self) -> int:
        """Audio since the last commit or clear."""
        return self.position_ms - self.floor_ms

    def feed(self, pcm: bytes, detect: bool = True) -> list[SpeechStarted | SpeechStopped]:
        """What `pcm` made certain, in order; without `detect` only the clock moves (turn detection is off)."""
        data = self._rest + pcm
        frame_bytes = self._frame_samples * 2
        whole = len(data) - len(data) % frame_bytes
        self._rest = data[whole:]
        if not detect:
            self.position_ms += whole // frame_bytes * FRAME_MS
            return []
        if not whole:
            return []
        frames = np.frombuffer(data[:whole], dtype="<i2").reshape(-1, self._frame_samples).astype(np.float32)
        levels = np.sqrt(np.mean(frames * frames, axis=1))
        events: list[SpeechStarted | SpeechStopped] = []
        for loud in (levels >= self.settings.level).tolist():
            self.position_ms += FRAME_MS
            event = self._hear(loud)
            if event is not None:
                events.append(event)
        return events

    def finish(self) -> SpeechStopped | None:
        """The client says that no more audio comes: ends speech that is going on."""
        stopped = None if self._started_ms is None else SpeechStopped(self._started_ms, self.position_ms)
        self.forget()
        return stopped

    def _hear(self, loud: bool) -> SpeechStarted | SpeechStopped | None:
        if self._started_ms is None:
            self._loud_ms = self._loud_ms + FRAME_MS if loud else 0
            if self._loud_ms < self.ONSET_MS:
                return None
            self._started_ms = max(self.floor_ms, self.position_ms - self._loud_ms - self.settings.prefix_padding_ms)
            self._quiet_ms = 0
            return SpeechStarted(self._started_ms)
        self._quiet_ms = 0 if loud else self._quiet_ms + FRAME_MS
        if self._quiet_ms < self.settings.silence_duration_ms:
            return None
        stopped = SpeechStopped(self._started_ms, self.position_ms)
        self.forget()
        return stopped
