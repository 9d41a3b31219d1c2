"""A pool's plan: nodes, health in three values, and what Projects and the ledger are told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.names import Key
from talktime_operator.observed import Child, Pod, Resource
from talktime_operator.pools.plan import Images, NodeHealth, Seen, judge, plan, plan_wrong_namespace

GOOD = NodeHealth("good", "ND_1", 3)
BAD = NodeHealth("bad", "ND_2", None)
STALE = NodeHealth("bad", "ND_3", 1, stale=True)


@pytest.fixture
def seen(now: datetime, pool_key: Key, pool_spec: Callable[..., SFUPoolSpec]) -> Callable[..., Seen]:
    def make(pods: tuple[Pod, ...] = (), nodes: dict[str, NodeHealth] | None = None, **fields: Any) -> Seen:
        current = fields.pop("current", None)
        spec = pool_spec(**fields)
        statefulset = (
            Child("StatefulSet", Key("talktime", "sfu-eu"), "", "eu", "u", "", 1, current, 0, {}, False)
            if current is not None
            else None
        )
        resource = Resource(pool_key, "uid-2", 1, False, spec, "", {}, False)
        return Seen(resource, spec, now, statefulset, pods, nodes or {}, Images("lk", "redis", "IfNotPresent"))

    return make


@pytest.fixture
def node(pod: Callable[..., Pod]) -> Callable[..., Pod]:
    return lambda name, **changes: pod(name, project="", pool="eu", component="sfu", **changes)


def test_children_with_and_without_an_own_redis(seen: Callable[..., Seen]) -> None:
    embedded = [(c["kind"], c["metadata"]["name"]) for c in plan(seen()).children]
    assert ("Deployment", "sfu-eu-redis") in embedded
    own = [(c["kind"], c["metadata"]["name"]) for c in plan(seen(redis={"address": "redis:6379"})).children]
    assert own == [entry for entry in embedded if not entry[1].endswith("-redis")]


def test_a_good_node_makes_the_pool_good(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    made = plan(seen((node("sfu-eu-0"),), {"uid-sfu-eu-0": GOOD}, replicas=1))
    assert made.view.health == "good"
    assert made.push is not None
    assert made.push.health == "good"
    assert made.push.nodes[0].model_dump() == {
        "name": "sfu-eu-0",
        "nodeID": "ND_1",
        "address": "10.1.0.1",
        "rooms": 3,
        "state": "Ready",
    }
    assert made.status["nodesSummary"] == "1/1"
    assert made.status["sessions"] == 3
    assert made.status["replicas"] == 1
    assert made.findings[0].status == "True"


@pytest.mark.parametrize(
    ("healths", "expected"),
    [
        ([GOOD, BAD], "good"),
        ([BAD, BAD], "bad"),
        ([STALE, STALE], "unknown"),
        ([STALE, BAD], "bad"),
        ([BAD, None], "unknown"),
        ([], "unknown"),
    ],
)
def test_all_sick_together_by_redis_is_unknown_and_not_bad(
    node: Callable[..., Pod], healths: list[NodeHealth | None], expected: str
) -> None:
    pods = [node(f"n{i}") for i in range(len(healths))]
    known = {f"uid-n{i}": h for i, h in enumerate(healths) if h is not None}
    assert judge(2, pods, known).health == expected


def test_zero_nodes_is_said_with_the_fix() -> None:
    assert "spec.replicas" in judge(0, [], {}).message


def test_fixed_replicas_hold_autoscaling_and_say_so(seen: Callable[..., Seen]) -> None:
    made = plan(seen(replicas=3, current=1))
    (statefulset,) = [c for c in made.children if c["kind"] == "StatefulSet"]
    assert statefulset["spec"]["replicas"] == 3
    assert {f.type: f.reason for f in made.findings}["Autoscaling"] == "HeldByReplicas"


def test_unknown_sessions_keep_the_number_of_nodes(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    made = plan(seen((node("sfu-eu-0"), node("sfu-eu-1")), {"uid-sfu-eu-0": NodeHealth("good", "a", 0)}, current=2))
    (statefulset,) = [c for c in made.children if c["kind"] == "StatefulSet"]
    assert statefulset["spec"]["replicas"] == 2
    assert "sessions" not in made.status


def test_autoscaling_gives_up_the_last_node_only_when_it_is_empty(
    seen: Callable[..., Seen], node: Callable[..., Pod]
) -> None:
    pods = (node("sfu-eu-0"), node("sfu-eu-1"))

    def nodes(last: int) -> int:
        health = {"uid-sfu-eu-0": NodeHealth("good", "a", 0), "uid-sfu-eu-1": NodeHealth("good", "b", last)}
        made = plan(seen(pods, health, current=2))
        (statefulset,) = [c for c in made.children if c["kind"] == "StatefulSet"]
        return int(statefulset["spec"]["replicas"])

    assert nodes(last=1) == 2
    assert nodes(last=0) == 1


def test_a_draining_node_is_told_as_draining(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    made = plan(seen((node("sfu-eu-0", terminating=True),), {"uid-sfu-eu-0": GOOD}, replicas=0))
    assert made.push is not None
    assert made.push.nodes[0].state.value == "Draining"


def test_a_node_that_finds_no_machine_names_the_reason(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    pods = (node("sfu-eu-0"), node("sfu-eu-1", node="", phase="Pending", ready=False))
    made = plan(seen(pods, {"uid-sfu-eu-0": GOOD}, replicas=2))
    (finding,) = [f for f in made.findings if f.type == "NodesHealthy"]
    assert finding.reason == "SomeNodesMissing"
    assert "sfu-eu-1 cannot be scheduled" in finding.message


def test_a_fallback_that_this_version_does_not_open_is_said(seen: Callable[..., Seen]) -> None:
    made = plan(seen(fallback={"mode": "Auto", "url": "wss://x", "secretRef": {"name": "cloud"}}))
    assert {f.type: f.reason for f in made.findings}["FallbackReady"] == "FallbackNotSupported"


def test_a_pool_elsewhere_is_refused_with_the_right_place(pool_spec: Callable[..., SFUPoolSpec], now: datetime) -> None:
    resource = Resource(Key("team", "eu"), "u", 1, False, pool_spec(), "", {}, False)
    made = plan_wrong_namespace(resource, "talktime", now)
    assert made.children == ()
    assert "'talktime'" in made.findings[0].message
