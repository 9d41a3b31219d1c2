"""problem+json (RFC 9457) for everything that is not 2xx."""

from __future__ import annotations

import asyncio
import logging

import asyncpg  # type: ignore[import-untyped] # ships no types
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from talktime_ledger.desk.errors import DeskError
from talktime_ledger.wire import Problem, ProblemReason

log = logging.getLogger(__name__)

_TITLES = {
    ProblemReason.BUDGET_EXHAUSTED: "The budget does not carry a new session",
    ProblemReason.PAUSED: "The Project is paused",
    ProblemReason.PRICE_UNKNOWN: "A price is unknown",
    ProblemReason.BUDGET_NOT_FEASIBLE: "The session limit is below the worst cases",
    ProblemReason.PARTICIPANT_LIMIT: "The participant's limit is reached",
    ProblemReason.FENCED: "Another agent holds this session",
    ProblemReason.CLOSED: "The session is closed",
}


def problem_response(error: DeskError) -> Response:
    """The answer to an error."""
    problem = Problem(
        title=_TITLES.get(error.reason, error.reason.value),
        status=error.status,
        detail=error.detail,
        reason=error.reason,
        available=error.available,
        needed=error.needed,
    )
    headers = {"Retry-After": "1"} if error.status == 503 else {}
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=error.status,
        media_type="application/problem+json",
        headers=headers,
    )


DATABASE_ERRORS = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.QueryCanceledError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
)
"""What says that the database, not the request, is at fault."""


def unavailable(error: Exception) -> Response:
    """503; the cause is logged, not told."""
    log.warning("database: %s: %s", type(error).__name__, error)
    return problem_response(DeskError(ProblemReason.UNAVAILABLE, "the database cannot be used now"))


def install(app: FastAPI) -> None:
    """Registers the handlers."""

    @app.exception_handler(DeskError)
    async def desk(_: Request, error: DeskError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem_response(DeskError(ProblemReason.INVALID, f"{where}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        reason = ProblemReason.NOT_FOUND if error.status_code == 404 else ProblemReason.INVALID
        return problem_response(DeskError(reason, str(error.detail)))

    async def no_database(_: Request, error: Exception) -> Response:
        return unavailable(error)

    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, no_database)
