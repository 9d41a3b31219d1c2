"""NetworkPolicy of a Project's agents: nobody connects to them but the operator and whoever scrapes metrics."""

from __future__ import annotations

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner

from .agent_deployment import METRICS_PORT, WORKER_PORT


def build_agent_network_policy(
    key: Key, owner: Owner, release_namespace: str, labels: dict[str, str] | None = None
) -> Manifest:
    """Ingress only. Egress stays open: providers, LiveKit's UDP and the ledger have no addresses known here."""
    labels = labels or names.agent_labels(key.name)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": names.metadata(Key(key.namespace, names.agent(key.name)), labels, owner),
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [
                        {
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": release_namespace}},
                            "podSelector": {"matchLabels": {"app.kubernetes.io/component": "operator"}},
                        }
                    ],
                    "ports": [{"protocol": "TCP", "port": WORKER_PORT}],
                },
                {"ports": [{"protocol": "TCP", "port": METRICS_PORT}]},
            ],
        },
    }
