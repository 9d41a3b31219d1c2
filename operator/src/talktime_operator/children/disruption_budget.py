"""PodDisruptionBudgets: agents go one after the other and drain by themselves; SFU nodes go when they are drained."""

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


def build_sfu_disruption_budget(pool: Key, owner: Owner) -> Manifest:
    """Holds every SFU pod until the operator labels it as drained; `kubectl drain` asks again until then."""
    labels = names.pool_labels(pool.name)
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": names.metadata(Key(pool.namespace, names.sfu(pool.name)), labels, owner),
        "spec": {
            "maxUnavailable": 0,
            "selector": {
                "matchLabels": labels,
                "matchExpressions": [{"key": names.DRAINED_LABEL, "operator": "DoesNotExist"}],
            },
        },
    }
