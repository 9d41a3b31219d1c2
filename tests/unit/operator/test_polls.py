"""Loads of agents and health of nodes: unknown is its own value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from talktime_operator.names import Key
from talktime_operator.observed import Pod
from talktime_operator.pools.health import Answer, Cause
from talktime_operator.redis_probe import RedisAt
from talktime_operator.sfu_health import SfuHealth
from talktime_operator.sfu_probe import LiveKitAt, Probe
from talktime_operator.sfu_reading import PoolTarget, parse_metrics
from talktime_operator.workers import WorkerLoads, active_jobs, worker_url

from tests.unit.operator.played_sfus import CUT, EU, HUNG, METRICS, NO, Clock, World, rounds


@pytest.mark.parametrize(
    ("answer", "jobs"),
    [
        ({"agent_name": "x"}, 0),
        ({"active_jobs": 3}, 3),
        ({"activeJobs": 2}, 2),
        ({"active_jobs": "3"}, None),
        ({"active_jobs": -1}, None),
        ([], None),
    ],
)
def test_absent_jobs_are_zero_and_odd_answers_unknown(answer: Any, jobs: int | None) -> None:
    assert active_jobs(answer) == jobs


def test_addresses(pod: Callable[..., Pod]) -> None:
    assert worker_url(pod("a", ip="10.0.0.9")) == "http://10.0.0.9:8081/worker"
    assert worker_url(pod("a", ip="fd00::1")) == "http://[fd00::1]:8081/worker"
    assert worker_url(pod("a", ip="")) is None


async def test_loads_age_into_unknown(pod: Callable[..., Pod]) -> None:
    clock, jobs = Clock(), {"n": 2}

    def answer(_: httpx.Request) -> httpx.Response:
        if jobs["n"] < 0:
            raise httpx.ConnectError("no")
        return httpx.Response(200, json={"active_jobs": jobs["n"]})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        loads = WorkerLoads(client, stale=10, clock=clock)
        one = pod("a")
        assert loads.jobs(one.uid) is None
        assert await loads.round([one, pod("b", phase="Pending")]) == {Key("team", "study")}
        assert loads.jobs(one.uid) == 2
        assert await loads.round([one]) == set()
        jobs["n"] = -1
        clock.now = 9
        assert await loads.round([one]) == set()
        assert loads.jobs(one.uid) == 2
        clock.now = 11
        assert loads.jobs(one.uid) is None
        assert await loads.round([one]) == {Key("team", "study")}
        assert await loads.round([one]) == set()


def test_metrics_name_the_node_its_rooms_and_the_signal_connections_that_came_to_it() -> None:
    assert parse_metrics(METRICS) == ("ND_x", 4, 5)
    assert parse_metrics("other 1\n") == ("", None, 0)


async def test_a_node_needs_several_failures_and_one_success(
    world: World, health: SfuHealth, pool: Callable[..., PoolTarget]
) -> None:
    target = pool("a")

    async def look() -> str:
        await rounds(world, health, target)
        return health.nodes(["uid-a"])["uid-a"].health

    assert health.nodes(["uid-a"]) == {}
    assert await look() == "good"
    assert health.nodes(["uid-a"])["uid-a"].node_id == "ND_a"
    world.root["a"] = NO
    assert [await look() for _ in range(3)] == ["good", "good", "bad"]
    world.root["a"] = 406
    assert await look() == "bad"
    assert health.nodes(["uid-a"])["uid-a"].stale
    world.root["a"] = 200
    assert await look() == "good"
    world.clock.now += 21
    assert health.nodes(["uid-a"])["uid-a"].health == "unknown"
    assert health.evidence(EU).streak.verdict == "unknown", "an old round is no evidence"
    await health.round([])
    assert health.nodes(["uid-a"]) == {}


async def test_a_node_that_never_answered_is_unknown_before_it_is_bad(
    world: World, health: SfuHealth, pool: Callable[..., PoolTarget]
) -> None:
    world.root["a"] = NO
    await rounds(world, health, pool("a", threshold=2))
    assert health.nodes(["uid-a"])["uid-a"].health == "unknown"
    await rounds(world, health, pool("a", threshold=2))
    assert health.nodes(["uid-a"])["uid-a"].health == "bad"


@pytest.mark.parametrize(
    ("said", "silent"), [(NO, True), (HUNG, True), (CUT, True), (406, False), (503, False), (200, False)]
)
async def test_a_bad_node_is_silent_or_answers_something(
    world: World, health: SfuHealth, pool: Callable[..., PoolTarget], said: Any, silent: bool
) -> None:
    world.root["a"], world.rooms["a"] = said, 503
    await rounds(world, health, pool("a"), 3)
    known = health.nodes(["uid-a"])["uid-a"]
    assert (known.health, known.silent) == ("bad", silent)


async def test_a_round_is_made_when_its_interval_has_passed(
    world: World, health: SfuHealth, pool: Callable[..., PoolTarget]
) -> None:
    target = replace(pool("a"), interval=5.0)
    await rounds(world, health, target)
    before = len(world.asked)
    world.clock.now += 4
    assert await health.round([target]) == set()
    assert len(world.asked) == before
    world.clock.now += 1
    await health.round([target])
    assert len(world.asked) > before


@pytest.mark.parametrize(
    ("root", "rooms", "network", "verdict", "cause"),
    [
        ({}, {}, True, "good", Cause.NONE),
        ({"a": NO}, {}, True, "good", Cause.ONE_NODE),
        ({"a": NO, "b": NO}, {}, True, "bad", Cause.ALL_NODES),
        ({"a": HUNG, "b": NO}, {}, True, "bad", Cause.ALL_NODES),
        ({"a": CUT, "b": CUT}, {}, True, "bad", Cause.ALL_NODES),
        ({"a": CUT, "b": CUT}, {}, False, "unknown", Cause.NETWORK),
        ({"a": 406, "b": 406}, {}, True, "unknown", Cause.REDIS),
        ({"a": 406, "b": NO}, {}, True, "unknown", Cause.REDIS),
        ({}, {"a": 500, "b": HUNG}, True, "unknown", Cause.REDIS),
        ({}, {"a": 500}, True, "good", Cause.ONE_NODE),
    ],
)
async def test_whose_fault_it_is(
    world: World,
    health: SfuHealth,
    pool: Callable[..., PoolTarget],
    root: dict[str, Any],
    rooms: dict[str, Any],
    network: bool,
    verdict: str,
    cause: Cause,
) -> None:
    """Nobody answers as the pools' Redis here: a room service that fails may be its fault."""
    world.root, world.rooms, world.network = root, rooms, network
    await rounds(world, health, pool("a", "b", proven=True), 3)
    seen = health.evidence(EU)
    assert (seen.streak.verdict, seen.cause) == (verdict, cause)
    assert seen.sick == (verdict == "bad")
    assert bool(seen.message) == (cause is not Cause.NONE)


async def test_nodes_that_drain_or_have_not_started_carry_no_new_rooms(
    world: World, health: SfuHealth, pool: Callable[..., PoolTarget]
) -> None:
    world.root["b"] = NO
    await rounds(world, health, pool("a", "b", takes=(False, True)), 3)
    assert health.evidence(EU).cause is Cause.ALL_NODES
    assert not health.evidence(EU).sick, "a pool that was never good is starting"
    await rounds(world, health, pool("a", takes=(False,), proven=True))
    assert health.evidence(EU).cause is Cause.NO_NODE


async def test_a_fallback_is_asked_with_its_own_keys_and_rarely(
    world: World, health: SfuHealth, pool: Callable[..., PoolTarget]
) -> None:
    second = LiveKitAt("wss://cloud", "key", "a-secret-of-at-least-thirty-two-bytes")
    target = pool("a", fallback=second)
    await rounds(world, health, target)
    assert await health.ask_fallbacks([target]) == {EU}
    assert health.evidence(EU).fallback == "good"
    assert "https://cloud/twirp/livekit.RoomService/ListRooms" in world.asked
    world.rooms["cloud"] = 401
    asked = len(world.asked)
    world.clock.now += 4
    assert await health.ask_fallbacks([target]) == set()
    assert len(world.asked) == asked
    for _ in range(2):
        world.clock.now += 5
        await health.round([target])
        await health.ask_fallbacks([target])
    assert health.evidence(EU).fallback == "bad"
    assert health.evidence(EU).streak.verdict == "good", "that of the pool is another matter"
    world.rooms["cloud"], world.network = CUT, False
    world.clock.now += 5
    await health.ask_fallbacks([target])
    assert health.evidence(EU).fallback == "unknown"


async def test_times_of_answers_are_metrics(world: World, health: SfuHealth, pool: Callable[..., PoolTarget]) -> None:
    await rounds(world, health, pool("a"))
    (family,) = health.collect()
    probes = {(s.labels["node"], s.labels["probe"]) for s in family.samples}
    assert probes == {("a", "http"), ("a", "room_service")}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [(b"+PONG\r\n", "good"), (b"-NOAUTH Authentication required.\r\n", "good"), (b"-LOADING\r\n", "bad"), (b"", "bad")],
)
async def test_a_redis_whose_password_is_not_known_is_asked_without(world: World, reply: bytes, expected: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"PING\r\n"
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, httpx.AsyncClient() as client:
        told = await Probe(client).ping(RedisAt(f"127.0.0.1:{port}"), 60)
        assert told.answer.verdict("unknown") == expected
    async with httpx.AsyncClient() as client:
        assert (await Probe(client).ping(RedisAt(f"127.0.0.1:{port}"), 5)).answer is Answer.REFUSED
