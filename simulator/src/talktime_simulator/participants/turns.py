"""Who speaks when: decided from the loudness of what is heard, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

SPEECH_LEVEL = 32768 * 10 ** (-45 / 20)
"""RMS of 16-bit samples from which a received frame counts as speech (-45 dBFS)."""


class Move(StrEnum):
    """What the participant does next."""

    WAIT = "wait"
    SPEAK = "speak"


@dataclass(slots=True)
class Hearing:
    """Turn taking on a clock in seconds. An agent that paused for `pause` has finished; one that stays silent for
    `patience` after our turn is spoken to again."""

    pause: float = 0.9
    patience: float = 12.0
    shortest: float = 0.3
    agent_turns: int = 0
    agent_seconds: float = 0.0
    unanswered: int = 0
    waiting_since: float = 0.0
    starts: list[float] = field(default_factory=list)
    _heard: float = 0.0
    _last_loud: float | None = None

    def hear(self, now: float, loud: bool, seconds: float) -> None:
        """One received frame."""
        if not loud:
            return
        if self._heard == 0.0:
            self.starts.append(now)
        self._heard += seconds
        self.agent_seconds += seconds
        self._last_loud = now

    def move(self, now: float) -> Move:
        """Whether it is our turn. Taking the turn resets what was heard."""
        if self._heard >= self.shortest and self._last_loud is not None and now - self._last_loud >= self.pause:
            self.agent_turns += 1
            self._heard = 0.0
            return Move.SPEAK
        if self._heard and self._last_loud is not None and now - self._last_loud >= self.pause:
            self._heard = 0.0  # a click, not a turn
        if not self._heard and now - self.waiting_since >= self.patience:
            self.unanswered += 1
            return Move.SPEAK
        return Move.WAIT

    def spoke(self, now: float) -> None:
        """Our own turn has ended."""
        self.waiting_since = now
