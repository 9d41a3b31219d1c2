"""What a transaction may answer instead of a result; the server turns it into problem+json."""

from __future__ import annotations

from decimal import Decimal

from talktime_ledger.wire import ProblemReason

STATUS = {
    ProblemReason.BUDGET_EXHAUSTED: 402,
    ProblemReason.PAUSED: 402,
    ProblemReason.PRICE_UNKNOWN: 402,
    ProblemReason.BUDGET_NOT_FEASIBLE: 402,
    ProblemReason.PARTICIPANT_LIMIT: 402,
    ProblemReason.UNAUTHORIZED: 401,
    ProblemReason.FORBIDDEN: 403,
    ProblemReason.NOT_FOUND: 404,
    ProblemReason.FENCED: 409,
    ProblemReason.CLOSED: 409,
    ProblemReason.CONFLICT: 409,
    ProblemReason.TICKET_UNKNOWN: 404,
    ProblemReason.USED: 409,
    ProblemReason.EXPIRED: 410,
    ProblemReason.TOO_LARGE: 413,
    ProblemReason.INVALID: 422,
    ProblemReason.UNAVAILABLE: 503,
}


class DeskError(Exception):
    """A reason, a sentence for operators and backends, and with 402 the numbers."""

    def __init__(
        self, reason: ProblemReason, detail: str, *, available: Decimal | None = None, needed: Decimal | None = None
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.available = available
        self.needed = needed

    @property
    def status(self) -> int:
        """HTTP status."""
        return STATUS[self.reason]


class GrantRaceError(Exception):
    """Someone else took the money between reading and granting: read again."""
