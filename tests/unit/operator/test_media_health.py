"""UDP that is lost while HTTP answers, and servers that are started again: what makes a node or its pool sick."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import httpx
import pytest
from talktime_operator.media_watch import WITHIN, MediaWatch
from talktime_operator.pools.health import Answer, Cause, judge_round
from talktime_operator.restarts import RECENT_SECONDS
from talktime_operator.sfu_health import SfuHealth
from talktime_operator.sfu_probe import Probe
from talktime_operator.sfu_reading import PoolTarget

from tests.unit.operator.played_sfus import EU, METRICS, NO, Paths, World, rounds


@pytest.fixture
async def watched(world: World) -> AsyncIterator[tuple[Paths, SfuHealth]]:
    """Nodes whose media path is looked at."""
    paths = Paths(world)
    async with httpx.AsyncClient(transport=httpx.MockTransport(world.answer)) as client:
        probe = Probe(client, world.clock)
        media = MediaWatch(paths, world.clock.pause)
        yield paths, SfuHealth(probe, 20, world.reachable, clock=world.clock, media=media)


def begun(target: PoolTarget, at: str) -> PoolTarget:
    """With a server that began at that time; "": it does not run."""
    nodes = tuple(replace(n, pod=replace(n.pod, sfu=replace(n.pod.sfu, began=at))) for n in target.nodes)
    return replace(target, nodes=nodes)


async def test_lost_udp_is_known_within_three_seconds_by_three_looks_that_do_not_wait_for_the_next_round(
    world: World, watched: tuple[Paths, SfuHealth], pool: Callable[..., PoolTarget]
) -> None:
    (paths, health), target = watched, pool("a", proven=True, media=True, media_interval=1.0)
    await rounds(world, health, target, 2)
    paths.answers["a"], lost_at, seen = Answer.NO_MEDIA, world.clock.now, []
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
    paths.soon["a"], paths.answers["a"] = [Answer.NO_MEDIA], Answer.SILENT
    await rounds(world, health, target, 10)
    assert (health.evidence(EU).sick, health.nodes(["uid-a"])["uid-a"].health) == (False, "good")
    paths.answers["a"] = Answer.NO_MEDIA
    await rounds(world, health, target, 2)
    assert health.evidence(EU).sick
    paths.answers["a"] = Answer.SILENT
    await rounds(world, health, target, 10)
    assert health.evidence(EU).sick, "what is certain stays so while it cannot be looked at"


async def test_of_two_nodes_one_is_lost_and_one_was_seen_without_udp_once(
    world: World, watched: tuple[Paths, SfuHealth], pool: Callable[..., PoolTarget]
) -> None:
    """The second one carries the pool: one look and joins that do not come about are not enough to leave it."""
    (paths, health), target = watched, pool("a", "b", proven=True, media=True, media_interval=1.0)
    await rounds(world, health, target, 2)
    paths.answers["a"] = Answer.NO_MEDIA
    await rounds(world, health, target, 3)
    assert (health.nodes(["uid-a"])["uid-a"].health, health.evidence(EU).cause) == ("bad", Cause.ONE_NODE)
    paths.soon["b"], paths.answers["b"] = [Answer.NO_MEDIA], Answer.SILENT
    await rounds(world, health, target, 10)
    assert (health.evidence(EU).sick, health.nodes(["uid-b"])["uid-b"].health) == (False, "good")
    paths.answers["a"], paths.answers["b"] = Answer.SILENT, Answer.NO_MEDIA
    await rounds(world, health, target, 3)
    assert health.evidence(EU).sick, "the first one is known to be lost, joined or not"


async def test_a_node_that_drains_is_not_looked_at_and_holds_nobody_up(
    world: World, watched: tuple[Paths, SfuHealth], pool: Callable[..., PoolTarget]
) -> None:
    (paths, health), target = watched, pool("a", "b", proven=True, media=True, media_interval=1.0)
    await rounds(world, health, target, 2)
    paths.soon["a"], paths.answers["a"] = [Answer.NO_MEDIA], Answer.SILENT
    await rounds(world, health, target)
    draining = pool("a", "b", takes=(False, True), proven=True, media=True, media_interval=1.0)
    await rounds(world, health, draining)
    paths.answers["b"] = Answer.NO_MEDIA
    world.metrics = METRICS.replace('"SERVER"} 4', '"SERVER"} 0')
    await rounds(world, health, draining, 2)
    assert health.evidence(EU).sick
    drains = health.nodes(["uid-a"])["uid-a"]
    assert (drains.health, drains.counted, drains.rooms) == ("good", True, 0), "its drain can end"


async def test_refused_connections_after_a_look_without_udp_are_rounds_of_their_own(
    world: World, watched: tuple[Paths, SfuHealth], pool: Callable[..., PoolTarget]
) -> None:
    (paths, health), target = watched, pool("a", proven=True, media=True, media_interval=1.0)
    await rounds(world, health, target, 2)
    paths.soon["a"], world.root["a"] = [Answer.NO_MEDIA, Answer.SILENT, Answer.SILENT], 200
    await rounds(world, health, target)
    world.root["a"] = NO
    for _ in range(9):
        world.clock.now += 0.1
        await health.round([target])
    assert not health.evidence(EU).sick, "a server that is restarted is back within a second or two"


async def test_a_server_that_was_started_again_is_given_its_time_and_no_more(
    world: World, health: SfuHealth, pool: Callable[..., PoolTarget]
) -> None:
    target = pool("a", proven=True)
    await rounds(world, health, begun(target, "12:00:00"), 2)
    world.root["a"] = NO
    await rounds(world, health, begun(target, ""), 2)
    await rounds(world, health, begun(target, "12:05:00"), int(RECENT_SECONDS))
    seen = health.evidence(EU)
    assert (seen.streak.verdict, seen.cause, seen.sick) == ("unknown", Cause.RESTARTING, False)
    await rounds(world, health, begun(target, "12:05:00"), 4)
    assert health.evidence(EU).sick


async def test_a_server_that_is_started_again_and_again_is_sick(
    world: World, health: SfuHealth, pool: Callable[..., PoolTarget]
) -> None:
    """However short the waits of its kubelet are."""
    for number in range(20):
        await rounds(world, health, begun(pool("a", proven=True), f"12:{number // 4:02}:00"))
        world.root["a"] = NO
    assert health.evidence(EU).sick
    assert health.nodes(["uid-a"])["uid-a"].health == "bad"


async def test_what_was_seen_of_a_process_is_not_known_of_the_next_one(
    world: World, watched: tuple[Paths, SfuHealth], pool: Callable[..., PoolTarget]
) -> None:
    (paths, health), target = watched, pool("a", proven=True, media=True, media_interval=1.0)
    await rounds(world, health, begun(target, "12:00:00"), 2)
    paths.answers["a"] = Answer.NO_MEDIA
    await rounds(world, health, begun(target, "12:00:00"), 2)
    assert health.evidence(EU).sick
    paths.answers["a"] = Answer.SILENT
    await rounds(world, health, begun(target, "12:05:00"))
    assert (health.evidence(EU).streak.verdict, health.evidence(EU).media.verdict) == ("good", "unknown")


async def test_a_server_that_was_not_seen_before_was_not_started_again(
    world: World, health: SfuHealth, pool: Callable[..., PoolTarget]
) -> None:
    world.root["a"] = NO
    await rounds(world, health, begun(pool("a", proven=True), "12:00:00"), 3)
    assert health.evidence(EU).sick


@pytest.mark.parametrize(
    ("nodes", "redis", "cause"),
    [
        ((Answer.REFUSED, Answer.RESTARTING), None, Cause.RESTARTING),
        ((Answer.NO_ROOMS, Answer.RESTARTING), Answer.GOOD, Cause.RESTARTING),
        ((Answer.STALE, Answer.RESTARTING), None, Cause.REDIS),
        ((Answer.GOOD, Answer.RESTARTING), None, Cause.ONE_NODE),
    ],
)
def test_a_restart_hides_no_other_cause(nodes: tuple[Answer, ...], redis: Answer | None, cause: Cause) -> None:
    assert judge_round(dict(zip("ab", nodes, strict=True)), redis, "good").cause is cause
