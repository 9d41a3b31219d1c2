"""What the operator tells about a Project, and all that the resource shows."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.wire.base import Label, Sha256, Usd, Wire


class AccessKind(StrEnum):
    """Which credential a key is."""

    SERVER = "server"
    OBSERVER = "observer"


class AccessKey(Wire):
    """Hash of one access key."""

    id: Label
    kind: AccessKind
    sha256: Sha256


class ProjectPush(Wire):
    """What the operator tells about a Project. `instructions` is resolved (inline or from the ConfigMap)."""

    uid: Label
    generation: int = Field(ge=0)
    paused: bool = False
    instructions: Annotated[str, StringConstraints(max_length=40_000)]
    accessKeys: tuple[AccessKey, ...] = Field((), max_length=32)
    spec: ProjectSpec


class BudgetState(StrEnum):
    """State of a Project's budget as on the resource."""

    OK = "OK"
    SOFT = "SoftLimit"
    HARD = "HardLimit"


class BudgetStatus(Wire):
    """The account of the present period. `available` may be negative after a lowered budget. `forecast`: projected
    spend of open sessions' ends included.
    """

    amount: Usd
    posted: Usd
    reserved: Usd
    available: Usd
    state: BudgetState
    period: str
    forecast: Usd


class SessionCounts(Wire):
    """Sessions of a Project. waiting = open without an agent."""

    open: int = 0
    waiting: int = 0
    attached: int = 0
    completed: int = 0
    refused: dict[str, int] = Field(default_factory=dict)


class PriceStatus(Wire):
    """Whether new sessions of this provider can be priced now."""

    provider: str
    model: str
    known: bool
    reason: str = ""


class FeasibleStatus(Wire):
    """BudgetFeasible."""

    ok: bool
    reason: str = ""
    message: str = ""


class ProviderStatus(Wire):
    """Last report of the agents about one provider; `since` = when it was last refused, or first answered."""

    name: str
    ok: bool
    code: str = ""
    message: str = ""
    since: datetime | None = None


class ProjectStatus(Wire):
    """All the ledger knows about a Project. `generation` is the one last pushed."""

    namespace: str
    name: str
    generation: int = 0
    paused: bool = False
    deleted: bool = False
    budget: BudgetStatus
    sessions: SessionCounts
    prices: tuple[PriceStatus, ...] = ()
    feasible: FeasibleStatus
    providers: tuple[ProviderStatus, ...] = ()
    ledgerTime: datetime


class ProjectList(Wire):
    """All Projects."""

    projects: tuple[ProjectStatus, ...]


class ProviderReport(Wire):
    """What an agent saw at a provider."""

    provider: Label
    ok: bool
    code: Annotated[str, StringConstraints(max_length=100)] = ""
    message: Annotated[str, StringConstraints(max_length=500)] = ""
