"""What the ledger is told, when, and when it counts as reachable."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from talktime_ledger.client import LedgerClient
from talktime_ledger.wire import PoolPush
from talktime_operator.conditions import Silence
from talktime_operator.ledger_sync import LedgerSync
from talktime_operator.names import Key

POOL = Key("talktime", "eu")
PUSH = PoolPush(publicURL="ws://a", internalURL="ws://a")


class Server:
    def __init__(self) -> None:
        self.up = True
        self.status = 200
        self.calls: list[str] = []
        self.projects: list[dict[str, object]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if not self.up:
            raise httpx.ConnectError("down")
        if self.status != 200:
            return httpx.Response(self.status, json={})
        self.calls.append(f"{request.method} {request.url.path}")
        if request.url.path == "/v1/projects":
            return httpx.Response(200, content=json.dumps({"projects": self.projects}))
        return httpx.Response(404 if request.method == "DELETE" else 200, json={})


class Told:
    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.everyone = 0

    def all(self) -> None:
        self.everyone += 1


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def sync(server: Server, told: Told, clock: list[float]) -> LedgerSync:
    client = LedgerClient("http://ledger", token_path=None, patience_sec=0, transport=httpx.MockTransport(server))
    return LedgerSync(client, 20, told.keys.append, told.all, clock=lambda: clock[0])


async def test_the_same_push_is_sent_once(sync: LedgerSync, server: Server) -> None:
    await sync.push_pool(POOL, PUSH)
    await sync.push_pool(POOL, PUSH)
    await sync.push_pool(POOL, PUSH.model_copy(update={"health": "good"}))
    assert server.calls == ["PUT /v1/pools/talktime/eu"] * 2


async def test_a_failed_push_is_not_taken_for_sent(sync: LedgerSync, server: Server) -> None:
    server.up = False
    with pytest.raises(Exception, match="ConnectError"):
        await sync.push_pool(POOL, PUSH)
    server.up = True
    await sync.push_pool(POOL, PUSH)
    assert server.calls == ["PUT /v1/pools/talktime/eu"]


async def test_deleting_what_the_ledger_does_not_know_is_done(sync: LedgerSync) -> None:
    await sync.delete_pool(POOL)


async def test_reachability_is_three_valued_and_told_on_change(
    sync: LedgerSync, server: Server, told: Told, clock: list[float]
) -> None:
    assert sync.reachable is None
    await sync.refresh()
    assert (sync.reachable, told.everyone) == (True, 1)
    server.up = False
    clock[0] = 10
    await sync.refresh()
    assert (sync.reachable, told.everyone) == (True, 1)
    clock[0] = 21
    await sync.refresh()
    assert (sync.reachable, told.everyone) == (False, 2)
    assert sync.silence is not None
    assert "ConnectError" in sync.silence.detail


async def test_the_silence_says_since_when_and_of_what_kind_and_changes_with_the_kind_only(
    server: Server, told: Told, clock: list[float]
) -> None:
    began = datetime(2026, 11, 22, 15, tzinfo=UTC)
    client = LedgerClient("http://ledger", token_path=None, patience_sec=0, transport=httpx.MockTransport(server))
    sync = LedgerSync(
        client, 20, told.keys.append, told.all, lambda: clock[0], lambda: began + timedelta(seconds=clock[0])
    )
    clock[0] = 7
    await sync.refresh()
    assert (sync.reachable, sync.silence) == (True, None)
    kinds: list[Silence | None] = []
    for answer in (None, None, 503, 503, 401):
        server.up, server.status = answer is not None, answer or 200
        clock[0] += 10
        await sync.refresh()
        kinds.append(sync.silence)
    assert [kind.reason for kind in kinds if kind] == [
        "LedgerUnreachable", "LedgerUnreachable", "LedgerFailing", "LedgerFailing", "TokenRefused"
    ]  # fmt: skip
    assert {kind.since for kind in kinds if kind} == {began + timedelta(seconds=7)}
    assert kinds[0] is kinds[1]
    assert sync.reachable is False
    server.up, server.status = True, 200
    await sync.refresh()
    assert (sync.reachable, sync.silence) == (True, None)


async def test_a_ledger_that_never_answers_becomes_unreachable(sync: LedgerSync, clock: list[float]) -> None:
    clock[0] = 21
    assert sync.reachable is False


async def test_only_projects_whose_content_changed_are_looked_at(sync: LedgerSync, server: Server, told: Told) -> None:
    status: dict[str, object] = {
        "namespace": "team",
        "name": "study",
        "budget": {
            "amount": "5",
            "posted": "0",
            "reserved": "0",
            "available": "5",
            "state": "OK",
            "period": "Total",
            "forecast": "0",
        },
        "sessions": {},
        "feasible": {"ok": True},
        "ledgerTime": "2026-11-22T12:00:00Z",
    }
    server.projects = [status]
    await sync.refresh()
    server.projects = [{**status, "ledgerTime": "2026-11-22T12:00:10Z"}]
    await sync.refresh()
    assert told.keys == [Key("team", "study")]
