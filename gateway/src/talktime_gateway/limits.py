"""A token bucket per access key: a runaway client gets 429 instead of eating everybody's turn. Time is passed in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class _Bucket:
    tokens: float
    at: float


class KeyLimits:
    """Per key: ``burst`` requests at once, refilled at ``rate`` per second. Per replica: N replicas allow N times it.

    Buckets that are full again are dropped, so memory follows the keys in use.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key: str, now: float) -> float:
        """0 when the request may go on, else the seconds until it may. ``now`` is monotonic seconds."""
        if len(self._buckets) > 10_000:
            self._forget_full(now)
        bucket = self._buckets.setdefault(key, _Bucket(self._burst, now))
        bucket.tokens = min(self._burst, bucket.tokens + max(0.0, now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return 0.0
        return (1.0 - bucket.tokens) / self._rate

    def _forget_full(self, now: float) -> None:
        refill = self._burst / self._rate
        self._buckets = {key: b for key, b in self._buckets.items() if now - b.at < refill}
