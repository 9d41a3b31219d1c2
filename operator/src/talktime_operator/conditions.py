"""Conditions of a Project: pure rules. Each gives a reason and a sentence that names the field and the fix.

No amount of money stands in a message, so that spending does not rewrite conditions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from talktime_ledger.resources.project import Api, ProjectSpec
from talktime_ledger.wire import BudgetState, ProjectStatus

from talktime_operator.names import PAUSED_ANNOTATION, Manifest

Status = Literal["True", "False", "Unknown"]
CARD_PROVIDER = {Api.OPENAI_REALTIME: "openai", Api.GEMINI_LIVE: "google"}


@dataclass(frozen=True)
class Finding:
    """One condition without its times."""

    type: str
    status: Status
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Silence:
    """The ledger does not answer. ``since``: its last answer, or when we began to ask; ``reason``: one of
    `LedgerUnreachable` (no connection, no answer), `LedgerFailing` (it answers 5xx: its database), `TokenRefused`.
    """

    since: datetime
    reason: Literal["LedgerUnreachable", "LedgerFailing", "TokenRefused"]
    detail: str


_SILENCE_FIX = {
    "LedgerUnreachable": "look at the pods of talktime-ledger and the way to them",
    "LedgerFailing": "it runs and fails: look at its database and at the logs of talktime-ledger",
    "TokenRefused": "it does not take the operator's ServiceAccount token: look at ledger.issuer and the logs of"
    " talktime-ledger",
}


@dataclass(frozen=True)
class PoolView:
    """What a Project needs to know of its pool. `fallback`: health of its second LiveKit, None when it has none;
    `forced`: spec.fallback.mode is Force, so gateways never go back to the nodes, however well these are."""

    health: Literal["good", "bad", "unknown"]
    active: str
    message: str = ""
    fallback: Literal["good", "bad", "unknown"] | None = None
    forced: bool = False

    @property
    def shut_by_force(self) -> bool:
        """Nodes that answer, and a fallback that does not, to which every new room goes by the SRE's word."""
        return self.forced and self.active == "Fallback" and self.fallback == "bad" and self.health == "good"


FORCE_FIX = (
    "spec.fallback.mode is Force and the LiveKit there takes no rooms, so every new session is refused although the"
    " pool's own nodes answer: set spec.fallback.mode to Auto, or mend the fallback (see FallbackReady)"
)


def paused(is_paused: bool) -> Finding:
    if is_paused:
        return Finding(
            "Paused",
            "True",
            "PausedByAnnotation",
            f"no new sessions, live ones wrap up: remove the annotation {PAUSED_ANNOTATION} to resume",
        )
    return Finding("Paused", "False", "NotPaused")


def ledger_reachable(reachable: bool | None, silence: Silence | None) -> Finding:
    """The message changes with the reason only: an outage is one write per Project, however long."""
    if reachable is None:
        return Finding("LedgerReachable", "Unknown", "Connecting", "the ledger has not answered yet")
    if reachable:
        return Finding("LedgerReachable", "True", "Answering")
    if silence is None:
        return Finding("LedgerReachable", "False", "LedgerUnreachable", _SILENCE_FIX["LedgerUnreachable"])
    return Finding(
        "LedgerReachable",
        "False",
        silence.reason,
        f"no answer since {silence.since:%Y-%m-%dT%H:%M:%SZ}: no new sessions, live ones use what they reserved,"
        f" amounts are those of then; {_SILENCE_FIX[silence.reason]} ({silence.detail or 'no answer'})",
    )


def price_known(spec: ProjectSpec, ledger: ProjectStatus | None) -> Finding:
    if ledger is None:
        return Finding("PriceKnown", "Unknown", "LedgerSilent", "the ledger has not judged this Project yet")
    index = {p.name: (i, p) for i, p in enumerate(spec.providers)}
    for price in ledger.prices:
        if not price.known and price.provider in index:
            i, provider = index[price.provider]
            card = CARD_PROVIDER[provider.api]
            why = f" ({price.reason})" if price.reason else ""
            return Finding(
                "PriceKnown",
                "False",
                "PriceUnknown",
                f"spec.providers[{i}]: model {price.model!r} has no price{why}; apply a RateCard with provider {card!r}"
                f" and model {price.model!r}, or name a model that has one",
            )
    return Finding("PriceKnown", "True", "AllPriced")


def budget_feasible(ledger: ProjectStatus | None) -> Finding:
    if ledger is None:
        return Finding("BudgetFeasible", "Unknown", "LedgerSilent", "the ledger has not judged this Project yet")
    feasible = ledger.feasible
    if feasible.ok:
        return Finding("BudgetFeasible", "True", "Feasible")
    return Finding("BudgetFeasible", "False", camel_case(feasible.reason, "NotFeasible"), feasible.message)


def budget_available(spec: ProjectSpec, ledger: ProjectStatus | None) -> Finding:
    if ledger is None:
        return Finding("BudgetAvailable", "Unknown", "LedgerSilent", "the ledger has not judged this Project yet")
    state = ledger.budget.state
    if state is BudgetState.HARD:
        return Finding(
            "BudgetAvailable",
            "False",
            "HardLimit",
            "no new sessions: what is left does not cover one; raise spec.budget.amount"
            + (" or wait for the next month" if spec.budget.period.value == "Monthly" else ""),
        )
    if state is BudgetState.SOFT:
        return Finding(
            "BudgetAvailable",
            "True",
            "SoftLimit",
            f"spec.budget.softPercent ({spec.budget.soft_percent}) of spec.budget.amount is spent;"
            f" onProjectSoft is {spec.budget.on_project_soft.value}",
        )
    return Finding("BudgetAvailable", "True", "WithinBudget")


def media_healthy(spec: ProjectSpec, namespace: str, pool: PoolView | None, pools: Sequence[str]) -> Finding:
    kind, name = "MediaHealthy", spec.media.pool_ref.name
    if pool is None:
        there = f"there are: {', '.join(sorted(pools))}" if pools else "there is none yet"
        return Finding(
            kind,
            "False",
            "PoolNotFound",
            f"spec.media.poolRef.name: no SFUPool {name!r} in namespace {namespace!r}; create it or name another"
            f" ({there})",
        )
    if pool.active == "Fallback" and pool.fallback != "bad":
        return Finding(kind, "True", "OnFallback", f"SFUPool {name!r}: new sessions are on its fallback")
    if pool.shut_by_force:
        return Finding(kind, "False", "FallbackSick", f"SFUPool {name!r}: {FORCE_FIX}")
    if pool.health == "good":
        return Finding(kind, "True", "PoolHealthy")
    if pool.active == "Fallback":
        return Finding(kind, "False", "BothSick", f"SFUPool {name!r}: neither its nodes nor its fallback take rooms")
    if pool.health == "bad":
        return Finding(kind, "False", "PoolSick", f"SFUPool {name!r}: {pool.message or 'no node answers'}")
    return Finding(kind, "Unknown", "PoolUnknown", f"SFUPool {name!r}: {pool.message or 'no data yet'}")


def metrics_fresh(unknown_pods: Sequence[str], have_ledger: bool, reachable: bool | None = True) -> Finding:
    if unknown_pods:
        shown = ", ".join(sorted(unknown_pods)[:3])
        return Finding("MetricsFresh", "False", "LoadUnknown", f"replicas are kept: /worker of {shown} does not answer")
    if reachable is False:
        return Finding(
            "MetricsFresh",
            "False",
            "LedgerSilent",
            "replicas are kept, amounts are the last known: see LedgerReachable",
        )
    if not have_ledger:
        return Finding(
            "MetricsFresh", "Unknown", "LedgerSilent", "replicas are kept: the ledger has not counted sessions"
        )
    return Finding("MetricsFresh", "True", "LoadKnown")


def project_ready(findings: Sequence[Finding], ready_agents: int, min_replicas: int) -> Finding:
    """`Ready` of a Project: new sessions can be held now (see the reference)."""
    by_type = {f.type: f for f in findings}
    if by_type["Paused"].status == "True":
        return Finding("Ready", "False", "Paused", by_type["Paused"].message)
    order = ("LedgerReachable", "PriceKnown", "BudgetFeasible", "BudgetAvailable", "MediaHealthy", "CredentialsValid")
    for name in order:
        if by_type[name].status == "False":
            return Finding("Ready", "False", by_type[name].reason, by_type[name].message)
    if ready_agents == 0 and min_replicas > 0:
        return Finding("Ready", "False", "AgentsNotReady", "no agent pod is ready yet")
    for name in order[:4]:
        if by_type[name].status == "Unknown":
            return Finding("Ready", "Unknown", by_type[name].reason, by_type[name].message)
    return Finding("Ready", "True", "Ready")


def spec_invalid(problem: str) -> Finding:
    return Finding("Ready", "False", "SpecInvalid", f"{problem}; this object is older than its CRD, edit it")


def camel_case(text: str, default: str) -> str:
    """CamelCase of a code; conditions allow no other characters."""
    camel = "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", text) if part)
    return camel[:64] if camel and camel[0].isalpha() else default


def with_times(
    findings: Sequence[Finding], before: Sequence[Mapping[str, Any]], generation: int, now: datetime
) -> list[Manifest]:
    """metav1 conditions; lastTransitionTime moves only when the status does."""
    old = {c["type"]: c for c in before}
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        {
            "type": f.type,
            "status": f.status,
            "reason": f.reason,
            "message": f.message,
            "observedGeneration": generation,
            "lastTransitionTime": old[f.type]["lastTransitionTime"]
            if f.type in old and old[f.type]["status"] == f.status
            else moment,
        }
        for f in findings
    ]
