"""A cluster named `test` beside whatever demo is up, removed afterwards unless TALKTIME_KEEP_CLUSTER=1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.chaos import projects
from hack.cluster import lifecycle
from hack.cluster.layout import cluster_named
from hack.demo import clusters, release
from tests.e2e.house import House

NAME = "test"
HERE = Path(__file__).parent
VALUES = (release.VALUES, HERE.parents[1] / "hack" / "chaos" / "values.yaml", HERE / "values.yaml")
FIRST, LAST = "test_interviews.py", "test_crashes.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The journey that wants every meter of every conversation above zero comes first, the destructive one last."""
    order = {FIRST: 0, LAST: 2}
    ours = [item for item in items if item.path.parent == HERE]
    places = [index for index, item in enumerate(items) if item.path.parent == HERE]
    ranked = sorted(ours, key=lambda item: order.get(item.path.name, 1))
    for place, item in zip(places, ranked, strict=True):
        items[place] = item


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Talktime as `make demo` installs it, with its examples, on two nodes of two SFUs."""
    kept = bool(os.environ.get("TALKTIME_KEEP_CLUSTER"))
    try:
        kube, images = clusters.local(NAME)
        folder = Path(os.environ.get("TALKTIME_E2E_FOLDER", tmp_path_factory.mktemp("e2e")))
        here = House(cluster_named(NAME), kube, images, folder, VALUES)
        here.install()
        release.apply_examples(kube)
        release.open_account_again(kube, "demo", "limit")
        kube("--namespace", release.NAMESPACE, "scale", "sfu/eu", "--replicas=2")
        # Projects are Ready with one: the first interviews would all be placed there.
        projects.sfu_ready(here)
        release.wait_ready(kube, "demo", "interviews", "limit")
        yield here
    finally:
        if not kept:
            lifecycle.down(cluster_named(NAME))
