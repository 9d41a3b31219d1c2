"""A pool's decision between its own nodes and its fallback, and how that is told. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from talktime_ledger.resources.pool import FallbackMode, SFUPoolSpec
from talktime_ledger.resources.schema import seconds

from talktime_operator.conditions import FORCE_FIX, Finding, PoolView
from talktime_operator.observed import Resource
from talktime_operator.pools.failover import Active, Policy, decide
from talktime_operator.pools.health import Cause, Evidence

PROVEN = frozenset({"MediaFlows", "MediaBlocked", "MediaUnknown"})
"""Reasons of MediaProbed that say: UDP came through once."""


@dataclass(frozen=True)
class Second:
    """The fallback as far as it can be used. `problem`: what is wrong with its Secret; empty: its keys are known."""

    url: str = ""
    problem: str = ""

    @property
    def usable(self) -> bool:
        return bool(self.url) and not self.problem


@dataclass(frozen=True)
class Switching:
    """The decision with its findings. `again`: seconds until time alone may change it, 0 = never."""

    active: Active
    view: PoolView
    findings: tuple[Finding, ...]
    again: float


def switch(
    resource: Resource[SFUPoolSpec],
    spec: SFUPoolSpec,
    view: PoolView,
    evidence: Evidence,
    second: Second,
    now: datetime,
) -> Switching:
    """`view`: the pool by its nodes. What is told of its health gets its cause here."""
    fallback = spec.fallback
    policy = Policy(
        fallback.mode, second.usable, spec.health.failure_threshold, timedelta(seconds=seconds(fallback.failback_after))
    )
    before = Active.parse(resource.status.get("active") or {}, now)
    active = decide(before, policy, evidence.streak, evidence.message, evidence.fallback, now)
    view = replace(
        view,
        active=active.target,
        fallback=evidence.fallback if second.usable else None,
        forced=fallback.mode is FallbackMode.FORCE,
    )
    if evidence.message and view.health != "good":
        view = replace(view, message=evidence.message)
    findings = (on_fallback(active), *fallback_ready(spec, second, evidence), *media_probe(spec, evidence))
    return Switching(active, view, findings, _again(active, policy, evidence, now))


def nodes_healthy(view: PoolView, evidence: Evidence, enough: bool, missing: str) -> Finding:
    """`enough`: as many nodes answer as are wanted; `missing`: what is said when not."""
    kind = "NodesHealthy"
    if evidence.cause is Cause.RESTARTING:
        return Finding(kind, "Unknown", Cause.RESTARTING.value, evidence.message)
    if view.health == "good":
        if evidence.cause is Cause.ONE_NODE:
            return Finding(kind, "False", Cause.ONE_NODE.value, evidence.message)
        return Finding(kind, "True", "NodesAnswer") if enough else Finding(kind, "False", "SomeNodesMissing", missing)
    status, reason = ("False", "NodesSick") if view.health == "bad" else ("Unknown", "NodesUnknown")
    if evidence.cause not in (Cause.NONE, Cause.STARTING):
        reason = evidence.cause.value
    return Finding(kind, "False" if status == "False" else "Unknown", reason, view.message)


def ready(view: PoolView) -> Finding:
    """Rooms can be opened: here, or at the fallback when that is where they go."""
    if view.active == "Fallback":
        if view.fallback != "bad":
            return Finding("Ready", "True", "OnFallback", "new rooms go to the fallback: see OnFallback")
        if view.health != "good":
            return Finding("Ready", "False", "BothSick", f"the fallback takes no rooms either; {view.message}")
        if view.shut_by_force:
            return Finding("Ready", "False", "FallbackSick", FORCE_FIX)
    if view.health == "good":
        return Finding("Ready", "True", "Ready")
    if view.health == "unknown":
        return Finding("Ready", "Unknown", "NodesUnknown", view.message)
    if view.fallback == "bad":
        return Finding("Ready", "False", "BothSick", f"{view.message}; the fallback takes no rooms either")
    return Finding("Ready", "False", "PoolSick", view.message)


def on_fallback(active: Active) -> Finding:
    """True while new rooms go to the second LiveKit; its transitions are the events of a switch."""
    if active.target == "Fallback":
        return Finding("OnFallback", "True", active.reason.value, active.message)
    return Finding("OnFallback", "False", active.reason.value, active.message)


def fallback_ready(spec: SFUPoolSpec, second: Second, evidence: Evidence) -> list[Finding]:
    """Whether the fallback could take over now; nothing is said when none is wanted."""
    kind = "FallbackReady"
    if spec.fallback.mode is FallbackMode.NEVER:
        return []
    if not second.usable:
        return [Finding(kind, "False", "KeysNotFound", second.problem)]
    if evidence.fallback == "good":
        return [Finding(kind, "True", "Answers")]
    if evidence.fallback == "bad":
        text = f"spec.fallback: the LiveKit there {evidence.fallback_message}; look at its URL, its keys and its status"
        return [Finding(kind, "False", "FallbackSick", text)]
    return [Finding(kind, "Unknown", "NotAsked", evidence.fallback_message or "not asked yet")]


def media_probe(spec: SFUPoolSpec, evidence: Evidence) -> list[Finding]:
    """Whether UDP comes through to the nodes; nothing is said when nobody wants to know."""
    kind, media = "MediaProbed", evidence.media
    if not spec.health.media_probe:
        return []
    if media.verdict == "good":
        return [Finding(kind, "True", "MediaFlows")]
    if media.verdict == "bad":
        return [Finding(kind, "False", "MediaBlocked", media.message)]
    return [Finding(kind, "Unknown", "MediaUnknown" if media.proven else "NeverProven", media.message)]


def _again(active: Active, policy: Policy, evidence: Evidence, now: datetime) -> float:
    if active.target != "Fallback" or policy.mode is not FallbackMode.AUTO or evidence.streak.verdict != "good":
        return 0.0
    wait = policy.failback_after.total_seconds()
    left = max(wait - evidence.streak.seconds, wait - (now - active.since).total_seconds())
    return max(left, 1.0)
