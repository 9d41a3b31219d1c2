"""Which livekit-servers were started again a moment ago, as their kubelets told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from talktime_operator.observed import Pod

RECENT_SECONDS = 5.0
"""For so long a server that was started again refuses connections without a meaning: 1 s on an idle machine, 3 s on a
busy one. Its participants come back into their rooms."""


class Restarts:
    """By pod uid. Counted from when a restart was seen (monotonic): machines' clocks differ."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[str, float]] = {}

    def seen(self, pods: Iterable[Pod], now: float) -> Iterator[str]:
        """Uids of those that have begun anew since they were last asked for. What began before it was first seen is no
        restart; one that does not run has not begun again."""
        for pod in pods:
            began, _ = self._began.get(pod.uid, ("", 0.0))
            if pod.sfu.began not in ("", began):
                self._began[pod.uid] = (pod.sfu.began, now if began else float("-inf"))
                if began:
                    yield pod.uid

    def recent(self, uid: str, now: float) -> bool:
        return uid in self._began and now - self._began[uid][1] <= RECENT_SECONDS

    def forget(self, but: Set[str]) -> None:
        self._began = {uid: began for uid, began in self._began.items() if uid in but}
