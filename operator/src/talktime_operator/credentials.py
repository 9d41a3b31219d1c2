"""CredentialsValid of a Project: which Secret the kubelet misses, and what the providers said of the keys. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.wire import ProjectStatus, ProviderStatus

from talktime_operator.conditions import Finding, camel_case
from talktime_operator.names import Key
from talktime_operator.observed import Pod

RATE_LIMITED = "rate_limited"
# A 429 is about a minute's load. Only an answered response says that it is over, and none may be asked for. Nor may any
# other refusal outlive its agents for longer: with `minReplicas: 0` nobody starts before a participant comes, and a
# platform that waits for Ready would send none.
FORGOTTEN_AFTER = timedelta(minutes=5)

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
    "insufficient_quota": _Fault(
        "QuotaExhausted", "the account at the provider is out of quota or credit: top it up and restart the agents"
    ),
    RATE_LIMITED: _Fault(
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


def stands(report: ProviderStatus, live: Sequence[Pod], now: datetime) -> bool:
    """Whether a provider's refusal still says something of the keys that are there now.

    Keys are read when an agent starts: once every live pod has started after the refusal, nobody holds the key it was
    about. Without any pod time alone forgets it, as it does a 429; pods that have not started yet change nothing.
    """
    if report.since is None:
        return True
    if _forgotten_by_time(report, live) and now - report.since >= FORGOTTEN_AFTER:
        return False
    started = [pod.started for pod in live if pod.started is not None]
    return not started or min(started) <= report.since


def _forgotten_by_time(report: ProviderStatus, live: Sequence[Pod]) -> bool:
    return report.code == RATE_LIMITED or not live


def look_again(pods: Sequence[Pod], ledger: ProjectStatus | None, now: datetime) -> float:
    """Seconds until a refusal is forgotten by time alone, 0 = none is."""
    reports = ledger.providers if ledger is not None else ()
    live = [p for p in pods if p.live]
    passing = [r.since for r in reports if not r.ok and r.since is not None and _forgotten_by_time(r, live)]
    left = [(since + FORGOTTEN_AFTER - now).total_seconds() for since in passing]
    # A second later: the look must not come just before.
    return min((seconds + 1.0 for seconds in left if seconds > 0), default=0.0)


def credentials_valid(
    key: Key, spec: ProjectSpec, pods: Sequence[Pod], ledger: ProjectStatus | None, now: datetime
) -> Finding:
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
        if not report.ok and report.name in index and stands(report, live, now):
            fault = _FAULTS.get(
                report.code, _Fault(camel_case(report.code, "ProviderRefused"), "see the provider's message")
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
