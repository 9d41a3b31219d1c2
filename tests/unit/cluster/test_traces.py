"""`make down` tells what it could not remove, though the records of the processes go with the cluster's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.cluster import cgroups, lifecycle, network
from hack.cluster.layout import Cluster
from hack.cluster.processes import Record, alive, spawn, stop


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster of a folder and one process: nothing of the machine's networks and cgroups."""
    monkeypatch.setattr(cgroups, "controllers", lambda: [tmp_path / "cgroup"])
    monkeypatch.setattr(network, "NAMESPACES", tmp_path / "netns")
    return Cluster("unit", tmp_path / "cluster", tmp_path)


@pytest.fixture
def process(cluster: Cluster) -> Iterator[Record]:
    record = spawn(cluster.processes, "etcd", ["sleep", "600"], cluster.logs / "etcd.log")
    yield record
    stop([record], grace=0.0)


def test_down_ends_the_processes_and_leaves_nothing(cluster: Cluster, process: Record) -> None:
    lifecycle.down(cluster)
    assert not alive(process)
    assert not cluster.state.exists()


def test_a_process_that_does_not_end_is_named(
    cluster: Cluster, process: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "stop", lambda records, grace: None)
    with pytest.raises(RuntimeError, match=rf"process etcd \({process.pid}\)"):
        lifecycle.down(cluster)
