"""The published budget enforcer this project replaces, as its article prints it, and the same with its order mended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BudgetStatus(str, Enum):  # noqa: UP042 - as printed
    """As printed."""

    OK = "ok"
    SOFT_LIMIT = "soft_limit"
    HARD_LIMIT = "hard_limit"


@dataclass
class BudgetEnforcer:
    """As printed, floats and order included: a session's soft limit hides the project's hard one."""

    project_budget: float
    project_spent: float
    session_limit: float
    soft_threshold: float = 0.8

    def check(self, session_cost: float) -> BudgetStatus:
        """The status of a session that has cost this much, USD."""
        if session_cost >= self.session_limit:
            return BudgetStatus.HARD_LIMIT
        if session_cost >= self.session_limit * self.soft_threshold:
            return BudgetStatus.SOFT_LIMIT
        total = self.project_spent + session_cost
        if total >= self.project_budget:
            return BudgetStatus.HARD_LIMIT
        if total >= self.project_budget * self.soft_threshold:
            return BudgetStatus.SOFT_LIMIT
        return BudgetStatus.OK


@dataclass
class MendedEnforcer(BudgetEnforcer):
    """Both hard limits before both soft ones; the snapshot stays a snapshot."""

    def check(self, session_cost: float) -> BudgetStatus:
        """The status of a session that has cost this much, USD."""
        total = self.project_spent + session_cost
        if total >= self.project_budget or session_cost >= self.session_limit:
            return BudgetStatus.HARD_LIMIT
        soft = self.soft_threshold
        if session_cost >= self.session_limit * soft or total >= self.project_budget * soft:
            return BudgetStatus.SOFT_LIMIT
        return BudgetStatus.OK
