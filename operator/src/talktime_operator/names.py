"""Names, labels and owners of what the operator makes. Names of Projects and pools hold at most 40 characters (CRD)."""

from __future__ import annotations

from typing import Any, NamedTuple

MANAGER = "talktime-operator"
MANAGED_BY = {"app.kubernetes.io/managed-by": "talktime"}
SELECTOR = "app.kubernetes.io/managed-by=talktime"
PROJECT_LABEL = "talktime.dev/project"
POOL_LABEL = "talktime.dev/pool"
COMPONENT_LABEL = "app.kubernetes.io/component"
PAUSED_ANNOTATION = "talktime.dev/paused"
HASH_ANNOTATION = "talktime.dev/applied"
NODE_LABEL = "talktime.dev/node"
"""On an SFU pod: the StatefulSet of that node."""
DRAINED_LABEL = "talktime.dev/drained"
"""On an SFU pod whose drain has ended: the pool's PodDisruptionBudget holds it no longer."""
OPEN_LABEL, OPEN = "talktime.dev/signal", "open"
"""On an SFU pod that does not drain: the pool's Service leads new signal connections there. Any node may carry those of
any node's room, so one that is to go must get no more of them."""
DRAIN_ANNOTATION = "talktime.dev/drain"
"""On an SFU pod that drains: since when and why (pools/drain.py, Mark)."""
TEMPLATE_ANNOTATION = "talktime.dev/template"
"""On an SFU pod: the fingerprint of the template it was made from."""
RING_ANNOTATION = "talktime.dev/keys"
"""On an SFU pod: the fingerprint of the LiveKit keys it was started with (pools/rotation.py)."""
SECRETS_ANNOTATION = "talktime.dev/secrets"
"""On an SFU pod: the fingerprint of the SRE's Secrets it was started with (pools/pool_secrets.py)."""
SFU_CONTAINER = "livekit"
"""Of an SFU pod: the container of its livekit-server."""
ROTATE_ANNOTATION = "talktime.dev/rotate-keys"
"""On an SFUPool, by an SRE: another value asks for other LiveKit keys."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

Manifest = dict[str, Any]


class Key(NamedTuple):
    """An object by namespace and name; cluster-wide ones have the empty namespace."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Owner(NamedTuple):
    """Who the cluster's garbage collector counts as the parent."""

    api_version: str
    kind: str
    name: str
    uid: str

    def reference(self) -> Manifest:
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }


def agent(project: str) -> str:
    """Deployment, ServiceAccount, NetworkPolicy and PodDisruptionBudget of a Project's agents."""
    return f"talktime-agent-{project}"


def record(project: str) -> str:
    """ConfigMap in which the operator remembers what it may not read back."""
    return f"{project}-talktime"


def access_secret(project: str) -> str:
    return f"{project}-access"


def sfu(pool: str) -> str:
    return f"sfu-{pool}"


def sfu_node(pool: str, number: int) -> str:
    """StatefulSet of one SFU node; its pod is the same with `-0`."""
    return f"sfu-{pool}-{number}"


def agent_labels(project: str) -> dict[str, str]:
    return {**MANAGED_BY, COMPONENT_LABEL: "agent", PROJECT_LABEL: project}


def pool_labels(pool: str, component: str = "sfu") -> dict[str, str]:
    return {**MANAGED_BY, COMPONENT_LABEL: component, POOL_LABEL: pool}


def metadata(key: Key, labels: dict[str, str], owner: Owner | None) -> Manifest:
    out: Manifest = {"name": key.name, "namespace": key.namespace, "labels": labels}
    if owner is not None:
        out["ownerReferences"] = [owner.reference()]
    return out
