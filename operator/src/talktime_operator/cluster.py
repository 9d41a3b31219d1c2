"""Read-only view over kopf's indices: complete before the first reconcile, looked up by key, never listed per tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.resources.rate_card import RateCardSpec

from talktime_operator.names import Key
from talktime_operator.observed import Child, Machine, Pod, Resource

Index = Mapping[Any, Iterable[Any]]
CHILD_KINDS: Mapping[str, tuple[str, str, str]] = {
    "Deployment": ("apps", "v1", "deployments"),
    "StatefulSet": ("apps", "v1", "statefulsets"),
    "Service": ("", "v1", "services"),
    "ServiceAccount": ("", "v1", "serviceaccounts"),
    "ConfigMap": ("", "v1", "configmaps"),
    "NetworkPolicy": ("networking.k8s.io", "v1", "networkpolicies"),
    "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
}
RELEASE_KINDS = frozenset({"StatefulSet", "Service"})
"""Kinds the operator makes, and may watch, only in the release namespace."""


@dataclass
class Cluster:
    """`indices` is set by the first handler that kopf calls, when every index is complete."""

    indices: Mapping[str, Index] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return bool(self.indices)

    def project(self, key: Key) -> Resource[ProjectSpec] | None:
        return cast("Resource[ProjectSpec] | None", self._one("projects", key))

    def pool(self, key: Key) -> Resource[SFUPoolSpec] | None:
        return cast("Resource[SFUPoolSpec] | None", self._one("pools", key))

    def card(self, key: Key) -> Resource[RateCardSpec] | None:
        return cast("Resource[RateCardSpec] | None", self._one("cards", key))

    def projects(self) -> list[Resource[ProjectSpec]]:
        return self._all("projects")

    def pools(self) -> list[Resource[SFUPoolSpec]]:
        return self._all("pools")

    def cards(self) -> list[Resource[RateCardSpec]]:
        return self._all("cards")

    def pods_of_project(self, key: Key) -> tuple[Pod, ...]:
        return tuple(self.indices.get("pods", {}).get(("project", *key), ()))

    def pods_of_pool(self, key: Key) -> tuple[Pod, ...]:
        return tuple(self.indices.get("pods", {}).get(("pool", *key), ()))

    def pods(self, scope: str) -> list[Pod]:
        """All pods of Projects (`project`) or of pools (`pool`)."""
        index = self.indices.get("pods", {})
        return [pod for entry in list(index) if entry[0] == scope for pod in index.get(entry, ())]

    def leaving_machines(self) -> frozenset[str]:
        """Kubernetes nodes that are cordoned or about to be taken away."""
        machines: list[Machine] = self._all("machines")
        return frozenset(m.name for m in machines if m.leaving)

    def machines_away(self) -> frozenset[str]:
        """Kubernetes nodes whose kubelet does not report."""
        machines: list[Machine] = self._all("machines")
        return frozenset(m.name for m in machines if m.away)

    def nodes_of_pool(self, key: Key) -> tuple[Child, ...]:
        """The StatefulSets of a pool, one per SFU node."""
        sets = self.children("StatefulSet")
        return tuple(c for c in sets if (c.key.namespace, c.pool) == key and not c.deleting)

    def child(self, kind: str, key: Key) -> Child | None:
        return cast("Child | None", self._one(f"child_{kind}", key))

    def children(self, kind: str) -> list[Child]:
        return self._all(f"child_{kind}")

    def _one(self, index: str, key: Any) -> Any:
        return next(iter(self.indices.get(index, {}).get(tuple(key), ())), None)

    def _all(self, index: str) -> list[Any]:
        entries = self.indices.get(index, {})
        return [item for entry in list(entries) for item in entries.get(entry, ())]
