"""The cluster that the demo runs on: our own, one by kind, or the current one. After this the path is the same."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hack.cluster import lifecycle
from hack.cluster.layout import DEFAULT_NAME, binaries, cluster_named, state_root
from hack.demo import release
from hack.demo.kube import Kube, find
from hack.demo.release import Images
from hack.images import builder, catalogue, loading
from hack.images.__main__ import docker_answers, kind_load

KIND_NODES = """kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}, {role: worker}]
"""
KIND_NAME = "talktime"


def obstacle(kind_of_cluster: str) -> str | None:
    """Why this kind of cluster cannot be had here, asked before anything is changed."""
    if kind_of_cluster == "kind" and not docker_answers():
        return "CLUSTER=kind needs Docker, and no Docker daemon answers. Fix: start Docker, or use CLUSTER=local (root)"
    if kind_of_cluster == "current" and not os.environ.get("REGISTRY"):
        fix = "make images REGISTRY=..., then make demo CLUSTER=current REGISTRY=..."
        return f"CLUSTER=current needs images that its nodes can pull. Fix: {fix}"
    return None


def local(name: str = DEFAULT_NAME) -> tuple[Kube, Images]:
    """Our own cluster, running and holding all images."""
    cluster = cluster_named(name)
    shop, tag = builder.Workshop(state_root(), binaries()), catalogue.product_tag()
    lifecycle.up(cluster, partial(loading.furnish, shop))
    loading.load(shop, cluster, catalogue.all_images(tag))
    return Kube(find(binaries(), "kubectl"), cluster.kubeconfig), Images(tag)


def by_kind() -> tuple[Kube, Images]:
    """Creates the kind cluster unless it is there; its kubeconfig stays in the state folder."""
    kubeconfig = kind_state() / "kubeconfig"
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    kind = find(binaries(), "kind")
    known = subprocess.run([kind, "get", "clusters"], capture_output=True, text=True, check=True).stdout.split()
    subprocess.run([kind, *kind_verb(known, kubeconfig)], input=KIND_NODES, text=True, check=True)
    tag = catalogue.product_tag()
    kind_load(KIND_NAME, builder.Workshop(state_root(), binaries()), tag)
    return Kube(find(binaries(), "kubectl"), kubeconfig), Images(tag)


def kind_state() -> Path:
    return state_root() / "kind"


def kind_verb(known: Sequence[str], kubeconfig: Path) -> list[str]:
    """What makes the cluster, or its kubeconfig: a cluster outlives our state folder, and Docker gives it new ports."""
    target = ["--name", KIND_NAME, "--kubeconfig", str(kubeconfig)]
    return ["export", "kubeconfig", *target] if KIND_NAME in known else ["create", "cluster", "--config=-", *target]


def current() -> tuple[Kube, Images]:
    """The cluster of the current context, with images that `make images REGISTRY=...` pushed.

    Raises RuntimeError when somebody else's Talktime is there.
    """
    kube = of_context()
    if release.released(kube) and not release.claimed(kube, release.NAMESPACE):
        raise RuntimeError(
            f"namespace {release.NAMESPACE} of this cluster has a Talktime that the demo did not install;"
            " it was left as it is. Fix: another cluster, or remove it first (docs/operations.md, Uninstall)"
        )
    return kube, Images(catalogue.product_tag(), os.environ["REGISTRY"].rstrip("/"))


def of_context() -> Kube:
    chosen = os.environ.get("KUBECONFIG")
    return Kube(find(binaries(), "kubectl"), Path(chosen) if chosen and ":" not in chosen else None)
