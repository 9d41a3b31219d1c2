"""Writes to the API server, and only those that change something."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from talktime_operator import events
from talktime_operator.cluster import Cluster
from talktime_operator.kube import Kube, digest
from talktime_operator.metrics import child_writes_total, status_writes_total
from talktime_operator.names import Key, Manifest, Owner
from talktime_operator.observed import identity
from talktime_operator.status import write_after


class Applier:
    """Remembers its own last writes, because an index learns of them a moment later."""

    def __init__(
        self, kube: Kube, cluster: Cluster, amounts_interval: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube = kube
        self._cluster = cluster
        self._interval = amounts_interval
        self._clock = clock
        self._applied: dict[tuple[str, Key], tuple[str, int]] = {}
        self._statuses: dict[str, tuple[dict[str, Any], float]] = {}

    def forget_child(self, kind: str, key: Key) -> None:
        """A child was deleted by someone: it has to be applied again."""
        self._applied.pop((kind, key), None)

    def forget_object(self, uid: str) -> None:
        """A Project, pool or card is gone."""
        self._statuses.pop(uid, None)

    async def apply_children(self, manifests: Iterable[Manifest]) -> int:
        """In the given order; returns how many were written."""
        written = 0
        for manifest in manifests:
            if self._needs(manifest):
                answer = await self._kube.apply(manifest)
                generation = answer["metadata"].get("generation", 0)
                self._applied[identity(manifest)] = (digest(manifest), generation)
                child_writes_total.labels(manifest["kind"]).inc()
                written += 1
        return written

    def _needs(self, manifest: Manifest) -> bool:
        kind, key = identity(manifest)
        wanted = digest(manifest)
        mine = self._applied.get((kind, key))
        child = self._cluster.child(kind, key)
        if mine is not None and mine[0] != wanted:
            return True
        if child is None or child.deleting:
            return mine is None
        if child.digest != wanted:
            return mine is None
        # The index is up to date; has someone edited it since?
        if mine is not None and child.generation > mine[1]:
            return True
        return kind == "ConfigMap" and dict(child.data) != manifest["data"]

    def status(self, uid: str, observed: Mapping[str, Any]) -> dict[str, Any]:
        """The status as it is now: our last write, else what was observed."""
        mine = self._statuses.get(uid)
        return mine[0] if mine is not None else dict(observed)

    async def write_status(self, owner: Owner, key: Key, before: Mapping[str, Any], wanted: dict[str, Any]) -> float:
        """At most one write; returns seconds until the rest is due, 0 when nothing is left."""
        mine = self._statuses.get(owner.uid)
        since = self._clock() - mine[1] if mine is not None else self._interval
        after = write_after(before, wanted, since, self._interval)
        if after is None:
            return 0.0
        if after > 0:
            return after
        await self._kube.write_status(owner.kind, key, wanted)
        self._statuses[owner.uid] = (wanted, self._clock())
        status_writes_total.labels(owner.kind).inc()
        for transition in events.transitions(before.get("conditions") or (), wanted["conditions"]):
            event = events.build_event(owner, key.namespace, transition, datetime.now(UTC), uuid.uuid4().hex[:12])
            await self._kube.create(event)
        return 0.0
