"""A cluster named `test` beside whatever demo is up, removed afterwards unless TALKTIME_KEEP_CLUSTER=1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.cluster import lifecycle
from hack.cluster.layout import binaries, cluster_named
from hack.demo import clusters, release
from hack.demo.kube import find
from tests.e2e.house import House

NAME = "test"


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Talktime as `make demo` installs it, with its examples, on two nodes of two SFUs."""
    kept = bool(os.environ.get("TALKTIME_KEEP_CLUSTER"))
    try:
        kube, images = clusters.local(NAME)
        release.install(kube, find(binaries(), "helm"), images)
        release.apply_examples(kube)
        release.open_account_again(kube, "demo", "limit")
        kube("--namespace", release.NAMESPACE, "scale", "sfu/eu", "--replicas=2")
        release.wait_ready(kube, "demo", "interviews", "limit")
        folder = Path(os.environ.get("TALKTIME_E2E_FOLDER", tmp_path_factory.mktemp("e2e")))
        yield House(cluster_named(NAME), kube, images, folder)
    finally:
        if not kept:
            lifecycle.down(cluster_named(NAME))
