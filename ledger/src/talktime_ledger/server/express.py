"""The express lane for `use`, which is nearly every call: authenticates, parses, renews together with others, answers.

It only ever answers a grant or 503. Whatever is not plain (no or another token, another body, another Project, a
repeat, a fence, a closed session) goes on to the ordinary route unchanged, so that rules and refusals are written once.
The framework's routing and dependencies would cost as much as the rest of the call.
"""

from __future__ import annotations

import re
from uuid import UUID

from fastapi import FastAPI, Response
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.together import Ask
from talktime_ledger.server.auth import Caller, Role
from talktime_ledger.server.context import Ledger, identify
from talktime_ledger.server.problems import DATABASE_ERRORS, unavailable
from talktime_ledger.wire import Use

PATH = "/v1/sessions/{session_id}/use"
_PATH = re.compile(r"/v1/sessions/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/use")


class Express:
    """ASGI, inside the guards (bounded bodies, bounded time), outside the framework."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        found = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
            messages.append(await receive())
        app: FastAPI = scope["app"]
        response = await _granted(app.state.ledger, UUID(found[1]), scope, messages)
        if response is None:
            await self._app(scope, _replay(messages, receive), send)
            return
        scope["express"] = PATH
        await response(scope, receive, send)


async def _granted(ledger: Ledger, session_id: UUID, scope: Scope, messages: list[Message]) -> Response | None:
    headers = dict(scope["headers"])
    if messages[-1]["type"] != "http.request" or not headers.get(b"content-type", b"").startswith(b"application/json"):
        return None
    try:
        caller: Caller = await identify(ledger, headers.get(b"authorization", b"").decode("latin-1"))
        use = Use.model_validate_json(b"".join(message.get("body", b"") for message in messages))
    except (DeskError, ValidationError):
        return None
    if caller.role is not Role.AGENT:
        return None
    names = (caller.namespace, caller.project)
    try:
        answer = await ledger.renewals.use(names, Ask(session_id, use))
    except DATABASE_ERRORS as error:
        return unavailable(error)
    if answer is None:
        return None
    ledger.hub.changed(*names)
    return Response(answer, media_type="application/json")


def _replay(messages: list[Message], receive: Receive) -> Receive:
    left = list(reversed(messages))

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again
