"""Refusals as problem+json, and events of the push streams."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from talktime_ledger.wire.base import Usd, Wire


class ProblemReason(StrEnum):
    """`reason` of a problem+json answer."""

    BUDGET_EXHAUSTED = "BudgetExhausted"
    PAUSED = "Paused"
    PRICE_UNKNOWN = "PriceUnknown"
    BUDGET_NOT_FEASIBLE = "BudgetNotFeasible"
    PARTICIPANT_LIMIT = "ParticipantLimit"
    NOT_FOUND = "NotFound"
    FENCED = "Fenced"
    CLOSED = "Closed"
    CONFLICT = "Conflict"
    UNAUTHORIZED = "Unauthorized"
    FORBIDDEN = "Forbidden"
    INVALID = "Invalid"
    TOO_LARGE = "TooLarge"
    TICKET_UNKNOWN = "TicketUnknown"
    USED = "Used"
    EXPIRED = "Expired"
    UNAVAILABLE = "Unavailable"


class Problem(Wire):
    """RFC 9457 problem+json with our reason; `available` and `needed` with 402."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    reason: ProblemReason
    available: Usd | None = None
    needed: Usd | None = None


class PushEvent(Wire):
    """One server-sent event of /push and /changes."""

    event: str
    data: dict[str, Any]
