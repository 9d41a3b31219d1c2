"""Events: one per transition of a condition, so that `kubectl describe` tells the story and nothing is spammed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from talktime_operator.names import MANAGER, Manifest, Owner

GOOD_WHEN_FALSE = frozenset({"Paused", "PortClash", "OnFallback"})
TOLD_APART = frozenset({"Draining"})
"""Conditions whose story is told by events of their own: one per node that begins and ends."""


@dataclass(frozen=True)
class Transition:
    """A condition that changed its status or, while not good, its reason."""

    type: str
    reason: str
    message: str
    warning: bool


def transitions(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[Transition]:
    """First sight of a good or unknown condition is no news."""
    old = {c["type"]: c for c in before}
    out = []
    for c in after:
        if c["type"] in TOLD_APART:
            continue
        good = (c["status"] == "True") != (c["type"] in GOOD_WHEN_FALSE)
        previous = old.get(c["type"])
        if previous is None:
            changed = not good and c["status"] != "Unknown"
        else:
            changed = previous["status"] != c["status"] or (not good and previous["reason"] != c["reason"])
        if changed and c["status"] != "Unknown":
            text = c["message"] or f"{c['type']} is {c['status']}"
            out.append(Transition(c["type"], c["reason"], text, warning=not good))
    return out


def build_event(owner: Owner, namespace: str, transition: Transition, now: datetime, unique: str) -> Manifest:
    """A core/v1 Event; cluster-wide objects report into `default`, as the API server demands."""
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    where = namespace or "default"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{owner.name}.{unique}", "namespace": where},
        "involvedObject": {
            "apiVersion": owner.api_version,
            "kind": owner.kind,
            "name": owner.name,
            "uid": owner.uid,
            **({"namespace": namespace} if namespace else {}),
        },
        "type": "Warning" if transition.warning else "Normal",
        "reason": transition.reason,
        "message": f"{transition.type}: {transition.message}"[:1024],
        "source": {"component": MANAGER},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
