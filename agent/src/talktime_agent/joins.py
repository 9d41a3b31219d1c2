"""Joins of one pod keep a distance: a new job costs seconds of CPU, and the sessions that run would hear it."""

from __future__ import annotations

from collections.abc import Callable

# The server waits several seconds for our answer; more than this and another pod is the better choice.
MOST_WAIT_SECONDS = 4.0


class JoinPace:
    """Times in monotonic seconds."""

    def __init__(self, interval: float, monotonic: Callable[[], float]) -> None:
        self._interval = interval
        self._monotonic = monotonic
        self._next = 0.0

    def slot(self, *, resumed: bool = False) -> float | None:
        """Seconds to wait before accepting, or None when the pod should decline.

        ``resumed``: somebody sits in silence since their agent was lost; such joins keep half the distance.
        """
        now = self._monotonic()
        start = max(now, self._next)
        if start - now > MOST_WAIT_SECONDS:
            return None
        self._next = start + self._interval * (0.5 if resumed else 1.0)
        return start - now
