"""What should be for one SFUPool, from what was seen. Pure: no client, no clock, no logging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from talktime_ledger.resources.kinds import GROUP, VERSION
from talktime_ledger.resources.pool import FallbackMode, SFUPoolSpec
from talktime_ledger.wire import NodeState, PoolNode, PoolPush

from talktime_operator import conditions, names
from talktime_operator.children.disruption_budget import build_disruption_budget
from talktime_operator.children.redis import build_redis_deployment, build_redis_service
from talktime_operator.children.sfu_config import build_sfu_config
from talktime_operator.children.sfu_services import (
    build_headless_service,
    build_signal_service,
    in_cluster_url,
    public_url,
)
from talktime_operator.children.sfu_statefulset import build_sfu_statefulset
from talktime_operator.conditions import Finding, PoolView
from talktime_operator.names import Key, Manifest, Owner
from talktime_operator.observed import Child, Pod, Resource
from talktime_operator.scaling import decide_nodes

Health = Literal["good", "bad", "unknown"]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]


@dataclass(frozen=True)
class NodeHealth:
    """Last word about one SFU pod. `rooms` None = unknown; `stale` = it answers 406, its statistics do not advance."""

    health: Health
    node_id: str = ""
    rooms: int | None = None
    stale: bool = False


@dataclass(frozen=True)
class Images:
    """What the operator's settings say about the pool's containers."""

    sfu: str
    redis: str
    pull_policy: PullPolicy


@dataclass(frozen=True)
class Seen:
    """Everything a plan for one pool looks at. `nodes`: health by pod uid."""

    resource: Resource[SFUPoolSpec]
    spec: SFUPoolSpec
    now: datetime
    statefulset: Child | None
    pods: tuple[Pod, ...]
    nodes: Mapping[str, NodeHealth]
    images: Images

    @property
    def owner(self) -> Owner:
        return Owner(f"{GROUP}/{VERSION}", "SFUPool", self.resource.key.name, self.resource.uid)


@dataclass(frozen=True)
class Plan:
    """What to do."""

    children: tuple[Manifest, ...]
    status: dict[str, Any]
    push: PoolPush | None
    view: PoolView
    findings: tuple[Finding, ...]


def plan(seen: Seen) -> Plan:
    """The plan of a pool whose spec parses."""
    spec, key, owner = seen.spec, seen.resource.key, seen.owner
    live = [p for p in seen.pods if p.live]
    wanted = _wanted(seen, live)
    children: list[Manifest] = [
        build_sfu_config(key, owner, spec),
        build_headless_service(key, owner, spec),
        build_signal_service(key, owner, spec),
        build_disruption_budget(Key(key.namespace, names.sfu(key.name)), owner, names.pool_labels(key.name)),
        build_sfu_statefulset(key, owner, spec, wanted, seen.images.sfu, seen.images.pull_policy),
    ]
    if spec.redis.address is None:
        children.append(build_redis_service(key, owner))
        children.append(build_redis_deployment(key, owner, seen.images.redis, seen.images.pull_policy))
    view = judge(wanted, live, seen.nodes)
    findings = _findings(seen, live, wanted, view)
    nodes = tuple(_node(p, seen.nodes.get(p.uid)) for p in sorted(seen.pods, key=lambda p: p.key) if _counts(p))
    return Plan(
        children=tuple(children),
        status=_status(seen, live, wanted, nodes, findings),
        push=PoolPush(
            publicURL=public_url(key, spec),
            internalURL=in_cluster_url(key, spec),
            active="SelfHosted",
            health=view.health,
            nodes=nodes,
        ),
        view=view,
        findings=tuple(findings),
    )


def plan_wrong_namespace(resource: Resource[SFUPoolSpec], release_namespace: str, now: datetime) -> Plan:
    """Pools live beside the operator, which may make StatefulSets only there."""
    text = f"metadata.namespace: SFUPools belong into namespace {release_namespace!r}; create it there"
    return _only_ready(resource, Finding("Ready", "False", "WrongNamespace", text), now)


def plan_invalid(resource: Resource[SFUPoolSpec], now: datetime) -> Plan:
    """A stored object that no longer parses."""
    return _only_ready(resource, conditions.spec_invalid(resource.problem), now)


def judge(wanted: int, live: Sequence[Pod], nodes: Mapping[str, NodeHealth]) -> PoolView:
    """Good if any node is good. Bad only if every one is; all of them answering 406 at once is their Redis, not they:
    media flows on, so that is unknown and not bad."""
    if wanted == 0:
        return PoolView("bad", "SelfHosted", "spec asks for 0 nodes; set spec.replicas or spec.autoscaling.min")
    known = [nodes.get(p.uid, NodeHealth("unknown")) for p in live]
    if any(n.health == "good" for n in known):
        return PoolView("good", "SelfHosted")
    if known and all(n.health == "bad" for n in known):
        if all(n.stale for n in known):
            return PoolView("unknown", "SelfHosted", "every node answers 406: their Redis is away, live rooms go on")
        return PoolView("bad", "SelfHosted", f"none of {len(known)} nodes answers")
    return PoolView("unknown", "SelfHosted", "nodes are starting or cannot be reached by the operator")


def _wanted(seen: Seen, live: Sequence[Pod]) -> int:
    auto = seen.spec.autoscaling
    return decide_nodes(
        seen.spec.replicas,
        auto.min,
        auto.max,
        auto.sessions_per_node,
        auto.headroom_percent,
        seen.statefulset.replicas if seen.statefulset is not None else None,
        _sessions(live, seen.nodes),
        _last_node_empty(live, seen.nodes),
    )


def _sessions(live: Sequence[Pod], nodes: Mapping[str, NodeHealth]) -> int | None:
    """Rooms over all live nodes; None while one of them is unknown."""
    rooms = [nodes[p.uid].rooms if p.uid in nodes else None for p in live]
    if not rooms or any(r is None for r in rooms):
        return None
    return sum(r for r in rooms if r is not None)


def _ordinal(pod: Pod) -> int:
    tail = pod.key.name.rpartition("-")[2]
    return int(tail) if tail.isdigit() else -1


def _last_node_empty(live: Sequence[Pod], nodes: Mapping[str, NodeHealth]) -> bool:
    if not live:
        return False
    last = max(live, key=_ordinal)
    return last.uid in nodes and nodes[last.uid].rooms == 0


def _counts(pod: Pod) -> bool:
    return pod.phase not in ("Succeeded", "Failed")


def _node(pod: Pod, health: NodeHealth | None) -> PoolNode:
    known = health or NodeHealth("unknown")
    state = {"good": NodeState.READY, "bad": NodeState.SICK, "unknown": NodeState.UNKNOWN}[known.health]
    return PoolNode(
        name=pod.key.name,
        nodeID=known.node_id,
        address=pod.host_ip,
        rooms=known.rooms or 0,
        state=NodeState.DRAINING if pod.terminating else state,
    )


def _findings(seen: Seen, live: Sequence[Pod], wanted: int, view: PoolView) -> list[Finding]:
    spec = seen.spec
    good = sum(1 for p in live if seen.nodes.get(p.uid, NodeHealth("unknown")).health == "good")
    healthy = {
        "good": Finding("NodesHealthy", "True", "NodesAnswer")
        if good >= wanted
        else Finding("NodesHealthy", "False", "SomeNodesMissing", _missing(live, wanted)),
        "bad": Finding("NodesHealthy", "False", "NodesSick", view.message),
        "unknown": Finding("NodesHealthy", "Unknown", "NodesUnknown", view.message),
    }[view.health]
    held = spec.replicas is not None
    auto = Finding(
        "Autoscaling",
        "False" if held else "True",
        "HeldByReplicas" if held else "Active",
        f"spec.replicas is {spec.replicas}; remove it to scale by sessions again" if held else "",
    )
    fresh = (
        Finding("MetricsFresh", "True", "LoadKnown")
        if _sessions(live, seen.nodes) is not None
        else Finding("MetricsFresh", "Unknown", "LoadUnknown", "the number of nodes is kept")
    )
    findings = [healthy, auto, fresh]
    if spec.fallback.mode is not FallbackMode.NEVER:
        text = "spec.fallback.mode: this version opens rooms on the pool's own nodes only; set it to Never"
        findings.append(Finding("FallbackReady", "False", "FallbackNotSupported", text))
    ready = {
        "good": Finding("Ready", "True", "Ready"),
        "bad": Finding("Ready", "False", "PoolSick", view.message),
        "unknown": Finding("Ready", "Unknown", "NodesUnknown", view.message),
    }[view.health]
    return [ready, *findings]


def _missing(live: Sequence[Pod], wanted: int) -> str:
    pending = [p.key.name for p in live if not p.node]
    if pending:
        return (
            f"{', '.join(sorted(pending)[:3])} cannot be scheduled: each SFU node needs a machine of its own"
            " (host network); add one or lower spec.replicas"
        )
    return f"fewer than {wanted} nodes answer"


def _status(
    seen: Seen, live: Sequence[Pod], wanted: int, nodes: Sequence[PoolNode], findings: Sequence[Finding]
) -> dict[str, Any]:
    resource = seen.resource
    good = sum(1 for n in nodes if n.state is NodeState.READY)
    before = resource.status.get("active") or {}
    since = before.get("since") or seen.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    sessions = _sessions(live, seen.nodes)
    out: dict[str, Any] = {
        "observedGeneration": resource.generation,
        "replicas": len(live),
        "selector": ",".join(f"{k}={v}" for k, v in sorted(names.pool_labels(resource.key.name).items())),
        "active": {"target": "SelfHosted", "since": since},
        "nodes": [
            {
                "name": n.name,
                "nodeID": n.nodeID,
                "address": n.address,
                "state": n.state.value,
                **({"rooms": n.rooms} if n.nodeID else {}),
            }
            for n in nodes
        ],
        "nodesSummary": f"{good}/{wanted}",
        "conditions": conditions.with_times(
            findings, resource.status.get("conditions") or (), resource.generation, seen.now
        ),
    }
    if sessions is not None:
        out["sessions"] = sessions
    return out


def _only_ready(resource: Resource[SFUPoolSpec], ready: Finding, now: datetime) -> Plan:
    before = resource.status.get("conditions") or ()
    return Plan(
        children=(),
        status={
            "observedGeneration": resource.generation,
            "conditions": conditions.with_times([ready], before, resource.generation, now),
        },
        push=None,
        view=PoolView("unknown", "Unknown", ready.message),
        findings=(ready,),
    )
