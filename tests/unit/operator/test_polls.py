"""Loads of agents and health of nodes: unknown is its own value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from talktime_ledger.resources.pool import Ports
from talktime_operator.media_probe import MediaProbe
from talktime_operator.media_watch import WITHIN, MediaWatch
from talktime_operator.names import Key
from talktime_operator.observed import Pod
from talktime_operator.pools.health import Answer, Cause
from talktime_operator.redis_probe import RedisAt
from talktime_operator.sfu_health import PoolTarget, SfuHealth, Target, parse_metrics
from talktime_operator.sfu_probe import LiveKitAt, Probe, Reply
from talktime_operator.workers import WorkerLoads, active_jobs, worker_url


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.now += seconds


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


METRICS = """# TYPE livekit_room_total gauge
livekit_room_total{node_id="ND_x",node_type="SERVER"} 4
livekit_participant_total{node_id="ND_x",node_type="SERVER"} 9
# TYPE livekit_psrpc_stream_count gauge
livekit_psrpc_stream_count{method="RelaySignal",node_id="ND_x",node_type="SERVER",role="client",service="Signal"} 5
livekit_psrpc_stream_count{method="RelaySignal",node_id="ND_x",node_type="SERVER",role="server",service="Signal"} 7
livekit_psrpc_stream_count{method="Other",node_id="ND_x",node_type="SERVER",role="client",service="Else"} 11
"""


def test_metrics_name_the_node_its_rooms_and_the_signal_connections_that_came_to_it() -> None:
    assert parse_metrics(METRICS) == ("ND_x", 4, 5)
    assert parse_metrics("other 1\n") == ("", None, 0)


class World:
    """livekit-servers, a Redis port nobody listens on, and a fallback, as one transport."""

    def __init__(self) -> None:
        self.root: dict[str, int | Exception] = {}
        self.rooms: dict[str, int | Exception] = {}
        self.asked: list[str] = []
        self.network = True
        self.clock = Clock()
        self.takes = 0.0
        """Seconds until an answer."""

    def answer(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        self.asked.append(str(request.url))
        self.clock.now += self.takes
        if request.url.port == 6789:
            return httpx.Response(200, text=METRICS.replace("ND_x", f"ND_{host}"))
        given = (self.rooms if "RoomService" in request.url.path else self.root).get(host, 200)
        if isinstance(given, Exception):
            raise given
        return httpx.Response(given)

    async def reachable(self) -> bool:
        return self.network

    def health(self, client: httpx.AsyncClient) -> SfuHealth:
        return SfuHealth(Probe(client, self.clock), 20, self.reachable, clock=self.clock)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def health(world: World) -> AsyncIterator[SfuHealth]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(world.answer)) as client:
        yield world.health(client)


@pytest.fixture
def pool(pod: Callable[..., Pod]) -> Callable[..., PoolTarget]:
    def make(*names: str, takes: tuple[bool, ...] = (), threshold: int = 3, **changes: Any) -> PoolTarget:
        pods = [pod(n, pool="eu", component="sfu", host_ip=n) for n in names]
        draining = dict(zip(names, takes, strict=False))
        nodes = tuple(Target(p, EU, Ports(), threshold, draining.get(p.key.name, True)) for p in pods)
        return PoolTarget(EU, nodes, 1.0, threshold, ("key", "a-secret-of-at-least-thirty-two-bytes"), **changes)

    return make


EU = Key("talktime", "eu")
NO = httpx.ConnectError("no")
NO.__cause__ = ConnectionRefusedError()
HUNG = httpx.ReadTimeout("slow")
CUT = httpx.ConnectTimeout("no way")


async def rounds(world: World, health: SfuHealth, target: PoolTarget, count: int = 1) -> None:
    for _ in range(count):
        world.clock.now += target.interval
        await health.round([target])


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


class Paths(MediaProbe):
    """UDP as it is told; a look at one that is lost takes its time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lost = False
        self.joins = True
        self.joins_left: int | None = None
        """After so many nobody can join; None: that does not happen."""
        self.looks = 0

    async def look(
        self, at: LiveKitAt, node_id: str, media: tuple[str, int], within: float, hold: float = 0.0
    ) -> Reply:
        self.looks += 1
        if not self.joins or self.joins_left == 0:
            return Reply(Answer.SILENT)
        self.joins_left = None if self.joins_left is None else self.joins_left - 1
        self._world.clock.now += within if self.lost else 0.0
        return Reply(Answer.NO_MEDIA) if self.lost else Reply(Answer.GOOD, 0.001)


@pytest.fixture
async def watched(world: World) -> AsyncIterator[tuple[Paths, SfuHealth]]:
    """Nodes whose media path is looked at."""
    paths = Paths(world)
    async with httpx.AsyncClient(transport=httpx.MockTransport(world.answer)) as client:
        probe = Probe(client, world.clock)
        media = MediaWatch(paths, world.clock.pause)
        yield paths, SfuHealth(probe, 20, world.reachable, clock=world.clock, media=media)


async def test_lost_udp_is_known_within_three_seconds_by_three_looks_that_do_not_wait_for_the_next_round(
    world: World, watched: tuple[Paths, SfuHealth], pool: Callable[..., PoolTarget]
) -> None:
    (paths, health), target = watched, pool("a", proven=True, media=True, media_interval=1.0)
    await rounds(world, health, target, 2)
    paths.lost, lost_at, seen = True, world.clock.now, []
    for _ in range(60):
        world.clock.now += 0.1
        await health.round([target])
        seen.append((health.evidence(EU).sick, world.clock.now - lost_at))
    assert health.evidence(EU).cause is Cause.MEDIA
    known = next(after for sick, after in seen if sick)
    assert 3 * WITHIN < known <= 1.0 + 3 * (WITHIN + 0.1) + 0.1
    started = len(world.asked)
    world.clock.now += 0.5
    await health.round([target])
    world.clock.now += 0.2
    await health.round([target])
    # Once it counts as sick there is no hurry any more.
    assert len([url for url in world.asked[started:] if url.endswith("/metrics")]) <= 1


async def test_a_round_whose_answers_come_sooner_than_those_before_looks_at_media_all_the_same(
    world: World, watched: tuple[Paths, SfuHealth], pool: Callable[..., PoolTarget]
) -> None:
    (paths, health), target = watched, pool("a", proven=True, media=True, media_interval=1.0)
    for number, takes in enumerate((0.05, 0.01, 0.03, 0.0)):
        world.takes, world.clock.now = takes, float(number)
        await health.round([target])
    assert paths.looks == 4


async def test_joins_that_do_not_come_about_add_nothing_to_a_loss_that_is_not_certain(
    world: World, watched: tuple[Paths, SfuHealth], pool: Callable[..., PoolTarget]
) -> None:
    """A starved machine answers late, over UDP too, and then cannot be joined at all."""
    (paths, health), target = watched, pool("a", proven=True, media=True, media_interval=1.0)
    await rounds(world, health, target, 2)
    paths.lost, paths.joins_left = True, 1
    await rounds(world, health, target, 10)
    assert (health.evidence(EU).sick, health.nodes(["uid-a"])["uid-a"].health) == (False, "good")
    paths.joins_left = None
    await rounds(world, health, target, 2)
    assert health.evidence(EU).sick
    paths.joins = False
    await rounds(world, health, target, 10)
    assert health.evidence(EU).sick, "what is certain stays so while it cannot be looked at"


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
