"""The cluster that the demo runs on: our own, one by kind, or the current one. After this the path is the same."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

from hack.cluster import lifecycle
from hack.cluster.layout import DEFAULT_NAME, binaries, cluster_named, state_root
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
    state = state_root() / "kind"
    state.mkdir(parents=True, exist_ok=True)
    kubeconfig = state / "kubeconfig"
    kind = find(binaries(), "kind")
    known = subprocess.run([kind, "get", "clusters"], capture_output=True, text=True, check=True).stdout.split()
    if KIND_NAME not in known:
        create = [kind, "create", "cluster", "--name", KIND_NAME, "--config=-", "--kubeconfig", str(kubeconfig)]
        subprocess.run(create, input=KIND_NODES, text=True, check=True)
    tag = catalogue.product_tag()
    kind_load(KIND_NAME, builder.Workshop(state_root(), binaries()), tag)
    return Kube(find(binaries(), "kubectl"), kubeconfig), Images(tag)


def current() -> tuple[Kube, Images]:
    """The cluster of the current context, with images that `make images REGISTRY=...` pushed."""
    chosen = os.environ.get("KUBECONFIG")
    kubeconfig = Path(chosen) if chosen and ":" not in chosen else None
    return Kube(find(binaries(), "kubectl"), kubeconfig), Images(
        catalogue.product_tag(), os.environ["REGISTRY"].rstrip("/")
    )
