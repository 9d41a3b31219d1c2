"""Async client of the ledger: typed calls, typed errors, retries where a repeat is harmless, server-sent events.

Every call carries the ServiceAccount token, read from its file each time (the kubelet rotates it). All calls but a few
are idempotent by design ((session, n), usage keys, session ids), so transport errors and 5xx are retried with growing
pauses up to `patience_sec`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError

from talktime_ledger import wire
from talktime_ledger.errors import Conflict as Conflict
from talktime_ledger.errors import Fenced as Fenced
from talktime_ledger.errors import Invalid as Invalid
from talktime_ledger.errors import LedgerError as LedgerError
from talktime_ledger.errors import NotFound as NotFound
from talktime_ledger.errors import Refused as Refused
from talktime_ledger.errors import SessionClosed as SessionClosed
from talktime_ledger.errors import Unauthorized as Unauthorized
from talktime_ledger.errors import Unavailable as Unavailable
from talktime_ledger.errors import error_of as error_of
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.wire.invoices import InvoicePush, InvoiceReport
from talktime_ledger.wire.resume import Checkpoint, Kept, Lost

Model = TypeVar("Model", bound=BaseModel)

DEFAULT_TOKEN_PATH = "/var/run/secrets/talktime/token"  # noqa: S105 - a path
# The server pings at least every 15 s; three missed ones mean the stream is dead.
STREAM_SILENCE_SEC = 45.0


class LedgerClient:
    """One connection pool to the ledger; use as `async with`."""

    def __init__(
        self,
        base_url: str,
        *,
        token_path: str | Path | None = DEFAULT_TOKEN_PATH,
        token: str | None = None,
        timeout_sec: float = 5.0,
        patience_sec: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._token_path = Path(token_path) if token_path else None
        self._token = token
        self._patience_sec = patience_sec
        self._timeout_sec = timeout_sec
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=8)
        # Reading the CA bundle takes tens of milliseconds and is of no use in plain HTTP.
        verify = base_url.startswith("https:")
        self._http = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/v1",
            timeout=timeout_sec,
            transport=transport,
            limits=limits,
            verify=verify,
        )

    async def __aenter__(self) -> LedgerClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    # -- operator ----------------------------------------------------------------------------------------------------

    async def put_project(self, namespace: str, name: str, push: wire.ProjectPush) -> wire.ProjectStatus:
        """Tells the ledger about a Project."""
        return await self._send("PUT", f"/projects/{namespace}/{name}", wire.ProjectStatus, push)

    async def delete_project(self, namespace: str, name: str) -> None:
        """Marks a Project deleted: no new sessions."""
        await self._do("DELETE", f"/projects/{namespace}/{name}")

    async def project(self, namespace: str, name: str) -> wire.ProjectStatus:
        """Status of one Project; NotFound."""
        return await self._send("GET", f"/projects/{namespace}/{name}", wire.ProjectStatus)

    async def projects(self) -> tuple[wire.ProjectStatus, ...]:
        """Status of all Projects."""
        return (await self._send("GET", "/projects", wire.ProjectList)).projects

    async def put_rate_card(self, name: str, spec: RateCardSpec) -> None:
        """Tells the ledger about a RateCard; Invalid with the reason if it cannot be resolved."""
        await self._do("PUT", f"/rate-cards/{name}", spec)

    async def delete_rate_card(self, name: str) -> None:
        """Removes a RateCard."""
        await self._do("DELETE", f"/rate-cards/{name}")

    async def put_pool(self, namespace: str, name: str, push: wire.PoolPush) -> None:
        """Tells the ledger about an SFUPool."""
        await self._do("PUT", f"/pools/{namespace}/{name}", push)

    async def pool(self, namespace: str, name: str) -> wire.PoolPush:
        """What the ledger was told last about an SFUPool."""
        return await self._send("GET", f"/pools/{namespace}/{name}", wire.PoolPush)

    async def delete_pool(self, namespace: str, name: str) -> None:
        """Removes an SFUPool."""
        await self._do("DELETE", f"/pools/{namespace}/{name}")

    def changes(self) -> AsyncIterator[wire.PushEvent]:
        """Endless `project` events (pings are swallowed); reconnects by itself. After each (re)connect one `resync`
        event.
        """
        return self._stream("/changes")

    # -- gateway -----------------------------------------------------------------------------------------------------

    async def directory(self, etag: str | None = None) -> tuple[str, wire.Directory] | None:
        """(etag, directory), or None when `etag` is still current."""
        headers = {"If-None-Match": etag} if etag else {}
        response = await self._request("GET", "/directory", None, headers=headers)
        if response.status_code == 304:
            return None
        return response.headers.get("ETag", ""), wire.Directory.model_validate_json(response.content)

    async def open_session(self, request: wire.SessionOpen) -> wire.Session:
        """Reserves and opens; Refused with the reason; NotFound for an unknown or deleted Project or provider.

        With a ticket also NotFound (reason TicketUnknown), Conflict (Used, Expired); refused: the ticket stays good.
        """
        return await self._send("POST", "/sessions", wire.Session, request)

    async def session(self, session_id: str | UUID) -> wire.Session:
        """One session with its costs; NotFound."""
        return await self._send("GET", f"/sessions/{session_id}", wire.Session)

    async def sessions(
        self, *, namespace: str | None = None, project: str | None = None, state: str | None = None, limit: int = 1000
    ) -> tuple[wire.Session, ...]:
        """Sessions, newest first."""
        params = {"namespace": namespace, "project": project, "state": state, "limit": limit}
        return (await self._send("GET", "/sessions", wire.SessionList, params=params)).sessions

    async def claim(self, session_id: str | UUID, request: wire.Claim) -> wire.Session:
        """Raises the epoch (fences the old agent); Conflict when someone else did."""
        return await self._send("POST", f"/sessions/{session_id}/claim", wire.Session, request)

    async def lost_sessions(self) -> tuple[wire.Session, ...]:
        """Open sessions that lost their agent and wait for a claim."""
        return (await self._send("GET", "/sessions/lost", wire.SessionList)).sessions

    async def unended(self) -> tuple[wire.Unended, ...]:
        """Connections whose end nobody has told, of sessions opened within the last two days."""
        return (await self._send("GET", "/sessions/unended", wire.UnendedList)).sessions

    async def post_transport(self, session_id: str | UUID, request: wire.Transport) -> None:
        """What is known of a room's connections, cumulative."""
        await self._do("POST", f"/sessions/{session_id}/transport", request)

    async def issue_ticket(self, request: wire.TicketIssue) -> None:
        """Stores a ticket's hash."""
        await self._do("POST", "/tickets", request)

    # -- agent -------------------------------------------------------------------------------------------------------

    async def attach(self, session_id: str | UUID, request: wire.Attach) -> wire.Attachment:
        """Takes up a session; Fenced, SessionClosed."""
        return await self._send("POST", f"/sessions/{session_id}/attach", wire.Attachment, request)

    async def use(self, session_id: str | UUID, request: wire.Use, *, patience_sec: float | None = None) -> wire.Grant:
        """Posts usage and renews; Fenced, SessionClosed (usage counted in both), Unavailable."""
        return await self._send("POST", f"/sessions/{session_id}/use", wire.Grant, request, patience_sec=patience_sec)

    async def close(self, session_id: str | UUID, request: wire.Close) -> wire.CostList:
        """Ends a session; again is harmless; Fenced for an old epoch (usage counted).

        Conflict for anybody but the agent while one is attached and valid: leave it. Reason `room_failed` gives the
        ticket back.
        """
        return await self._send("POST", f"/sessions/{session_id}/close", wire.CostList, request)

    async def lose(self, session_id: str | UUID, request: Lost) -> wire.Session:
        """Tells that the agent's process died; Fenced, SessionClosed (usage counted in both)."""
        return await self._send("POST", f"/sessions/{session_id}/lost", wire.Session, request)

    async def beat(self, namespace: str, name: str, host: str) -> None:
        """Tells that this pod is alive. One try: the next heartbeat is the repeat."""
        await self._request("PUT", f"/projects/{namespace}/{name}/workers/{host}", None, patience_sec=0)

    async def put_context(self, session_id: str | UUID, checkpoint: Checkpoint) -> bool:
        """Keeps what was said so far; False when it is not kept. Fenced, SessionClosed. One try."""
        path = f"/sessions/{session_id}/context"
        return (await self._send("PUT", path, Kept, checkpoint, patience_sec=0)).kept

    async def context(self, session_id: str | UUID) -> Checkpoint:
        """What was said before this agent came."""
        return await self._send("GET", f"/sessions/{session_id}/context", Checkpoint)

    def push(self, namespace: str, name: str) -> AsyncIterator[wire.PushEvent]:
        """Endless `limits|paused|fence|closed` events of a Project; after each (re)connect one `resync` event."""
        return self._stream(f"/push/{namespace}/{name}")

    async def report_provider(self, namespace: str, name: str, report: wire.ProviderReport) -> None:
        """Tells how a provider answered."""
        await self._do("POST", f"/projects/{namespace}/{name}/provider-report", report)

    async def clip(self, namespace: str, name: str, key: str) -> bytes | None:
        """A rendered closing clip (s16le, 24 kHz, mono), None if there is none."""
        try:
            response = await self._request("GET", f"/projects/{namespace}/{name}/clips/{key}", None)
        except NotFound:
            return None
        return response.content

    async def put_clip(self, namespace: str, name: str, key: str, pcm: bytes) -> None:
        """Stores a rendered closing clip (at most 4 MiB)."""
        await self._request(
            "PUT", f"/projects/{namespace}/{name}/clips/{key}", pcm, headers={"Content-Type": "audio/pcm"}
        )

    # -- console -----------------------------------------------------------------------------------------------------

    async def spend(
        self,
        *,
        namespace: str | None = None,
        project: str | None = None,
        since: str | None = None,
        until: str | None = None,
        by: str = "provider,model",
    ) -> tuple[wire.SpendRow, ...]:
        """Spend grouped by any of day, provider, model; since/until are RFC 3339 or dates (UTC), until exclusive."""
        params = {"namespace": namespace, "project": project, "from": since, "to": until, "by": by}
        return (await self._send("GET", "/reports/spend", wire.SpendReport, params=params)).rows

    async def transport_report(
        self,
        *,
        namespace: str | None = None,
        project: str | None = None,
        since: str | None = None,
        until: str | None = None,
        by: str = "project",
    ) -> tuple[wire.TransportRow, ...]:
        """Participant-minutes and peaks of sessions opened since..until, by any of project, pool, month; "" = all."""
        params = {"namespace": namespace, "project": project, "from": since, "to": until, "by": by}
        return (await self._send("GET", "/reports/transport", wire.TransportReport, params=params)).rows

    async def plan_report(self, *, since: str | None = None, until: str | None = None) -> tuple[wire.PlanRow, ...]:
        """LiveKit Cloud's plan, month by month; the present one when `since` is not given."""
        params = {"from": since, "to": until}
        return (await self._send("GET", "/reports/plan", wire.PlanReport, params=params)).rows

    async def session_report(
        self,
        *,
        namespace: str | None = None,
        project: str | None = None,
        since: str | None = None,
        until: str | None = None,
        limit: int = 1000,
    ) -> tuple[wire.SessionRow, ...]:
        """Sessions with their cost rows, newest first."""
        params = {"namespace": namespace, "project": project, "from": since, "to": until, "limit": limit}
        return (await self._send("GET", "/reports/sessions", wire.SessionReport, params=params)).rows

    async def settle_invoice(self, push: InvoicePush) -> InvoiceReport:
        """Settles a provider's bill (or only says what would be posted); Invalid names the line."""
        return await self._send("POST", "/invoices", InvoiceReport, push)

    # -- the wire ----------------------------------------------------------------------------------------------------

    async def _send(
        self,
        method: str,
        path: str,
        answer: type[Model],
        body: BaseModel | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        patience_sec: float | None = None,
    ) -> Model:
        response = await self._do(method, path, body, params=params, patience_sec=patience_sec)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise Unavailable(f"{method} {path}: unreadable answer: {error.error_count()} errors") from error

    async def _do(
        self,
        method: str,
        path: str,
        body: BaseModel | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        patience_sec: float | None = None,
    ) -> httpx.Response:
        content = body.model_dump_json(by_alias=True, exclude_none=True).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if content is not None else {}
        return await self._request(method, path, content, headers=headers, params=params, patience_sec=patience_sec)

    async def _request(
        self,
        method: str,
        path: str,
        content: bytes | None,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        patience_sec: float | None = None,
    ) -> httpx.Response:
        patience = self._patience_sec if patience_sec is None else patience_sec
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + patience, 0.1
        given = {key: value for key, value in (params or {}).items() if value is not None}
        while True:
            try:
                response = await self._http.request(
                    method, path, content=content, params=given, headers={**self._auth(), **(headers or {})}
                )
                if response.is_success or response.status_code == 304:
                    return response
                error = error_of(response)
            except (httpx.TransportError, OSError) as failure:
                error = Unavailable(f"{method} {path}: {type(failure).__name__}: {failure}")
            # A 401 may be the moment between two tokens of the kubelet.
            again = isinstance(error, Unavailable) or error.status == 401
            if not again or loop.time() + pause > deadline:
                raise error
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 2.0)

    def _auth(self) -> dict[str, str]:
        token = self._token
        if token is None and self._token_path is not None:
            token = self._token_path.read_text().strip()
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def _stream(self, path: str) -> AsyncIterator[wire.PushEvent]:
        pause = 0.5
        timeout = httpx.Timeout(self._timeout_sec, read=STREAM_SILENCE_SEC)
        while True:
            try:
                async with self._http.stream("GET", path, headers=self._auth(), timeout=timeout) as response:
                    if not response.is_success:
                        await response.aread()
                        raise error_of(response)
                    pause = 0.5
                    yield wire.PushEvent(event="resync", data={})
                    async for event in parse_events(response.aiter_lines()):
                        if event.event != "ping":
                            yield event
            except (Unavailable, Unauthorized, httpx.TransportError, OSError):
                pass
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 10.0)


async def parse_events(lines: AsyncIterator[str]) -> AsyncIterator[wire.PushEvent]:
    """Server-sent events with a JSON object as data; comments and other fields are ignored."""
    name, data = "message", ""
    async for line in lines:
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
        elif not line:
            if data:
                yield wire.PushEvent(event=name, data=json.loads(data))
            name, data = "message", ""
