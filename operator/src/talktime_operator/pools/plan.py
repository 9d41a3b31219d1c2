"""What should be for one SFUPool, from what was seen. Pure: no client, no clock, no logging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from talktime_ledger.resources.kinds import GROUP, VERSION
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_ledger.resources.schema import seconds
from talktime_ledger.wire import NodeState, PoolNode, PoolPush

from talktime_operator import conditions, names
from talktime_operator.children.disruption_budget import build_sfu_disruption_budget
from talktime_operator.children.redis import build_redis_deployment, build_redis_service
from talktime_operator.children.sfu_services import (
    build_headless_service,
    build_signal_service,
    in_cluster_url,
    public_url,
)
from talktime_operator.children.sfu_statefulset import Images, Mounts, build_sfu_statefulset, template_digest
from talktime_operator.conditions import Finding, PoolView
from talktime_operator.names import Key, Manifest, Owner
from talktime_operator.observed import Child, Pod, Resource
from talktime_operator.pools import drain, healing, node_hours, switching
from talktime_operator.pools.failover import Active
from talktime_operator.pools.health import Evidence
from talktime_operator.pools.node_cost import node_cost
from talktime_operator.pools.nodes import (
    Around,
    NodeHealth,
    doors,
    drain_nodes,
    holds_nothing,
    load,
    only_open,
    port_clash,
)
from talktime_operator.pools.saving import Spent, saving, saving_known
from talktime_operator.scaling import NodePolicy, desired_nodes


@dataclass(frozen=True)
class Seen:
    """Everything a plan for one pool looks at. `nodes`: health by pod uid; `others`: the other pools that parse;
    `leaving` and `told` as in pools/nodes.py; `evidence`: its health by rounds, `second`: its fallback;
    `mounts`: what nodes get beside the spec, `given`: what is said of its keys and Secrets; `spent`: this month's use,
    None while the ledger has not told; `sick`: pods that are bad, by uid; `away`: machines that do
    not report."""

    resource: Resource[SFUPoolSpec]
    spec: SFUPoolSpec
    now: datetime
    statefulsets: tuple[Child, ...]
    pods: tuple[Pod, ...]
    nodes: Mapping[str, NodeHealth]
    images: Images
    others: tuple[tuple[Key, SFUPoolSpec], ...] = ()
    leaving: frozenset[str] = frozenset()
    told: Mapping[str, float] = field(default_factory=dict)
    settle: float = drain.SETTLE
    evidence: Evidence = field(default_factory=Evidence)
    second: switching.Second = field(default_factory=switching.Second)
    mounts: Mounts = field(default_factory=Mounts)
    given: tuple[Finding, ...] = ()
    spent: Spent | None = None
    sick: Mapping[str, healing.Sickness] = field(default_factory=dict)
    away: frozenset[str] = frozenset()

    @property
    def owner(self) -> Owner:
        return Owner(f"{GROUP}/{VERSION}", "SFUPool", self.resource.key.name, self.resource.uid)


@dataclass(frozen=True)
class Plan:
    """What to do. `drain`: marks to set and take away, pods and StatefulSets to delete; `doors`: pods that the Service
    shall (True) or shall no longer lead new signal connections to; `active`: where new rooms go, as in the status;
    `restart`: a sick pod to delete (its StatefulSet makes it anew). `again`: seconds until time alone may change
    something, 0 = never."""

    children: tuple[Manifest, ...]
    status: dict[str, Any]
    push: PoolPush | None
    view: PoolView
    findings: tuple[Finding, ...]
    active: Active | None = None
    drain: drain.Decision = field(default_factory=drain.Decision)
    doors: Mapping[str, bool] = field(default_factory=dict)
    again: float = 0.0
    restart: str = ""


def plan(seen: Seen) -> Plan:
    """The plan of a pool whose spec parses."""
    spec, key, owner = seen.spec, seen.resource.key, seen.owner
    live = [p for p in seen.pods if p.live]
    wanted = _wanted(seen, live)
    steps = _drain(seen, wanted)
    going = {*steps.states, *steps.begin}
    children: list[Manifest] = [
        build_headless_service(key, owner, spec),
        build_signal_service(key, owner, spec, only_open(seen.pods, going)),
        build_sfu_disruption_budget(key, owner),
        *(
            build_sfu_statefulset(key, owner, spec, slot, seen.images, seen.mounts)
            for slot in (*steps.keep, *_new_slots(seen, steps.add))
        ),
    ]
    if spec.redis.address is None:
        children.append(build_redis_service(key, owner))
        children.append(build_redis_deployment(key, owner, seen.images.redis, seen.images.pull_policy))
    view = judge(wanted, [p for p in live if p.key.name not in steps.states], seen.nodes)
    turn = switching.switch(seen.resource, spec, view, seen.evidence, seen.second, seen.now)
    healed = heal(seen, live, steps)
    findings = [*_findings(seen, live, wanted, turn, steps), *([healed.finding] if spec.health.restart_sick else [])]
    nodes = tuple(
        _node(p, seen.nodes.get(p.uid), steps.states.get(p.key.name))
        for p in sorted(seen.pods, key=lambda p: p.key)
        if _counts(p)
    )
    return Plan(
        children=tuple(children),
        status=_status(seen, live, wanted, nodes, findings, steps, turn.active) | _restarts(healed),
        push=PoolPush(
            publicURL=public_url(key, spec),
            internalURL=in_cluster_url(key, spec),
            active=turn.active.target,
            health=turn.view.health,
            nodes=nodes,
            fallbackURL=seen.second.url if seen.second.usable else None,
            fallbackMode=spec.fallback.mode.value,
            sessionsPerNode=spec.autoscaling.sessions_per_node,
        ),
        view=turn.view,
        findings=tuple(findings),
        active=turn.active,
        drain=steps,
        doors=doors((p for p in seen.pods if p.key.name not in {*steps.begin, *steps.cancel}), going),
        again=min((s for s in (turn.again, healed.again) if s > 0), default=0.0),
        restart=healed.restart,
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
    """Missing data keeps what was wanted, by our own status or, before there is one, by the StatefulSets."""
    auto = seen.spec.autoscaling
    policy = NodePolicy(seen.spec.replicas, auto.min, auto.max, auto.sessions_per_node, auto.headroom_percent)
    before = seen.resource.status.get("desired") or len(seen.statefulsets) or None
    return desired_nodes(policy, before, load(live, seen.nodes))


def _drain(seen: Seen, wanted: int) -> drain.Decision:
    template = template_digest(seen.resource.key, seen.spec, seen.images, seen.mounts)
    return drain.decide(
        wanted,
        seen.spec.replicas is not None,
        sorted(s.key.name for s in seen.statefulsets),
        drain_nodes(seen.pods, seen.nodes, Around(seen.leaving, seen.told, template)),
        timedelta(seconds=seconds(seen.spec.drain.deadline)),
        seen.now,
        elsewhere=(seen.resource.status.get("active") or {}).get("target") == "Fallback",
        settle=seen.settle,
    )


def heal(seen: Seen, live: Sequence[Pod], steps: drain.Decision) -> healing.Healing:
    """Nodes that drain or whose container does not start are not its business."""
    health = seen.spec.health
    staying = [p for p in live if p.key.name not in steps.states and p.key.name not in steps.begin]
    patients = [
        healing.Patient(p.key.name, s.answer, s.seconds, s.rooms, p.node in seen.away)
        for p in staying
        if (s := seen.sick.get(p.uid)) is not None and not holds_nothing(p)
    ]
    ward = healing.Ward(
        patients,
        any_good=any(seen.nodes[p.uid].health == "good" for p in staying if p.uid in seen.nodes),
        any_starting=any(p.terminating or p.phase == "Pending" for p in seen.pods),
        cause=seen.evidence.cause,
    )
    after = timedelta(seconds=seconds(health.restart_after)) if health.restart_sick else None
    return healing.decide(ward, healing.parse_past(seen.resource.status), after, seen.now)


def _restarts(healed: healing.Healing) -> dict[str, Any]:
    return {"restarts": healing.render_past(healed.past)} if healed.past else {}


def _new_slots(seen: Seen, count: int) -> list[str]:
    """Names no StatefulSet and no pod has, the smallest numbers first."""
    taken = {s.key.name for s in seen.statefulsets} | {p.sfu.slot for p in seen.pods}
    free = (n for i in range(len(taken) + count) if (n := names.sfu_node(seen.resource.key.name, i)) not in taken)
    return [next(free) for _ in range(count)]


def _counts(pod: Pod) -> bool:
    return pod.phase not in ("Succeeded", "Failed")


def _node(pod: Pod, health: NodeHealth | None, going: drain.State | None) -> PoolNode:
    known = health or NodeHealth("unknown")
    state = {"good": NodeState.READY, "bad": NodeState.SICK, "unknown": NodeState.UNKNOWN}[known.health]
    state = NodeState(going.kind) if going is not None else state
    return PoolNode(
        name=pod.key.name,
        nodeID=known.node_id,
        address=pod.host_ip,
        rooms=known.rooms or 0,
        state=state,
        silent=known.silent if state is NodeState.SICK else None,
    )


def _findings(
    seen: Seen, live: Sequence[Pod], wanted: int, turn: switching.Switching, steps: drain.Decision
) -> list[Finding]:
    spec = seen.spec
    good = sum(1 for p in live if seen.nodes.get(p.uid, NodeHealth("unknown")).health == "good")
    healthy = switching.nodes_healthy(turn.view, seen.evidence, good >= wanted, _missing(live, wanted))
    held = spec.replicas is not None
    auto = Finding(
        "Autoscaling",
        "False" if held else "True",
        "HeldByReplicas" if held else "Active",
        f"spec.replicas is {spec.replicas}; remove it to scale by sessions again" if held else "",
    )
    fresh = (
        Finding("MetricsFresh", "True", "LoadKnown")
        if load(live, seen.nodes) is not None
        else Finding("MetricsFresh", "Unknown", "LoadUnknown", "the number of nodes is kept")
    )
    known = saving_known(spec.node_monthly_cost, seen.spent)
    findings = [
        healthy,
        auto,
        fresh,
        draining(steps),
        port_clash(spec, seen.others),
        *turn.findings,
        *seen.given,
        known,
    ]
    return [switching.ready(turn.view), *findings]


def draining(steps: drain.Decision) -> Finding:
    """True while a node goes; what has to wait is said in either case. No counts: they stand with the nodes."""
    waits = "; ".join(f"{h.reason}: {h.message}" for h in steps.held)
    going = sorted(steps.states.items())
    if not going:
        if not steps.held:
            return Finding("Draining", "False", "NoDrain")
        reason = "ScaleDownHeld" if steps.held[0].reason == "RoomsUnknown" else "DrainHeld"
        return Finding("Draining", "False", reason, waits[:1900])
    text = "; ".join(
        f"{name} ({state.why.value}) until {state.until.strftime(drain.TIME)}"
        + (": its deadline has passed, its sessions are moved" if state.kind == "Moving" else "")
        + (": no room left, it carries signal connections of other nodes' rooms" if state.carries else "")
        for name, state in going[:5]
    )
    return Finding("Draining", "True", going[0][1].why.value, f"{text}{'; ' + waits if waits else ''}"[:1900])


def _missing(live: Sequence[Pod], wanted: int) -> str:
    pending = [p.key.name for p in live if not p.node]
    if pending:
        return (
            f"{', '.join(sorted(pending)[:3])} cannot be scheduled: each SFU node needs a machine of its own"
            " (host network); add one or lower spec.replicas"
        )
    return f"fewer than {wanted} nodes answer"


def _status(
    seen: Seen,
    live: Sequence[Pod],
    wanted: int,
    nodes: Sequence[PoolNode],
    findings: Sequence[Finding],
    steps: drain.Decision,
    active: Active,
) -> dict[str, Any]:
    resource = seen.resource
    good = sum(1 for n in nodes if n.state is NodeState.READY)
    sessions = load(live, seen.nodes)
    out: dict[str, Any] = {
        "observedGeneration": resource.generation,
        "replicas": len(live),
        "selector": ",".join(f"{k}={v}" for k, v in sorted(names.pool_labels(resource.key.name).items())),
        "active": active.render(),
        "nodes": [
            {
                "name": n.name,
                "nodeID": n.nodeID,
                "address": n.address,
                "state": n.state.value,
                **({"rooms": n.rooms} if n.nodeID else {}),
                **_countdown(steps.states.get(n.name)),
            }
            for n in nodes
        ],
        "nodesSummary": f"{good}/{wanted}",
        "desired": wanted,
        "conditions": conditions.with_times(
            findings, resource.status.get("conditions") or (), resource.generation, seen.now
        ),
    }
    if sessions is not None:
        out["sessions"] = sessions
    counted = _node_hours(seen)
    out["nodeHours"] = counted.render()
    out |= _economics(seen, counted.average(node_hours.begin(resource.created, seen.now), seen.now))
    last = _last_drain(steps, seen.now) or resource.status.get("lastDrain")
    if last:
        out["lastDrain"] = last
    return out


def _node_hours(seen: Seen) -> node_hours.NodeHours:
    before = node_hours.NodeHours.parse(seen.resource.status.get("nodeHours") or {})
    with_machine = sum(1 for p in seen.pods if _counts(p) and p.node)
    return node_hours.count(before, with_machine, seen.resource.created, seen.now)


def _economics(seen: Seen, nodes: Decimal) -> dict[str, Any]:
    """This month's saving and node cost. While the ledger has not told, what stood there stays (law 6)."""
    if seen.spent is None:
        before = seen.resource.status
        return {name: dict(before[name]) for name in ("saving", "nodeCost") if before.get(name)}
    monthly = None if seen.spec.node_monthly_cost is None else Decimal(seen.spec.node_monthly_cost)
    minutes, made = seen.spent.used.begun_minutes, seen.resource.created
    found = {
        "saving": saving(minutes, seen.spent.prices, nodes, monthly, made, seen.now),
        "nodeCost": node_cost(seen.spent, nodes, monthly, made, seen.now),
    }
    return {name: one.render() for name, one in found.items() if one is not None}


def _countdown(state: drain.State | None) -> dict[str, Any]:
    if state is None:
        return {}
    return {"drainReason": state.why.value, "drainDeadline": state.until.strftime(drain.TIME)}


def _last_drain(steps: drain.Decision, now: datetime) -> dict[str, Any]:
    """The last node taken away in this round; the one with the most sessions still on it is told."""
    ended = [r for r in steps.remove if r.name in steps.states]
    if not ended:
        return {}
    worst = max(ended, key=lambda r: (r.moved is None, r.moved or 0, r.name))
    moved = {} if worst.moved is None else {"moved": worst.moved}
    return {"node": worst.name, "reason": worst.why.value, "ended": now.strftime(drain.TIME), **moved}


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
