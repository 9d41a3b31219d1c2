"""Around every request: errors become problem+json, one log line, two metrics. Credentials never reach a log."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .metrics import Metrics
from .problems import Problem, response

log = logging.getLogger(__name__)

_PROJECT = re.compile(r"[a-z0-9.-]{1,63}/[a-z0-9.-]{1,63}")
"""What may be logged of an address: anything else could be a credential typed into the wrong place."""

QUIET = ("/healthz", "/readyz", "/metrics")


async def problem(request: Request, error: Exception) -> JSONResponse:
    """A refusal of ours."""
    assert isinstance(error, Problem)
    request.state.reason = error.reason
    return response(error)


async def http_exception(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses (no such route, wrong method)."""
    assert isinstance(error, HTTPException)
    told = Problem(error.status_code, "Refused", str(error.detail))
    if error.status_code == 404:
        told = Problem(404, "NotFound", "no such resource")
    answer = response(told)
    answer.headers.update(error.headers or {})
    return answer


async def log_and_count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """One log line and two metrics per request. The query (tickets) and the headers (keys) are never logged."""
    begun = time.monotonic()
    try:
        answer = await call_next(request)
    except Exception:
        log.exception("unhandled", extra={"route": _route(request)})
        answer = response(Problem(500, "Internal", "something went wrong here", retry_after=5).neutral())
    route, took = _route(request), time.monotonic() - begun
    metrics: Metrics = request.app.state.metrics
    metrics.requests.labels(route, str(answer.status_code)).inc()
    metrics.request_seconds.labels(route).observe(took)
    if route not in QUIET:
        log.info("%s %s %d", request.method, route, answer.status_code, extra=_fields(request, took))
    return answer


def _route(request: Request) -> str:
    """The route's template; what a client typed there goes into no log or label."""
    return str(getattr(request.scope.get("route"), "path", "other"))


def _fields(request: Request, took: float) -> dict[str, Any]:
    fields: dict[str, Any] = {"ms": round(took * 1000, 1)}
    params = request.scope.get("path_params") or {}
    project = f"{params.get('namespace', '')}/{params.get('name', '')}"
    if _PROJECT.fullmatch(project):
        fields["project"] = project
    for name in ("session", "reason"):
        if hasattr(request.state, name):
            fields[name] = getattr(request.state, name)
    return fields
