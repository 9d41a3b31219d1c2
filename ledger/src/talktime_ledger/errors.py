"""What a call to the ledger can fail with, by the answer's status and reason."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
from pydantic import ValidationError

from talktime_ledger import wire
from talktime_ledger.wire import ProblemReason


class LedgerError(Exception):
    """Any failure of a call. `status` 0 = no answer."""

    def __init__(self, detail: str, *, status: int = 0, problem: wire.Problem | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.problem = problem

    @property
    def reason(self) -> ProblemReason:
        """The ledger's reason, `Unavailable` when it gave none."""
        return self.problem.reason if self.problem else ProblemReason.UNAVAILABLE


class Unavailable(LedgerError):  # noqa: N818
    """No usable answer in time: keep what is held, try again."""


class Unauthorized(LedgerError):  # noqa: N818
    """401 or 403: the token is not accepted, or not for this."""


class Refused(LedgerError):  # noqa: N818
    """402: money says no. `problem.reason`, `available`, `needed`."""


class NotFound(LedgerError):  # noqa: N818
    """404."""


class Fenced(LedgerError):  # noqa: N818
    """409: another agent holds a newer epoch. Stop, leave; usage sent along was still counted."""


class SessionClosed(LedgerError):  # noqa: N818
    """409: the session is over. Usage sent along was still counted."""


class Conflict(LedgerError):  # noqa: N818
    """409, other reasons, and 410."""


class Invalid(LedgerError):  # noqa: N818
    """The request itself is wrong (400, 413, 422): a repeat does not help."""


_BY_REASON: Mapping[ProblemReason, type[LedgerError]] = {
    ProblemReason.FENCED: Fenced,
    ProblemReason.CLOSED: SessionClosed,
}
_BY_STATUS: Mapping[int, type[LedgerError]] = {
    401: Unauthorized,
    402: Refused,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    410: Conflict,
    429: Unavailable,
}


def error_of(response: httpx.Response) -> LedgerError:
    """The typed error of an answer that is not 2xx."""
    try:
        problem = wire.Problem.model_validate_json(response.content)
    except ValidationError:
        problem = None
    detail = problem.detail or problem.title if problem else f"HTTP {response.status_code}"
    kind: type[LedgerError] = Unavailable if response.status_code >= 500 else Invalid
    kind = _BY_STATUS.get(response.status_code, kind)
    if problem is not None:
        kind = _BY_REASON.get(problem.reason, kind)
    return kind(detail, status=response.status_code, problem=problem)
