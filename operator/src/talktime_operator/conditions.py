"""Conditions of a Project: pure rules. Each gives a reason and a sentence that names the field and the fix.

No amount of money stands in a message, so that spending does not rewrite conditions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from talktime_ledger.resources.project import Api, ProjectSpec
from talktime_ledger.wire import BudgetState, ProjectStatus

from talktime_operator.names import PAUSED_ANNOTATION, Key, Manifest
from talktime_operator.observed import Pod

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
            f"no new sessions: remove the annotation {PAUSED_ANNOTATION} to resume",
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
    return Finding("BudgetFeasible", "False", _reason(feasible.reason, "NotFeasible"), feasible.message)


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


_NO_SECRET = re.compile(r'secret "(?P<name>[^"]+)" not found')
_NO_KEY = re.compile(r"couldn't find key (?P<key>\S+) in Secret (?:[^/\s]+/)?(?P<name>\S+)")


def missing_secret(pods: Sequence[Pod]) -> tuple[str, str | None] | None:
    """(Secret, key or None) that the kubelet says is missing, from a container that cannot be configured."""
    for pod in pods:
        for reason, message in pod.waiting:
            if reason == "CreateContainerConfigError":
                if match := _NO_SECRET.search(message):
                    return match["name"], None
                if match := _NO_KEY.search(message):
                    return match["name"], match["key"]
    return None


class _Fault(NamedTuple):
    """What a provider report's code means: the condition's reason, the fix, the field and what happened there."""

    reason: str
    fix: str
    field: str = "secretRef"
    what: str = "refused"


_FAULTS = {
    "invalid_api_key": _Fault("InvalidApiKey", "put a valid key into the Secret and restart the agents"),
    "insufficient_quota": _Fault("QuotaExhausted", "the account at the provider is out of quota or credit: top it up"),
    "rate_limited": _Fault(
        "RateLimited", "the provider answers 429: raise the account's limits or lower agent.maxReplicas"
    ),
    "tls_untrusted": _Fault(
        "TlsUntrusted",
        "agents trust their image's CAs or the chart's children.caBundle: put the CA of this server, or of the proxy"
        " that re-signs its TLS, into children.caBundle (helm upgrade --set-file children.caBundle=...)",
        field="endpoint",
        what="showed a certificate that is not trusted",
    ),
}


def credentials_valid(key: Key, spec: ProjectSpec, pods: Sequence[Pod], ledger: ProjectStatus | None) -> Finding:
    kind = "CredentialsValid"
    live = [p for p in pods if p.live]
    if (missing := missing_secret(live)) is not None:
        name, entry = missing
        for i, provider in enumerate(spec.providers):
            ref = provider.secret_ref
            if ref.name == name and entry in (None, ref.key):
                if entry is None:
                    fix = f"create it with the key {ref.key!r}"
                    return Finding(
                        kind,
                        "False",
                        "SecretNotFound",
                        f"spec.providers[{i}].secretRef.name: no Secret {name!r} in namespace {key.namespace!r}; {fix}",
                    )
                return Finding(
                    kind,
                    "False",
                    "SecretKeyNotFound",
                    f"spec.providers[{i}].secretRef.key: Secret {name!r} has no key {entry!r}; add it or name another",
                )
    index = {p.name: i for i, p in enumerate(spec.providers)}
    for report in ledger.providers if ledger is not None else ():
        if not report.ok and report.name in index:
            fault = _FAULTS.get(
                report.code, _Fault(_reason(report.code, "ProviderRefused"), "see the provider's message")
            )
            said = f" ({report.message})" if report.message else ""
            i = index[report.name]
            text = f"spec.providers[{i}].{fault.field}: {report.name} {fault.what}{said}; {fault.fix}"
            return Finding(kind, "False", fault.reason, text[:1900])
    if ledger is not None and any(r.ok and r.name in index for r in ledger.providers):
        return Finding(kind, "True", "ProviderAccepted")
    if any(p.ready for p in live):
        return Finding(kind, "True", "KeysPresent", "every key is there; a provider has not answered with them yet")
    return Finding(kind, "Unknown", "NoAgentYet", "no agent has started with these keys yet")


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


def _reason(text: str, default: str) -> str:
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
