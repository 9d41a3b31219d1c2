"""What should be for one Project, from what was seen. Pure: no client, no clock, no logging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from talktime_ledger.resources.kinds import GROUP, VERSION
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.wire import ProjectPush, ProjectStatus

from talktime_operator import conditions, names, status
from talktime_operator.children.access_secret import AccessKeys
from talktime_operator.children.agent_ca import build_agent_ca
from talktime_operator.children.agent_deployment import AgentSettings, build_agent_deployment
from talktime_operator.children.agent_network_policy import build_agent_network_policy
from talktime_operator.children.agent_record import Record, build_agent_record
from talktime_operator.children.agent_service_account import build_agent_service_account
from talktime_operator.children.disruption_budget import build_disruption_budget
from talktime_operator.children.livekit_secret import LiveKitAccess
from talktime_operator.children.standby import COMPONENT, build_standby
from talktime_operator.conditions import Finding, PoolView
from talktime_operator.credentials import credentials_valid
from talktime_operator.names import Key, Manifest, Owner
from talktime_operator.observed import Child, Pod, Resource
from talktime_operator.pools.fallback_keys import Standby
from talktime_operator.scaling import IDLE_COST, Decision, Policy, Reason, Worker, decide_replicas


@dataclass(frozen=True)
class Seen:
    """Everything a plan for one Project looks at. `loads`: active jobs by pod uid, None = unknown. `standby`: the
    pool's fallback, None when the pool has none that could be used."""

    resource: Resource[ProjectSpec]
    spec: ProjectSpec
    now: datetime
    release_namespace: str
    pool: PoolView | None
    pool_names: tuple[str, ...]
    livekit: LiveKitAccess | None
    deployment: Child | None
    pods: tuple[Pod, ...]
    loads: Mapping[str, int | None]
    ledger: ProjectStatus | None
    ledger_reachable: bool | None
    ledger_silence: conditions.Silence | None
    instructions: str | None
    instructions_problem: str
    record: Record
    next_keys: AccessKeys
    blocked: Finding | None
    fewer_for: float
    fewer_after: float
    agents: AgentSettings
    standby: Standby | None = None
    standby_deployment: Child | None = None
    standby_fewer_for: float = 0.0

    @property
    def owner(self) -> Owner:
        return Owner(f"{GROUP}/{VERSION}", "Project", self.resource.key.name, self.resource.uid)

    @property
    def agent_pods(self) -> tuple[Pod, ...]:
        """Those at the pool's own LiveKit."""
        return tuple(p for p in self.pods if p.component != COMPONENT)

    @property
    def standby_pods(self) -> tuple[Pod, ...]:
        """Those at its fallback."""
        return tuple(p for p in self.pods if p.component == COMPONENT)


@dataclass(frozen=True)
class Plan:
    """What to do. `children` are applied, `give_up` pods get a deletion cost before the Deployment shrinks."""

    children: tuple[Manifest, ...]
    status: Manifest
    push: ProjectPush | None = None
    give_up: tuple[Key, ...] = ()
    decision: Decision | None = None
    needs_fewer: bool = False
    standby: Decision | None = None
    standby_needs_fewer: bool = False
    findings: tuple[Finding, ...] = field(default=())


def plan(seen: Seen) -> Plan:
    """The plan of a Project whose spec parses."""
    spec, key = seen.spec, seen.resource.key
    labels = names.agent_labels(key.name)
    workers = _workers(seen, seen.agent_pods)
    decision = decide_replicas(
        _policy(spec),
        seen.deployment.replicas if seen.deployment is not None else None,
        workers,
        seen.ledger.sessions.waiting if seen.ledger is not None and seen.ledger_reachable else None,
        seen.fewer_for,
        seen.fewer_after,
    )
    children: list[Manifest] = [
        build_agent_service_account(key),
        build_agent_network_policy(key, seen.owner, seen.release_namespace),
        build_disruption_budget(Key(key.namespace, names.agent(key.name)), seen.owner, labels),
        build_agent_record(key, seen.owner, seen.record),
    ]
    if seen.agents.ca_bundle:
        children.append(build_agent_ca(key, seen.owner, seen.agents.ca_bundle))
    if seen.livekit is not None:
        secret = seen.livekit.secret_name(key.name)
        children.append(build_agent_deployment(key, seen.owner, spec, decision.replicas, secret, seen.agents))
    reserve = decide_standby(seen)
    if reserve is not None:
        secret = seen.standby.access.secret_name(key.name) if seen.standby is not None else seen.record.standby_secret
        children += build_standby(key, seen.owner, spec, reserve.replicas, secret, seen.agents, seen.release_namespace)
    findings = _findings(seen, workers)
    by_name = {p.key.name: p for p in seen.pods}
    leaving = (*decision.give_up, *(reserve.give_up if reserve is not None else ()))
    give_up = tuple(by_name[n].key for n in leaving if by_name[n].deletion_cost != IDLE_COST)
    return Plan(
        children=tuple(children),
        status=_status(seen, decision, findings),
        push=_push(seen),
        give_up=give_up,
        decision=decision,
        needs_fewer=_needs_fewer(decision),
        standby=reserve,
        standby_needs_fewer=reserve is not None and _needs_fewer(reserve),
        findings=tuple(findings),
    )


def plan_invalid(resource: Resource[ProjectSpec], now: datetime) -> Plan:
    """A stored object that no longer parses: say so, touch nothing else."""
    findings = [conditions.spec_invalid(resource.problem)]
    return Plan(
        children=(),
        status={
            **resource.status,
            "observedGeneration": resource.generation,
            "conditions": conditions.with_times(
                findings, resource.status.get("conditions") or (), resource.generation, now
            ),
        },
        findings=tuple(findings),
    )


def _policy(spec: ProjectSpec) -> Policy:
    agent = spec.agent
    return Policy(agent.sessions_per_replica, agent.min_replicas, agent.max_replicas, agent.spare_sessions)


def decide_standby(seen: Seen) -> Decision | None:
    """Agents at the fallback: `standbyReplicas` while the Project has sessions; while new rooms go there, all of them
    or one by one, as many as there are sessions for. None: none were ever needed."""
    current = seen.standby_deployment.replicas if seen.standby_deployment is not None else None
    ledger = seen.ledger if seen.ledger_reachable else None
    workers = _workers(seen, seen.standby_pods)
    over = seen.standby is not None and seen.pool is not None and seen.pool.active == "Fallback"
    held = ledger is not None and ledger.sessions.open > 0
    fed = over or (held and _one_by_one(seen, workers))
    floor = seen.standby.replicas if seen.standby is not None and (over or held) else 0
    if current is None and not fed and floor == 0:
        return None
    if seen.standby is None and not seen.record.standby_secret:
        return None
    agent = seen.spec.agent
    policy = Policy(
        agent.sessions_per_replica, floor, max(agent.max_replicas, floor), agent.spare_sessions if fed else 0
    )
    waiting = None if ledger is None else ledger.sessions.waiting if fed else 0
    return decide_replicas(policy, current, workers, waiting, seen.standby_fewer_for, seen.fewer_after)


def _one_by_one(seen: Seen, standby: Sequence[Worker]) -> bool:
    """Whether gateways may be taking sessions to the fallback of a pool that stays SelfHosted (no Redis, say). Which
    LiveKit a waiting session is on nobody tells, so it counts at both: an agent too many goes again, one too few is
    an interview in silence."""
    if seen.standby is None or seen.pool is None:
        return False
    return seen.pool.health != "good" or any(w.jobs for w in standby)


def _needs_fewer(decision: Decision) -> bool:
    return decision.wanted < decision.replicas or decision.reason is Reason.COOLING


def _workers(seen: Seen, pods: Sequence[Pod]) -> list[Worker]:
    """Live pods. One whose container has not started holds no session; a running one that is silent is unknown."""
    return [
        Worker(
            pod.key.name,
            pod.ready,
            0 if pod.phase == "Pending" or pod.waiting else seen.loads.get(pod.uid),
            pod.deletion_cost,
        )
        for pod in pods
        if pod.live
    ]


def _push(seen: Seen) -> ProjectPush | None:
    """Without instructions there is nothing an agent could say: nothing is pushed until they are there."""
    if seen.instructions is None:
        return None
    keys = {k.sha256: k for k in (*seen.record.keys, *seen.next_keys.hashes())}
    return ProjectPush(
        uid=seen.resource.uid,
        generation=seen.resource.generation,
        paused=seen.resource.paused,
        instructions=seen.instructions,
        accessKeys=tuple(keys.values()),
        spec=seen.spec,
    )


def _findings(seen: Seen, workers: Sequence[Worker]) -> list[Finding]:
    spec = seen.spec
    unknown = [w.name for w in workers if w.ready and w.jobs is None]
    findings = [
        conditions.paused(seen.resource.paused),
        conditions.ledger_reachable(seen.ledger_reachable, seen.ledger_silence),
        conditions.price_known(spec, seen.ledger),
        conditions.budget_feasible(seen.ledger),
        conditions.budget_available(spec, seen.ledger),
        credentials_valid(seen.resource.key, spec, seen.pods, seen.ledger, seen.now),
        conditions.media_healthy(spec, seen.release_namespace, seen.pool, seen.pool_names),
        conditions.metrics_fresh(unknown, seen.ledger is not None, seen.ledger_reachable),
    ]
    serving = seen.standby_pods if seen.pool is not None and seen.pool.active == "Fallback" else seen.agent_pods
    ready_agents = sum(1 for p in serving if p.live and p.ready)
    ready = conditions.project_ready(findings, ready_agents, spec.agent.min_replicas)
    if seen.instructions is None:
        ready = Finding("Ready", "False", "InstructionsNotFound", seen.instructions_problem)
    elif seen.blocked is not None:
        ready = seen.blocked
    return [ready, *findings]


def _status(seen: Seen, decision: Decision, findings: Sequence[Finding]) -> dict[str, Any]:
    generation = seen.resource.generation
    pods = [p for p in seen.agent_pods if p.phase not in ("Succeeded", "Failed")]
    live = [p for p in pods if p.live]
    ready = sum(1 for p in live if p.ready)
    desired = decision.replicas if seen.livekit is not None else 0
    out: dict[str, Any] = {
        "observedGeneration": generation,
        "agents": {
            "desired": desired,
            "ready": ready,
            "busy": sum(1 for p in pods if seen.loads.get(p.uid)),
            "draining": sum(1 for p in pods if p.terminating),
            "summary": f"{ready}/{desired}",
        },
        "media": {
            "active": seen.pool.active if seen.pool is not None else "Unknown",
            "pool": seen.spec.media.pool_ref.name,
        },
        "conditions": conditions.with_times(
            findings, seen.resource.status.get("conditions") or (), generation, seen.now
        ),
    }
    if seen.ledger is not None:
        budget, counts = seen.ledger.budget, seen.ledger.sessions
        out["budget"] = {
            "amount": status.usd(budget.amount),
            "posted": status.usd(budget.posted),
            "reserved": status.usd(budget.reserved),
            "available": status.usd(budget.available),
            "forecast": status.usd(budget.forecast),
            "usedPercent": status.percent(budget.posted, budget.amount),
            "state": budget.state.value,
            "period": budget.period,
        }
        out["sessions"] = {
            "open": counts.open,
            "attached": counts.attached,
            "waiting": counts.waiting,
            "completed": counts.completed,
        }
    else:
        # Amounts known from before stay: missing data is no zero.
        out |= {k: seen.resource.status[k] for k in ("budget", "sessions") if k in seen.resource.status}
    return out
