"""What kopf calls: indices, and thin handlers that only say which object to look at again.

No change-handlers, no timers, no finalizers: level-triggered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import kopf
from talktime_ledger.resources.kinds import GROUP, KINDS, PROJECT, RATE_CARD, SFU_POOL, VERSION
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.resources.schema import Kind

from talktime_operator.cluster import CHILD_KINDS, Cluster
from talktime_operator.names import POOL_LABEL, PROJECT_LABEL, SELECTOR, Key
from talktime_operator.observed import Child, Machine, Pod, Resource


class Item(NamedTuple):
    """One object in the work queue."""

    kind: Literal["project", "pool", "card"]
    key: Key

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


Enqueue = Callable[[Item], None]
Forget = Callable[[str, Key], None]
OWN: tuple[tuple[Kind, Literal["project", "pool", "card"], str, Any], ...] = (
    (PROJECT, "project", "projects", ProjectSpec),
    (SFU_POOL, "pool", "pools", SFUPoolSpec),
    (RATE_CARD, "card", "cards", RateCardSpec),
)


def configure(settings: kopf.OperatorSettings) -> None:
    """kopf's own settings. `queueing.worker_limit` stays None: below the number of objects it deadlocks indices."""
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 360
    for group, version, plural in (*CHILD_KINDS.values(), ("", "v1", "pods")):
        settings.watching.label_selectors[group, version, plural] = SELECTOR


def parent(labels: Mapping[str, str], namespace: str) -> Item | None:
    """The object a child or pod belongs to, by its labels."""
    if PROJECT_LABEL in labels:
        return Item("project", Key(namespace, labels[PROJECT_LABEL]))
    if POOL_LABEL in labels:
        return Item("pool", Key(namespace, labels[POOL_LABEL]))
    return None


def build_registry(cluster: Cluster, enqueue: Enqueue, forget_child: Forget) -> kopf.OperatorRegistry:
    """Indices and event handlers of all kinds."""
    registry = kopf.OperatorRegistry()
    for kind, item, index, model in OWN:
        _own(registry, cluster, enqueue, kind, item, index, model)
    for name, resource in CHILD_KINDS.items():
        _child(registry, cluster, enqueue, forget_child, name, resource)
    _pods(registry, cluster, enqueue)
    _machines(registry, cluster, enqueue)
    return registry


def _own(
    registry: kopf.OperatorRegistry,
    cluster: Cluster,
    enqueue: Enqueue,
    kind: Kind,
    item: Literal["project", "pool", "card"],
    index: str,
    model: Any,
) -> None:
    @kopf.index(GROUP, VERSION, kind.plural, id=index, registry=registry)
    async def remember(body: kopf.Body, **_: Any) -> Any:
        resource = Resource.parse(body, model)
        return {tuple(resource.key): resource}

    @kopf.on.event(GROUP, VERSION, kind.plural, id=f"{index}_changed", registry=registry)
    async def changed(namespace: str | None, name: str, **kwargs: Any) -> None:
        _bind(cluster, kwargs)
        enqueue(Item(item, Key(namespace or "", name)))


def _child(
    registry: kopf.OperatorRegistry,
    cluster: Cluster,
    enqueue: Enqueue,
    forget_child: Forget,
    kind: str,
    resource: tuple[str, str, str],
) -> None:
    index = f"child_{kind}"

    @kopf.index(*resource, id=index, registry=registry)
    async def remember(body: kopf.Body, **_: Any) -> Any:
        child = Child.parse(kind, body)
        return {tuple(child.key): child}

    @kopf.on.event(*resource, id=f"{index}_changed", registry=registry)
    async def changed(namespace: str | None, name: str, labels: Mapping[str, str], **kwargs: Any) -> None:
        _bind(cluster, kwargs)
        if kwargs["type"] == "DELETED":
            forget_child(kind, Key(namespace or "", name))
        if (item := parent(labels, namespace or "")) is not None:
            enqueue(item)


def _pods(registry: kopf.OperatorRegistry, cluster: Cluster, enqueue: Enqueue) -> None:
    @kopf.index("", "v1", "pods", id="pods", registry=registry)
    async def remember(body: kopf.Body, labels: Mapping[str, str], namespace: str | None, **_: Any) -> Any:
        item = parent(labels, namespace or "")
        return {} if item is None else {(item.kind, *item.key): Pod.parse(body)}

    @kopf.on.event("", "v1", "pods", id="pods_changed", registry=registry)
    async def changed(namespace: str | None, labels: Mapping[str, str], **kwargs: Any) -> None:
        _bind(cluster, kwargs)
        if (item := parent(labels, namespace or "")) is not None:
            enqueue(item)


def _machines(registry: kopf.OperatorRegistry, cluster: Cluster, enqueue: Enqueue) -> None:
    @kopf.index("", "v1", "nodes", id="machines", registry=registry)
    async def remember(body: kopf.Body, **_: Any) -> Any:
        machine = Machine.parse(body)
        return {machine.name: machine}

    @kopf.on.event("", "v1", "nodes", id="machines_changed", registry=registry)
    async def changed(name: str, **kwargs: Any) -> None:
        _bind(cluster, kwargs)
        for pod in cluster.pods("pool"):
            if pod.node == name:
                enqueue(Item("pool", Key(pod.key.namespace, pod.pool)))


def _bind(cluster: Cluster, kwargs: Mapping[str, Any]) -> None:
    """kopf hands the indices to handlers only, and calls handlers only when every index is complete."""
    if not cluster.complete:
        wanted = ["pods", "machines", *(index for _, _, index, _ in OWN), *(f"child_{kind}" for kind in CHILD_KINDS)]
        cluster.indices = {name: kwargs[name] for name in wanted}


__all__ = ["KINDS", "Item", "build_registry", "configure", "parent"]
