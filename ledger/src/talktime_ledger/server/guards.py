"""ASGI guards: bounded bodies and bounded time before anything is parsed, and the time each call took."""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talktime_ledger.desk.errors import DeskError
from talktime_ledger.server.metrics import Metrics
from talktime_ledger.server.problems import problem_response
from talktime_ledger.wire import ProblemReason

MAX_BODY_BYTES = 1024 * 1024
MAX_CLIP_BODY_BYTES = 4 * 1024 * 1024
MAX_INVOICE_BODY_BYTES = 8 * 1024 * 1024
# A bill of a large installation takes longer than a call of a session may.
INVOICE_TIMEOUT_SEC = 90.0
_INVOICES = "/v1/invoices"
_STREAMS = ("/v1/changes", "/v1/push/")


class _TooLargeError(Exception):
    pass


class Guards:
    """Answers 413 and 503 itself; streams have no time limit."""

    def __init__(self, app: ASGIApp, timeout_sec: float) -> None:
        self._app = app
        self._timeout_sec = timeout_sec

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), "0"

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._guarded(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", None) or scope.get("express", "other")
            metrics: Metrics = scope["app"].state.ledger.metrics
            metrics.requests.labels(scope["method"], route, status).observe(time.perf_counter() - begun)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        limit = MAX_CLIP_BODY_BYTES if "/clips/" in path else MAX_BODY_BYTES
        seconds: float | None = None if path.startswith(_STREAMS) else self._timeout_sec
        if path == _INVOICES:
            limit, seconds = MAX_INVOICE_BODY_BYTES, INVOICE_TIMEOUT_SEC
        started, seen, too_large = False, 0, False

        async def bounded() -> Message:
            nonlocal seen, too_large
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                too_large = True
                raise _TooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if too_large:
                # The framework makes a 400 of it; ours follows below.
                return
            started = started or message["type"] == "http.response.start"
            await send(message)

        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        error: DeskError
        try:
            if length.isdigit() and int(length) > limit:
                raise _TooLargeError
            async with asyncio.timeout(seconds):
                await self._app(scope, bounded, watched)
            if too_large:
                raise _TooLargeError
            return
        except _TooLargeError:
            error = DeskError(ProblemReason.TOO_LARGE, f"the body is larger than {limit} bytes")
        except TimeoutError:
            error = DeskError(ProblemReason.UNAVAILABLE, f"no result within {seconds:.0f} s")
        if not started:
            await problem_response(error)(scope, receive, send)
