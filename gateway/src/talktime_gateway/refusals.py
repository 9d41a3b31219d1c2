"""The ledger's errors as the gateway's refusals."""

from __future__ import annotations

from talktime_ledger.client import LedgerError, NotFound, Refused
from talktime_ledger.wire import ProblemReason

from .problems import Problem

TRY_NEXT = frozenset({ProblemReason.PRICE_UNKNOWN, ProblemReason.BUDGET_NOT_FEASIBLE})
"""Refusals that concern one provider: another one of the Project may do."""


def of_open(error: LedgerError) -> Problem:
    """Why a session could not be opened: 402 with the numbers, 404, or 503 when the ledger cannot be asked."""
    if isinstance(error, Refused) and error.problem is not None:
        numbers = {"available": error.problem.available, "needed": error.problem.needed}
        extra = {name: f"{value:f}" for name, value in numbers.items() if value is not None}
        return Problem(402, error.reason.value, error.problem.detail or error.problem.title, extra=extra)
    if isinstance(error, NotFound):
        return Problem(404, "ProjectNotFound", "no such project")
    return unavailable(error)


def of_ticket(error: LedgerError) -> Problem:
    """Why a ticket does not open the door."""
    told = {ProblemReason.USED: "TicketUsed", ProblemReason.EXPIRED: "TicketExpired"}
    if isinstance(error, NotFound):
        return Problem(401, "TicketUnknown", "this invitation is not known")
    if error.reason in told:
        return Problem(401, told[error.reason], "this invitation has been used or has expired")
    return unavailable(error)


def of_session(error: LedgerError) -> Problem:
    """Why a session cannot be read."""
    if isinstance(error, NotFound):
        return Problem(404, "SessionNotFound", "no such session")
    return unavailable(error)


def unavailable(error: LedgerError) -> Problem:
    """The ledger did not answer, or not so that it could be used: nothing was admitted."""
    return Problem(503, "LedgerUnavailable", f"the ledger cannot be asked now ({error.reason.value})", retry_after=3)
