"""Directory, tickets, streams, reports, webhook, clips, transport, readiness, bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from talktime_ledger import wire
from talktime_ledger.client import Invalid, LedgerClient, NotFound, Unauthorized
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.schema import head
from talktime_ledger.store.database import connect
from talktime_ledger.store.rollups import roll_up

from .conftest import (
    CONSOLE,
    GATEWAY,
    MINI,
    OPERATOR,
    Server,
    Stand,
    agent_of,
    opening,
    project_push,
    rate_card,
    settings_for,
    until_ready,
    usage,
)


async def finished(stand: Stand, project: str = "limit", key: str = "r", more: tuple[wire.Usage, ...] = ()) -> str:
    request, agent = opening(project), stand.client(agent_of(project))
    await stand.client(GATEWAY).open_session(request)
    await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))
    close = wire.Close(epoch=1, n=1, usages=(usage(key), *more), reason="done", turns=1, duration_sec=30)
    await agent.close(request.session_id, close)
    return str(request.session_id)


async def test_the_directory_is_cached_by_its_etag(stand: Stand) -> None:
    operator, gateway = stand.client(OPERATOR), stand.client(GATEWAY)
    pool = wire.PoolPush(publicURL="ws://p", internalURL="ws://i", health="good", nodes=(wire.PoolNode(name="n1"),))
    await operator.put_pool("talktime", "eu", pool)
    found = await gateway.directory()
    assert found is not None
    etag, directory = found
    assert [one.name for one in directory.projects] == ["limit"]
    assert directory.projects[0].pool == wire.PoolRef(namespace="talktime", name="eu")
    assert directory.projects[0].accessKeys[0].sha256 == "a" * 64
    assert directory.pools[0].nodes[0].name == "n1"
    await operator.put_pool("talktime", "eu", pool)
    assert await gateway.directory(etag) is None, "the same push changes nothing"
    assert await operator.pool("talktime", "eu") == pool, "a new operator begins where gateways are"
    with pytest.raises(Unauthorized):
        await gateway.pool("talktime", "eu")
    await operator.delete_pool("talktime", "eu")
    assert await gateway.directory(etag) is not None
    with pytest.raises(NotFound):
        await operator.pool("talktime", "eu")


async def test_streams_reach_readers_of_another_replica(stand: Stand) -> None:
    settings = settings_for(stand.database_url, stand.issuer)
    second = Server(settings)
    await second.start()
    await until_ready(f"http://127.0.0.1:{settings.port}")
    token = stand.issuer.token
    try:
        async with (
            LedgerClient(f"http://127.0.0.1:{settings.port}", token=token(OPERATOR), token_path=None) as operator,
            LedgerClient(f"http://127.0.0.1:{settings.port}", token=token(agent_of("limit")), token_path=None) as agent,
        ):
            changes, pushes = aiter(operator.changes()), aiter(agent.push("study", "limit"))
            assert (await anext(changes)).event == (await anext(pushes)).event == "resync"
            request = opening()
            await stand.client(GATEWAY).open_session(request)
            async with asyncio.timeout(60):
                assert (await anext(changes)).data == {"namespace": "study", "name": "limit"}
            await stand.client(OPERATOR).put_project("study", "limit", project_push("9"))
            async with asyncio.timeout(60):
                assert (await anext(pushes)).event == "limits"
            await stand.client(OPERATOR).put_project("study", "limit", project_push("9", paused=True))
            async with asyncio.timeout(60):
                assert (await anext(pushes)).event == "paused"
            await stand.client(GATEWAY).claim(request.session_id, wire.Claim(epoch=2, reason="gone"))
            async with asyncio.timeout(60):
                event = await anext(pushes)
            assert (event.event, event.data) == ("fence", {"session_id": str(request.session_id), "epoch": 2})
    finally:
        await second.stop()


@asynccontextmanager
async def receiver(answers: list[int]) -> AsyncIterator[tuple[str, list[dict[str, object]]]]:
    """A webhook that answers with these statuses, then 200."""
    got: list[dict[str, object]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in headers.split("\r\n") if line.lower().startswith("content-length")
        )
        got.append(json.loads(await reader.readexactly(length)))
        assert "application/cloudevents+json" in headers
        status = answers.pop(0) if answers else 200
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", got


async def test_session_ended_is_delivered_again_until_taken(stand: Stand) -> None:
    async with receiver([500]) as (url, got):
        await stand.client(OPERATOR).put_project("study", "hook", project_push(webhook=url))
        session_id = await finished(stand, "hook")
        for _ in range(600):
            if len(got) == 2:
                break
            await asyncio.sleep(0.1)
        first, second = got
        assert first["id"] == second["id"]
        assert (first["type"], first["subject"]) == ("dev.talktime.session.ended", session_id)
        data = first["data"]
        assert isinstance(data, dict)
        assert (data["total_usd"], data["close_reason"], data["turns"]) == ("0.004", "done", 1)


async def test_reports_add_up(stand: Stand) -> None:
    console = stand.client(CONSOLE)
    ids = {await finished(stand, key=f"r{index}") for index in range(3)}
    [row] = await console.spend(namespace="study", project="limit", by="day,provider,model")
    assert (row.sessions, row.ai_cost_usd, row.provider, row.model) == (
        3,
        Decimal("0.012"),
        "openai_realtime",
        "gpt-realtime-mini",
    )
    assert row.day == datetime.now(UTC).strftime("%Y-%m-%d")
    rows = await console.session_report(project="limit")
    assert {one.session.session_id for one in rows} == ids
    assert sum(cost.total_cost_usd for one in rows for cost in one.costs) == row.total_cost_usd
    assert not await console.spend(since="2030-01-01")
    with pytest.raises(Invalid):
        await console.spend(by="day,sex")


async def test_clips_and_provider_reports(stand: Stand) -> None:
    agent, key = stand.client(agent_of("limit")), "d" * 64
    assert await agent.clip("study", "limit", key) is None
    await agent.put_clip("study", "limit", key, b"\x01\x02" * 1000)
    assert await agent.clip("study", "limit", key) == b"\x01\x02" * 1000
    bad = wire.ProviderReport(provider="main", ok=False, code="invalid_api_key", message="no")
    await agent.report_provider("study", "limit", bad)
    operator = stand.client(OPERATOR)
    [first] = (await operator.project("study", "limit")).providers
    await agent.report_provider("study", "limit", bad)
    [second] = (await operator.project("study", "limit")).providers
    assert first.code == "invalid_api_key" and first.since and second.since
    assert second.since > first.since, "refused again: the old refusal's time would look as if the key was fixed since"
    good = wire.ProviderReport(provider="main", ok=True)
    await agent.report_provider("study", "limit", good)
    [third] = (await operator.project("study", "limit")).providers
    await agent.report_provider("study", "limit", good)
    assert (await operator.project("study", "limit")).providers == (third,) and third.ok


def minutes_card(vendor: str, per_hour: str) -> RateCardSpec:
    return RateCardSpec.model_validate(
        {
            "provider": vendor,
            "model": "participant",
            "entries": [
                {
                    "effectiveFrom": "2025-01-01T00:00:00Z",
                    "meters": {"participant_seconds": {"usdPerHour": per_hour}, "egress_bytes": {"free": True}},
                    "source": "test",
                    "checkedAt": "2026-11-01",
                }
            ],
        }
    )


@pytest.mark.parametrize("included", [False, True])
async def test_transport_is_its_own_leg(stand: Stand, included: bool) -> None:
    operator, gateway = stand.client(OPERATOR), stand.client(GATEWAY)
    await operator.put_rate_card("sh", minutes_card("selfhosted", "0.36"))
    await operator.put_project("study", "media", project_push(budget={"includeTransport": included}))
    request, agent = opening("media"), stand.client(agent_of("media"))
    await gateway.open_session(request)
    await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))
    for seconds in (30, 60, 60, 50):
        await gateway.post_transport(request.session_id, wire.Transport(participant_seconds={"participant-1": seconds}))
    await agent.use(request.session_id, wire.Use(epoch=1, n=1, usages=(usage("a"),)))
    closed = await agent.close(request.session_id, wire.Close(epoch=1, n=2, reason="done"))
    [row] = closed.costs
    assert (row.ai_cost_usd, row.transport_cost, row.total_cost_usd) == (
        Decimal("0.004"),
        Decimal("0.006"),
        Decimal("0.01"),
    )
    assert closed.posted == (Decimal("0.01") if included else Decimal("0.004"))
    await stand.assert_laws()


async def test_a_rate_change_prices_sessions_before_across_and_after_it_and_old_rows_stay(stand: Stand) -> None:
    """audio_out doubles at noon; 200 tokens are 0.004 USD before it and 0.008 after."""
    gateway, agent = stand.client(GATEWAY), stand.client(agent_of("limit"))
    before, across, after = opening(), opening(), opening()

    async def begin(request: wire.SessionOpen) -> None:
        await gateway.open_session(request)
        await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))

    async def end(request: wire.SessionOpen, *usages: wire.Usage) -> wire.CostList:
        return await agent.close(request.session_id, wire.Close(epoch=1, n=1, usages=usages, reason="done"))

    async def rows() -> list[list[Any]]:
        return [
            [dict(row) for row in await stand.sql(f"SELECT * FROM {table} WHERE session_id = $1", before.session_id)]
            for table in ("session_costs", "entries", "usage_events")
        ]

    noon = datetime.now(UTC)
    await begin(before)
    assert (await end(before, usage("r", occurred_at=noon - timedelta(seconds=1)))).posted == Decimal("0.004")
    old = await rows()
    assert all(old)
    await begin(across)
    card = rate_card()
    dearer = rate_card(prices={**MINI, "audio_out": "40"}).entries[0].model_copy(update={"effective_from": noon})
    await stand.client(OPERATOR).put_rate_card("mini", card.model_copy(update={"entries": (*card.entries, dearer)}))
    ends = await end(
        across,
        usage("a", occurred_at=noon - timedelta(seconds=5)),
        usage("b", occurred_at=noon + timedelta(seconds=5)),
    )
    assert ends.posted == Decimal("0.004") + Decimal("0.008")
    assert len(ends.costs[0].rate_snapshot) == 2
    await begin(after)
    ends = await end(after, usage("c", occurred_at=noon + timedelta(seconds=5)))
    assert (ends.posted, len(ends.costs[0].rate_snapshot)) == (Decimal("0.008"), 1)
    assert await rows() == old
    await stand.assert_laws()


async def test_a_card_that_vanishes_in_mid_session_does_not_lose_usage(stand: Stand) -> None:
    request, agent = opening(), stand.client(agent_of("limit"))
    await stand.client(GATEWAY).open_session(request)
    await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))
    await stand.client(OPERATOR).delete_rate_card("mini")
    closed = await agent.close(request.session_id, wire.Close(epoch=1, n=1, usages=(usage("a"),), reason="done"))
    assert closed.posted == Decimal("0.004")
    assert not (await stand.client(OPERATOR).project("study", "limit")).prices[0].known


async def test_readiness_names_what_is_missing(stand: Stand, own_postgres: str) -> None:
    async with httpx.AsyncClient(base_url=stand.url) as http:
        assert (await http.get("/readyz")).status_code == 200
        assert "talktime_ledger_request_seconds_bucket" in (await http.get("/metrics")).text
        await stand.sql("UPDATE alembic_version SET version_num = '0000'")
        answer = await http.get("/readyz")
        assert answer.status_code == 503 and "run migrate" in answer.json()["status"]
        await stand.sql("UPDATE alembic_version SET version_num = '9999'")
        assert (await http.get("/readyz")).status_code == 200, "an upgrade has migrated; this replica goes on"
    keyless = settings_for(stand.database_url, stand.issuer, jwks_file=stand.issuer.jwks_file.with_name("none"))
    await stand.sql("UPDATE alembic_version SET version_num = $1", head())
    await stand.sql("DELETE FROM jwks_cache")
    server = Server(keyless)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{keyless.port}") as http:
            answer = await http.get("/readyz")
            assert answer.status_code == 503 and "JWKS" in answer.json()["status"]
    finally:
        await server.stop()


async def test_the_last_good_jwks_survives_the_api_server(stand: Stand) -> None:
    settings = settings_for(stand.database_url, stand.issuer, jwks_file=stand.issuer.jwks_file.with_name("none"))
    server = Server(settings)
    await server.start()
    try:
        url = f"http://127.0.0.1:{settings.port}"
        async with LedgerClient(url, token=stand.issuer.token(CONSOLE), token_path=None) as client:
            assert await client.sessions() == ()
    finally:
        await server.stop()


async def test_bodies_are_bounded_and_errors_are_problems(stand: Stand) -> None:
    headers = {"Authorization": f"Bearer {stand.issuer.token(GATEWAY)}"}

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100_000

    async with httpx.AsyncClient(base_url=stand.url, headers=headers) as http:
        big = await http.post("/v1/sessions", content=b"x" * 2_000_000)
        chunked = await http.post("/v1/sessions", content=chunks())
        wrong = await http.post("/v1/sessions", json={"namespace": "study"})
        nothing = await http.get("/v1/nothing")
    for answer, status in ((big, 413), (chunked, 413), (wrong, 422), (nothing, 404)):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert wire.Problem.model_validate(answer.json()).status == status


async def test_it_recovers_when_the_database_drops_every_connection(stand: Stand) -> None:
    request, agent = opening(), stand.client(agent_of("limit"))
    await stand.client(GATEWAY).open_session(request)
    await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))
    pushes = aiter(agent.push("study", "limit"))
    assert (await anext(pushes)).event == "resync"
    await stand.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'talktime-ledger'"
        " OR query LIKE 'LISTEN%'"
    )
    grant = await agent.use(request.session_id, wire.Use(epoch=1, n=1, usages=(usage("a"),)))
    assert grant.posted == Decimal("0.004")
    async with asyncio.timeout(60):
        assert (await anext(pushes)).event == "resync", "a reader learns that it may have missed something"
    await stand.assert_laws()


async def test_a_session_with_two_models_counts_once_in_every_group(stand: Stand) -> None:
    heard = usage("t/0", meters={"audio_in": 50, "text_out": 12}, model="gpt-4o-mini-transcribe", kind="transcription")
    await finished(stand, key="s/r1", more=(heard,))
    console = stand.client(CONSOLE)
    for by in ("provider", "day", "day,provider", "model", ""):
        (row,) = await console.spend(project="limit", by=by)
        assert (row.sessions, row.duration_sec) == (1, 30), by
        assert row.total_cost_usd == Decimal("0.004") + Decimal("0.00021")


async def test_the_daily_sums_and_what_came_since_are_the_same_report(stand: Stand) -> None:
    console = stand.client(CONSOLE)
    await finished(stand, key="r1")
    before = await console.spend(by="day,provider,model")
    connection = await connect(stand.database_url)
    try:
        for _ in range(2):
            async with connection.transaction():
                await roll_up(connection)
            assert await console.spend(by="day,provider,model") == before
        await finished(stand, key="r2")
        (row,) = await console.spend(by="day,provider,model")
        assert (row.sessions, row.total_cost_usd) == (2, 2 * before[0].total_cost_usd)
        # Money of a transaction that is still open when others are summed up is not lost.
        late = await connect(stand.database_url)
        async with late.transaction():
            await late.execute(
                """INSERT INTO entries (project_id, session_id, kind, usage_kind, leg, model, amount_usd, occurred_at)
                   SELECT project_id, id, 'transport', 'transport', 'transport', 'participant', 0.5, NOW()
                   FROM sessions LIMIT 1"""
            )
            async with connection.transaction():
                await roll_up(connection)
        async with connection.transaction():
            await roll_up(connection)
        await late.close()
    finally:
        await connection.close()
    (after,) = await console.spend(by="day,provider,model")
    assert (after.sessions, after.total_cost_usd) == (2, row.total_cost_usd + Decimal("0.5"))
    with pytest.raises(Invalid, match="midnight"):
        await console.spend(since="2026-01-01T12:00:00")
