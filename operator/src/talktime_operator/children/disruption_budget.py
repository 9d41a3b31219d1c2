"""PodDisruptionBudget of agents and of SFU nodes: a node drain asks one pod after the other, each drains by itself."""

from __future__ import annotations

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner


def build_disruption_budget(key: Key, owner: Owner, labels: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": names.metadata(key, labels, owner),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
    }
