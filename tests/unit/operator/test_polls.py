"""Loads of agents and health of nodes: unknown is its own value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from talktime_ledger.resources.pool import Ports
from talktime_operator.names import Key
from talktime_operator.observed import Pod
from talktime_operator.sfu_health import SfuHealth, Target, parse_metrics
from talktime_operator.workers import WorkerLoads, active_jobs, worker_url


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


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
"""


def test_metrics_name_the_node_and_its_rooms() -> None:
    assert parse_metrics(METRICS) == ("ND_x", 4)
    assert parse_metrics("other 1\n") == ("", None)


async def test_health_needs_several_failures_and_one_success(pod: Callable[..., Pod]) -> None:
    clock, root = Clock(), {"code": 200}

    def answer(request: httpx.Request) -> httpx.Response:
        if root["code"] == 0:
            raise httpx.ConnectError("no")
        return httpx.Response(200, text=METRICS) if request.url.port == 6789 else httpx.Response(root["code"])

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        health = SfuHealth(client, stale=20, clock=clock)
        target = Target(pod("sfu-eu-0", pool="eu", component="sfu"), Key("talktime", "eu"), Ports(), 3)
        uid = target.pod.uid

        async def look() -> str:
            await health.round([target])
            return health.nodes([uid])[uid].health

        assert health.nodes([uid]) == {}
        assert await look() == "good"
        root["code"] = 0
        assert [await look() for _ in range(3)] == ["good", "good", "bad"]
        root["code"] = 406
        assert await look() == "bad"
        assert health.nodes([uid])[uid].stale
        root["code"] = 200
        assert await look() == "good"
        clock.now = 21
        assert health.nodes([uid])[uid].health == "unknown"
        await health.round([])
        assert health.nodes([uid]) == {}


async def test_a_node_that_never_answered_is_unknown_before_it_is_bad(pod: Callable[..., Pod]) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        health = SfuHealth(client, stale=20)
        target = Target(pod("sfu-eu-0"), Key("talktime", "eu"), Ports(), 2)
        await health.round([target])
        assert health.nodes([target.pod.uid])[target.pod.uid].health == "unknown"
        await health.round([target])
        assert health.nodes([target.pod.uid])[target.pod.uid].health == "bad"
