"""Prometheus metrics of an agent pod. Base units; never a session id as label.

They live in the worker main: a job process tells it what to count over the pod's socket, for a file per short-lived
process (prometheus_client's multiprocess mode) would grow with every session.
"""

from __future__ import annotations

from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter

# name -> (help, its one label or none)
COUNTERS: dict[str, tuple[str, str | None]] = {
    "sessions_ended": ("Sessions ended, by reason.", "reason"),
    "responses": ("Provider responses and transcriptions metered, by status.", "status"),
    "refusals": ("Turns left unanswered by the gate, by reason.", "reason"),
    "unmetered": ("Billed things posted at their bound because no usage came.", None),
    "mismatches": ("Sessions in which livekit's numbers differ from the raw ones.", None),
    "replayed": ("Spools of dead job processes replayed into the ledger.", None),
}


class Telemetry(Protocol):
    """Where a job counts."""

    def count(self, name: str, label: str = "", amount: int = 1) -> None: ...


class AgentMetrics:
    """The counters, in the worker main."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._counters = {
            name: Counter(f"talktime_agent_{name}_total", text, [label] if label else [], registry=registry)
            for name, (text, label) in COUNTERS.items()
        }

    def count(self, name: str, label: str = "", amount: int = 1) -> None:
        """Counts; unknown names are ignored (a job of another version)."""
        counter = self._counters.get(name)
        if counter is not None and amount > 0:
            (counter.labels(label) if COUNTERS[name][1] else counter).inc(amount)
