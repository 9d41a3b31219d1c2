"""Refusals as problem+json (RFC 9457). A ticket holder gets neutral ones: no numbers, no reasons, no money, not even
in the status (law 8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    402: "Payment required",
    404: "Not found",
    405: "Method not allowed",
    425: "Too early",
    429: "Too many requests",
    500: "Internal error",
    503: "Service unavailable",
}
NEUTRAL = "interview not available"
# "Payment Required" stands in every browser's log, whatever the body says.
NEUTRAL_STATUS = {402: 403}


class Problem(Exception):  # noqa: N818 - the RFC's word
    """A refusal on its way to the client. ``retry_after`` is seconds; ``extra`` are further members of the body."""

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        retry_after: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after
        self.extra = dict(extra or {})

    def neutral(self) -> Problem:
        """The same refusal as a participant may see it."""
        return Neutral(self)


class Neutral(Problem):
    """A refusal told to a ticket holder. Keeps the true reason for the gateway's own logs and metrics."""

    def __init__(self, told: Problem) -> None:
        super().__init__(
            NEUTRAL_STATUS.get(told.status, told.status), told.reason, NEUTRAL, retry_after=told.retry_after
        )

    def body(self) -> dict[str, Any]:
        """The body: the same for every cause of one status."""
        return {"type": "about:blank", "title": NEUTRAL, "status": self.status, "detail": NEUTRAL}


def body(problem: Problem) -> dict[str, Any]:
    """The problem+json members."""
    if isinstance(problem, Neutral):
        return problem.body()
    return {
        "type": f"urn:talktime:problem:{problem.reason}",
        "title": TITLES.get(problem.status, "Error"),
        "status": problem.status,
        "detail": problem.detail,
        "reason": problem.reason,
        **problem.extra,
    }


def response(problem: Problem) -> JSONResponse:
    """The HTTP answer. Retry-After is whole seconds, at least 1; 401 names the scheme."""
    headers = {"Cache-Control": "no-store"}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body(problem), problem.status, headers, media_type="application/problem+json")
