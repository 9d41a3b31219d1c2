"""The ledger's errors as the gateway's refusals."""

from __future__ import annotations

from talktime_ledger.client import LedgerError, NotFound, Refused
from talktime_ledger.wire import ProblemReason

from .problems import Problem

TRY_NEXT = frozenset({ProblemReason.PRICE_UNKNOWN, ProblemReason.BUDGET_NOT_FEASIBLE})
"""Refusals that concern one provider: another one of the Project may do."""

TICKETS = {
    ProblemReason.TICKET_UNKNOWN: ("TicketUnknown", "this invitation is not known"),
    ProblemReason.USED: ("TicketUsed", "this invitation has been used"),
    ProblemReason.EXPIRED: ("TicketExpired", "this invitation has expired"),
}
"""Why a ticket does not open the door: reason and text of a 401."""


def of_open(error: LedgerError) -> Problem:
    """Why no session was opened: 401 for its ticket, 402 with the numbers, 404, 503 when the ledger cannot be asked."""
    if isinstance(error, Refused) and error.problem is not None:
        numbers = {"available": error.problem.available, "needed": error.problem.needed}
        extra = {name: f"{value:f}" for name, value in numbers.items() if value is not None}
        return Problem(402, error.reason.value, error.problem.detail or error.problem.title, extra=extra)
    if error.reason in TICKETS:
        return Problem(401, *TICKETS[error.reason])
    if isinstance(error, NotFound):
        return Problem(404, "ProjectNotFound", "no such project")
    return unavailable(error)


def of_session(error: LedgerError) -> Problem:
    """Why a session cannot be read."""
    if isinstance(error, NotFound):
        return Problem(404, "SessionNotFound", "no such session")
    return unavailable(error)


def unavailable(error: LedgerError) -> Problem:
    """The ledger did not answer, or not so that it could be used: nothing was admitted."""
    return Problem(503, "LedgerUnavailable", f"the ledger cannot be asked now ({error.reason.value})", retry_after=3)
