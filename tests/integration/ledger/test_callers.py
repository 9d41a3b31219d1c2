"""Whoever calls: an agent of one Project and the rest of the API, and clients that stall."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from talktime_ledger import wire
from talktime_ledger.server.app import create_app
from talktime_ledger.server.protocol import PatientProtocol
from talktime_ledger.server.settings import Settings

from .conftest import (
    GATEWAY,
    OPERATOR,
    Issuer,
    Server,
    Stand,
    agent_of,
    opening,
    project_push,
    rate_card,
    settings_for,
    standing,
)

USAGE = {
    "key": "x",
    "kind": "response",
    "provider": "main",
    "model": "gpt-realtime-mini",
    "meters": {"audio_out": 9},
    "occurred_at": "2026-11-01T00:00:00Z",
}
SESSION = "/v1/sessions/{session_id}"
PROJECT = "/v1/projects/{namespace}/{name}"
# A good body for every operation that takes one, so that nothing but the caller can be at fault.
BODIES: dict[tuple[str, str], Any] = {
    ("put", PROJECT): project_push("1000").model_dump(mode="json", by_alias=True),
    ("put", "/v1/pools/{namespace}/{name}"): {"publicURL": "wss://x", "internalURL": "ws://x"},
    ("put", "/v1/rate-cards/{name}"): rate_card().model_dump(mode="json", by_alias=True, exclude_none=True),
    ("post", f"{PROJECT}/provider-report"): {"provider": "main", "ok": True},
    ("post", "/v1/sessions"): {
        "session_id": "00000000-0000-4000-8000-000000000001",
        "namespace": "study",
        "project": "limit",
        "provider": "main",
    },
    ("post", f"{SESSION}/attach"): {"epoch": 1, "worker": "x"},
    ("post", f"{SESSION}/use"): {"epoch": 1, "n": 1, "usages": [USAGE]},
    ("post", f"{SESSION}/close"): {"epoch": 1, "n": 1, "reason": "x", "usages": [USAGE]},
    ("post", f"{SESSION}/claim"): {"epoch": 2, "reason": "x"},
    ("post", f"{SESSION}/lost"): {"epoch": 1, "n": 1, "reason": "x", "usages": [USAGE]},
    ("put", f"{SESSION}/context"): {"epoch": 1, "items": []},
    ("put", f"{PROJECT}/workers/{{host}}"): {"sessions": []},
    ("post", f"{SESSION}/transport"): {"participant_seconds": {"p/1": 60}},
    ("post", "/v1/tickets"): {
        "namespace": "study",
        "project": "limit",
        "sha256": "a" * 64,
        "expires_at": "2099-01-01T00:00:00Z",
    },
    ("post", "/v1/invoices"): {"vendor": "openai", "source": "x", "digest": "a" * 64, "lines": []},
}
OPERATIONS = sorted(
    (method, path)
    for path, methods in create_app(Settings(database_url="postgresql://")).openapi()["paths"].items()
    for method in methods
    if path.startswith("/v1/")
)
TABLES = (
    "projects",
    "accounts",
    "sessions",
    "entries",
    "usage_events",
    "clips",
    "tickets",
    "provider_reports",
    "pools",
)


@pytest.fixture
async def still(database_url: str, issuer: Issuer) -> AsyncIterator[Stand]:
    """A ledger that writes nothing by itself: one that finds itself stalled gives the time to all open sessions."""
    async with standing(settings_for(database_url, issuer, sweep_every_sec=600.0), issuer) as made:
        yield made


async def test_an_agent_of_another_project_can_do_nothing_with_this_one(still: Stand) -> None:
    """Every operation there is, tried by a good token of another Project's agent; only its own list is answered."""
    await still.client(OPERATOR).put_project("study", "other", project_push())
    request = opening()
    await still.client(GATEWAY).open_session(request)
    await still.client(agent_of("limit")).attach(request.session_id, wire.Attach(epoch=1, worker="w"))
    names = {"namespace": "study", "name": "limit", "session_id": str(request.session_id), "key": "a" * 64, "host": "x"}
    before = await rows(still)
    headers = {"Authorization": f"Bearer {still.issuer.token(agent_of('other'))}"}
    async with httpx.AsyncClient(base_url=still.url, headers=headers) as http:
        for method, path in OPERATIONS:
            body = BODIES.get((method, path))
            content: dict[str, Any] = {"json": body} if body is not None else {}
            if path.endswith("/clips/{key}") and method == "put":
                content = {"content": b"\0\0"}
            answer = await http.request(method.upper(), path.format(**names), **content)
            if (method, path) == ("get", "/v1/sessions"):
                assert answer.json() == {"sessions": []}
            else:
                assert answer.status_code == 403, (method, path, answer.status_code, answer.text[:300])
    assert await rows(still) == before


async def rows(stand: Stand) -> dict[str, list[tuple[object, ...]]]:
    """Everything money or rights depend on."""
    return {name: [tuple(row) for row in await stand.sql(f"SELECT * FROM {name} ORDER BY 1")] for name in TABLES}


async def test_clients_that_stall_are_not_waited_for(
    database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the head: hung up on. In the body: told, and hung up on. The next one is served."""
    monkeypatch.setattr(PatientProtocol, "headers_sec", 0.3)
    settings = settings_for(database_url, issuer, request_timeout_sec=0.3)
    server = Server(settings)
    await server.start()
    token = issuer.token(agent_of("limit"))
    head = f"POST /v1/sessions/{uuid.uuid4()}/use HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    json = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    try:
        for sent, expected in (("", b""), (head, b""), (head + json + "{", b"HTTP/1.1 503")):
            reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
            writer.write(sent.encode())
            async with asyncio.timeout(60):
                got = await reader.read(12)
            assert got == expected, sent
            writer.close()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.port}") as http:
            assert (await http.get("/healthz")).status_code == 200
    finally:
        await server.stop()
