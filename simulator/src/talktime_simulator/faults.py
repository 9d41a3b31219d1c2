"""Switches for tests: the misbehaviour of a real provider, for the next responses."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    """What can go wrong with a response. `late_usage` and `go_away` are Gemini's only, `failed` is OpenAI's."""

    LATE_DONE = "late_done"
    DUPLICATE_DONE = "duplicate_done"
    DROP_SOCKET = "drop_socket"
    LATE_CREATED = "late_created"
    LATE_USAGE = "late_usage"
    GO_AWAY = "go_away"
    FAILED = "failed"


OPENAI = frozenset({Fault.LATE_DONE, Fault.DUPLICATE_DONE, Fault.DROP_SOCKET, Fault.LATE_CREATED, Fault.FAILED})
GEMINI = frozenset(Fault) - {Fault.FAILED}


@dataclass(slots=True)
class Planned:
    """`fault` for the next `count` responses; `seconds` is the delay, or the audio sent before a drop or a failure."""

    fault: Fault
    seconds: float = 1.0
    count: int = 1


@dataclass(slots=True)
class FaultPlan:
    """Faults waiting for a response."""

    planned: list[Planned] = field(default_factory=list)

    def add(self, body: dict[str, Any]) -> None:
        """`{"fault", "seconds"?, "count"?}`. Raises ValueError (also for a missing or unknown fault)."""
        self.planned.append(
            Planned(Fault(body.get("fault", "")), float(body.get("seconds", 1.0)), int(body.get("count", 1)))
        )

    def take(self, known: frozenset[Fault]) -> dict[Fault, float]:
        """The faults of the next response of an API that has the `known` ones, used up; the others wait."""
        taken = [plan for plan in self.planned if plan.count > 0 and plan.fault in known]
        now = {plan.fault: plan.seconds for plan in taken}
        for plan in taken:
            plan.count -= 1
        self.planned = [plan for plan in self.planned if plan.count > 0]
        return now
