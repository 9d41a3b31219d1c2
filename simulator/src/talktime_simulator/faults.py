"""Switches for tests: the misbehaviour of a real provider, for the next responses."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    """What can go wrong with a response."""

    LATE_DONE = "late_done"
    DUPLICATE_DONE = "duplicate_done"
    DROP_SOCKET = "drop_socket"
    LATE_CREATED = "late_created"


@dataclass(slots=True)
class Planned:
    """`fault` for the next `count` responses; `seconds` is the delay, or the audio sent before a drop."""

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

    def take(self) -> dict[Fault, float]:
        """The faults of the next response, used up."""
        now = {plan.fault: plan.seconds for plan in self.planned if plan.count > 0}
        for plan in self.planned:
            plan.count -= 1
        self.planned = [plan for plan in self.planned if plan.count > 0]
        return now
