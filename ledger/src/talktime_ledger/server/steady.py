"""Since when this process could hear everybody without a break. Pure; times are monotonic seconds.

A pod that is silent because we were away is not lost (law 6): silence counts only after we have listened for longer.
"""

from __future__ import annotations

TICK_SEC = 0.5
GAP_SEC = 3.0
"""A living pod is silent for at most this and 4 s: two seconds before, two of an attempt that was not heard."""


class Steady:
    """Ticks at least every GAP_SEC while process and database answer."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._last = float("-inf")

    def tick(self, now: float) -> None:
        """Both work at this moment."""
        if self._since is None or now - self._last > GAP_SEC:
            self._since = now
        self._last = now

    def broken(self) -> None:
        """The database did not answer."""
        self._since = None

    def seconds(self, now: float) -> float:
        """How long without a break; 0 when the last tick is too old."""
        if self._since is None or now - self._last > GAP_SEC:
            return 0.0
        return now - self._since
