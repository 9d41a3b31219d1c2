"""Writes only what changed: the guard in front of the API server."""

from __future__ import annotations

from typing import Any

import pytest
from talktime_operator.applier import Applier
from talktime_operator.cluster import Cluster
from talktime_operator.kube import digest
from talktime_operator.names import Key, Manifest, Owner
from talktime_operator.observed import Child


class FakeKube:
    def __init__(self) -> None:
        self.applied: list[Manifest] = []
        self.statuses: list[dict[str, Any]] = []
        self.created: list[Manifest] = []

    async def apply(self, manifest: Manifest) -> dict[str, Any]:
        self.applied.append(manifest)
        return {"metadata": {"generation": len(self.applied)}}

    async def write_status(self, kind: str, key: Key, status: dict[str, Any]) -> None:
        self.statuses.append(status)

    async def create(self, manifest: Manifest) -> bool:
        self.created.append(manifest)
        return True


MANIFEST: Manifest = {"kind": "ConfigMap", "metadata": {"namespace": "team", "name": "c"}, "data": {"a": "1"}}
KEY = Key("team", "c")


def child(manifest: Manifest, generation: int = 1, data: dict[str, str] | None = None) -> Child:
    known = manifest["data"] if data is None else data
    return Child("ConfigMap", KEY, "", "", "", digest(manifest), generation, None, 0, known, False)


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def applier(kube: FakeKube, cluster: Cluster) -> Applier:
    return Applier(kube, cluster, amounts_interval=15, clock=lambda: 0.0)  # type: ignore[arg-type]


def seen(cluster: Cluster, *children: Child) -> None:
    cluster.indices = {"child_ConfigMap": {tuple(c.key): [c] for c in children}}


async def test_a_child_is_applied_once_although_the_index_lags(applier: Applier, kube: FakeKube) -> None:
    assert await applier.apply_children([MANIFEST]) == 1
    assert await applier.apply_children([MANIFEST]) == 0


async def test_a_restarted_operator_applies_nothing_that_is_there(applier: Applier, cluster: Cluster) -> None:
    seen(cluster, child(MANIFEST))
    assert await applier.apply_children([MANIFEST]) == 0


async def test_changes_deletions_and_edits_by_others_are_repaired(
    applier: Applier, kube: FakeKube, cluster: Cluster
) -> None:
    await applier.apply_children([MANIFEST])
    changed = {**MANIFEST, "data": {"a": "2"}}
    assert await applier.apply_children([changed]) == 1
    seen(cluster, child(changed, generation=9))
    assert await applier.apply_children([changed]) == 1
    seen(cluster, child(changed, generation=1, data={"a": "edited"}))
    assert await applier.apply_children([changed]) == 1
    seen(cluster)
    applier.forget_child("ConfigMap", KEY)
    assert await applier.apply_children([changed]) == 1


async def test_one_status_write_and_one_event_per_transition(applier: Applier, kube: FakeKube) -> None:
    owner = Owner("talktime.dev/v1alpha1", "Project", "study", "u")
    bad = {"conditions": [{"type": "Ready", "status": "False", "reason": "X", "message": "fix it"}]}
    assert await applier.write_status(owner, KEY, {}, bad) == 0
    assert await applier.write_status(owner, KEY, applier.status("u", {}), bad) == 0
    assert kube.statuses == [bad]
    assert [e["reason"] for e in kube.created] == ["X"]
