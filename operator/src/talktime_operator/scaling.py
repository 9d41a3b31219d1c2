"""How many agents, and which go first. Agones' buffer policy in sessions; unknown load keeps what is (law 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_STEP_UP = 4
"""Replicas added in one decision beyond doubling: a burst must not flood the scheduler."""

IDLE_COST = "-100"
"""pod-deletion-cost of an idle pod about to be given up; busy pods keep the default 0 and so go last."""


@dataclass(frozen=True)
class Worker:
    """One live agent pod. `jobs` is None when unknown."""

    name: str
    ready: bool
    jobs: int | None
    cost: str = ""


class Reason(StrEnum):
    """Why this number."""

    BUFFER = "Buffer"
    MIN_REPLICAS = "MinReplicas"
    MAX_REPLICAS = "MaxReplicas"
    LOAD_UNKNOWN = "LoadUnknown"
    COOLING = "Cooling"
    BUSY = "Busy"
    STEP = "Step"


@dataclass(frozen=True)
class Policy:
    """From spec.agent."""

    sessions_per_replica: int
    min_replicas: int
    max_replicas: int
    spare_sessions: int


@dataclass(frozen=True)
class Decision:
    """The replicas to have now; `give_up` are the idle pods to mark first when there are fewer than before."""

    replicas: int
    wanted: int
    reason: Reason
    give_up: tuple[str, ...] = ()


def buffer(active: int, waiting: int, policy: Policy) -> int:
    """ceil((active + waiting + spare) / sessions per replica), not yet clamped."""
    return -(-(active + waiting + policy.spare_sessions) // policy.sessions_per_replica)


def clamp(value: int, policy: Policy) -> tuple[int, Reason]:
    if value > policy.max_replicas:
        return policy.max_replicas, Reason.MAX_REPLICAS
    if value < policy.min_replicas:
        return policy.min_replicas, Reason.MIN_REPLICAS
    return value, Reason.BUFFER


def decide_replicas(
    policy: Policy,
    current: int | None,
    workers: Sequence[Worker],
    waiting: int | None,
    fewer_for: float,
    fewer_after: float,
) -> Decision:
    """Replicas of a Project's agents.

    `current`: spec.replicas as it is, None when there is no Deployment yet. `workers`: live pods only (draining ones
    hold sessions, not capacity). `waiting`: sessions without an agent, None when the ledger did not say.
    `fewer_for`: seconds for which fewer were needed, against `fewer_after`.
    """
    if current is None:
        replicas, reason = clamp(buffer(0, waiting or 0, policy), policy)
        return Decision(replicas, replicas, reason)
    # A pod that runs but is not ready yet adds no load; it only stops a scale-down (see _fewer).
    ready_unknown = any(w.jobs is None and w.ready for w in workers)
    active = sum(w.jobs or 0 for w in workers)
    if waiting is None or ready_unknown:
        # The minimum is the user's word and needs no load data; going down to a lowered maximum would stop pods
        # blindly.
        return Decision(max(current, policy.min_replicas), current, Reason.LOAD_UNKNOWN)
    wanted, reason = clamp(buffer(active, waiting, policy), policy)
    if wanted >= current:
        step = max(current * 2, current + MAX_STEP_UP)
        return Decision(min(wanted, step), wanted, reason if wanted <= step else Reason.STEP)
    if fewer_for < fewer_after:
        return Decision(current, wanted, Reason.COOLING)
    return _fewer(current, wanted, workers, reason)


def _fewer(current: int, wanted: int, workers: Sequence[Worker], reason: Reason) -> Decision:
    """Idle pods first. The ReplicaSet ranks not-ready pods before cost: a busy pod that is not ready stops it all."""
    if any(w.jobs != 0 and not w.ready for w in workers):
        return Decision(current, wanted, Reason.BUSY)
    idle = sorted(w.name for w in workers if w.jobs == 0)
    step = max(1, current // 2)
    count = min(current - wanted, step, len(idle))
    if count == 0:
        return Decision(current, wanted, Reason.BUSY)
    not_ready = [w.name for w in workers if not w.ready]
    chosen = (not_ready + [n for n in idle if n not in not_ready])[:count]
    return Decision(current - count, wanted, reason, tuple(chosen))


@dataclass(frozen=True)
class NodePolicy:
    """From SFUPool.spec: `fixed` is spec.replicas, None = by load."""

    fixed: int | None
    minimum: int
    maximum: int
    per_node: int
    headroom_percent: int


def nodes_for(sessions: int, policy: NodePolicy) -> int:
    """ceil(sessions / what a node holds with its headroom kept free), clamped; never 0, because a pool without a node
    would never see the session that makes it grow."""
    needed = -(-sessions * 100 // (policy.per_node * (100 - policy.headroom_percent)))
    return max(min(max(needed, policy.minimum), policy.maximum), 1)


def desired_nodes(policy: NodePolicy, before: int | None, sessions: int | None) -> int:
    """SFU nodes of a pool. `before`: what was desired last, None for a new pool; `sessions` None = not known.

    Up at once; down only when a tenth of a node more would still fit into fewer, so that one session more or less does
    not begin a drain and take it back.
    """
    if policy.fixed is not None:
        return policy.fixed
    if before is None or before == 0:
        return nodes_for(sessions or 0, policy)
    if sessions is None:
        return max(before, policy.minimum)
    needed = nodes_for(sessions, policy)
    if needed >= before:
        return needed
    return min(before, nodes_for(sessions + -(-policy.per_node // 10), policy))
