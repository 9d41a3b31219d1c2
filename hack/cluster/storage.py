"""The default StorageClass: a few folders of each node as local volumes, so that claims bind without a provisioner."""

from __future__ import annotations

import json
from typing import Any

from hack.cluster.layout import Cluster, Node

CLASS = "local"
VOLUMES_PER_NODE = 2
FOLDER = "talktime-volumes"


def create_folders(node: Node) -> None:
    for number in range(1, VOLUMES_PER_NODE + 1):
        (node.state / "lib" / FOLDER / str(number)).mkdir(parents=True, exist_ok=True)


def manifests(cluster: Cluster) -> str:
    """The class and its volumes as one List for `kubectl apply`."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        # A pod decides which node's volume its claim gets.
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    volumes = [volume(node, number) for node in cluster.nodes for number in range(1, VOLUMES_PER_NODE + 1)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [storage_class, *volumes]})


def volume(node: Node, number: int) -> dict[str, Any]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{node.name}-{number}"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": f"/var/lib/{FOLDER}/{number}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
