"""What an agent tells of its session (attach, use, close) and the grants it gets."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from talktime_ledger.core import money
from talktime_ledger.core.limits import LimitState
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.usage import Usage as CoreUsage
from talktime_ledger.core.usage import UsageKind, UsageStatus
from talktime_ledger.wire.base import Label, Usd, Wire
from talktime_ledger.wire.sessions import RateSnapshotWire, Session, SessionConfig, SessionEvent


class GrantState(StrEnum):
    """ok; soft: wrap up; final: nothing beyond `reserved` will come."""

    OK = "ok"
    SOFT = "soft"
    FINAL = "final"


class GrantBudget(Wire):
    """Numbers for observers (never for participants): the session's own cap and the project's account."""

    session_limit: Usd
    session_posted: Usd
    project_amount: Usd
    project_posted: Usd
    project_available: Usd


class Grant(Wire):
    """Answer of attach and use. `reserved` is held now, goodbye included; `w` = W(cap), `hold` worst cases to be held
    at once. `outage_reserve` is the part of `reserved` to be spent only while the ledger cannot be reached.
    """

    n: int
    state: GrantState
    reason: str = ""
    wrap_up: bool = False
    wrap_up_minutes: int | None = None
    reserved: Usd
    goodbye: Usd
    posted: Usd
    session_limit: Usd
    limit_state: LimitState
    valid_sec: int = 300
    w: Usd
    hold: int = 1
    outage_reserve: Usd = money.ZERO
    paused: bool = False
    deleted: bool = False
    budget: GrantBudget


class Attach(Wire):
    """An agent takes up a session."""

    epoch: int = Field(ge=1)
    worker: Label


class Attachment(Wire):
    """All an agent needs to begin. `rates`: the talking model's first, then transcription's."""

    session: Session
    config: SessionConfig
    grant: Grant
    rates: tuple[RateSnapshotWire, ...]


def _not_ours(value: str) -> str:
    if value.startswith("assumed/"):
        raise ValueError("keys under assumed/ are the ledger's own")
    return value


UsageKey = Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(_not_ours)]


class Usage(Wire):
    """One billed thing (law 3)."""

    key: UsageKey
    kind: UsageKind
    provider: Label
    model: Label
    meters: dict[Meter, Annotated[int, Field(ge=0, le=10**12)]]
    occurred_at: datetime
    status: UsageStatus = UsageStatus.COMPLETED
    unmetered: bool = False

    @field_validator("occurred_at")
    @classmethod
    def _with_zone(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("occurred_at needs a time zone")
        return value

    def to_core(self) -> CoreUsage:
        """The form the pure core prices."""
        return CoreUsage(
            self.key, self.kind, self.provider, self.model, self.meters, self.occurred_at, self.status, self.unmetered
        )

    @classmethod
    def of(cls, usage: CoreUsage) -> Usage:
        """The wire form of a core usage."""
        return cls(
            key=usage.key,
            kind=usage.kind,
            provider=usage.provider,
            model=usage.model,
            meters=dict(usage.meters),
            occurred_at=usage.occurred_at,
            status=usage.status,
            unmetered=usage.unmetered,
        )


class Use(Wire):
    """Posts usage and renews. `in_flight`: sum of W of open responses; `want`: W of the next response (0 = W(cap)); n
    counts up from 1.
    """

    epoch: int = Field(ge=1)
    n: int = Field(ge=1)
    usages: tuple[Usage, ...] = Field((), max_length=500)
    in_flight: Usd = Field(money.ZERO, ge=0)
    want: Usd = Field(money.ZERO, ge=0)
    turns: int = Field(0, ge=0)
    events: tuple[SessionEvent, ...] = Field((), max_length=100)


class Unmetered(Wire):
    """Something billed whose usage never came: posted at its bound."""

    key: UsageKey
    usd: Usd = Field(ge=0)


class Close(Wire):
    """Ends a session. Without an agent (gateway) epoch and n may be those of the session as read."""

    epoch: int = Field(ge=1)
    n: int = Field(0, ge=0)
    usages: tuple[Usage, ...] = Field((), max_length=500)
    reason: Label
    turns: int = Field(0, ge=0)
    duration_sec: float = Field(0, ge=0, le=10**7)
    unmetered: tuple[Unmetered, ...] = Field((), max_length=100)
    events: tuple[SessionEvent, ...] = Field((), max_length=100)
