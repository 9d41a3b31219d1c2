"""Talktime on a cluster of its own: a pool of two SFU nodes, one per machine; all else lives at HOME."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.failovers.stand import VALUES, pool_status
from hack.chaos.house import House, eventually
from hack.chaos.interviews import Tell
from hack.chaos.projects import apply, closed, project, secret
from hack.cluster.layout import cluster_named, state_root
from hack.demo import clusters, release
from hack.demo.release import EXAMPLES
from hack.demo.release import NAMESPACE as RELEASE

NAMESPACE, STUDY, POOL = "drains", "study", "eu"
HOME, AWAY = "node-1", "node-2"
"""AWAY holds an SFU node and nothing else: it is the machine that `kubectl drain` takes out."""
SESSIONS = 6
"""Guests and newcomers of a round, and those of the one before who are just leaving."""
NODES = 2
DEADLINE = "2h"
"""Of a drain: what a pool has that names none. No round but those of deadline.py comes near it."""
AGREED_SECONDS = 4.0
"""What the front doors may take to learn of a node: its push to the ledger, and their look at it every 2 s."""


@dataclass(frozen=True)
class Pod:
    """One SFU pod, by the machine it is on."""

    name: str
    uid: str
    machine: str


def built(name: str, tell: Tell) -> House:
    """The cluster with everything Ready. Raises RuntimeError or AssertionError with what is not."""
    kube, images = clusters.local(name)
    folder = state_root() / "drains"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    house = House(cluster_named(name), kube, images, folder, VALUES)
    with closed(house, AWAY):
        bring_dns_home(house)
        tell("installing Talktime")
        house.install()
        kube("apply", "--server-side", "--force-conflicts", "-f", str(EXAMPLES / "rate-cards"))
        apply(house, pool(1, ""))
        door = eventually("the pool has its Service", lambda: service(house), 60)
        # What a load balancer before all nodes is outside: guests come to any of them, whatever their room's node is.
        apply(house, pool(1, f"ws://{door}:7880"))
        apply(house, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, secret(NAMESPACE))
        apply(house, project(NAMESPACE, STUDY, sessions=SESSIONS))
        release.wait_ready(kube, NAMESPACE, STUDY)
    scale(house, NODES)
    both_take_rooms(house)
    return house


def pool(replicas: int, url: str) -> dict[str, Any]:
    network = {"publicURL": url} if url else {}
    return {
        "apiVersion": "talktime.dev/v1alpha1",
        "kind": "SFUPool",
        "metadata": {"name": POOL, "namespace": RELEASE},
        "spec": {
            "replicas": replicas,
            "autoscaling": {"sessionsPerNode": 100},
            "network": network,
        },
    }


def bring_dns_home(house: House) -> None:
    """`kubectl drain` of AWAY shall concern the SFU alone."""
    pods = house.kube.json("-n", "kube-system", "get", "pods")["items"]
    for pod in (pod for pod in pods if pod["spec"].get("nodeName") == AWAY):
        house.kube("-n", "kube-system", "delete", "pod", pod["metadata"]["name"])
    house.kube("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")


def service(house: House) -> str | None:
    """The address of the pool's Service; None while there is none."""
    found = house.kube("-n", RELEASE, "get", "service", f"sfu-{POOL}", "--ignore-not-found", "-o=json")
    return str(json.loads(found)["spec"]["clusterIP"]) if found.strip() else None


def scale(house: House, nodes: int) -> None:
    house.kube("-n", RELEASE, "scale", f"sfupool/{POOL}", f"--replicas={nodes}")


def set_deadline(house: House, deadline: str) -> None:
    """Of the pool's drains; no reason to drain by itself."""
    change = json.dumps({"spec": {"drain": {"deadline": deadline}}})
    house.kube("-n", RELEASE, "patch", "sfupool", POOL, "--type=merge", "--patch", change)


def pods(house: House) -> dict[str, Pod]:
    """The pool's SFU pods by name, those that are ending too."""
    found = house.kube.json("-n", RELEASE, "get", "pods", "-l=app.kubernetes.io/component=sfu")["items"]
    return {
        one["metadata"]["name"]: Pod(
            one["metadata"]["name"], one["metadata"]["uid"], str(one["spec"].get("nodeName", ""))
        )
        for one in found
    }


def nodes(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """`status.nodes` by pod name."""
    return {one["name"]: one for one in status.get("nodes", [])}


def ready(status: dict[str, Any]) -> list[str]:
    """Nodes that take new rooms."""
    return [name for name, one in nodes(status).items() if one["state"] == "Ready"]


def renewed(house: House, status: dict[str, Any], before: dict[str, Pod]) -> int:
    """How many nodes take rooms that were not there before; a name may come again."""
    old = {one.uid for one in before.values()}
    now = pods(house)
    return sum(name in now and now[name].uid not in old for name in ready(status))


def both_take_rooms(house: House, seconds: float = 120) -> float:
    """Until exactly two nodes are there, both Ready, and front doors know it; when they were, unix seconds."""

    def both() -> float | None:
        status = pool_status(house)
        return time.time() if len(nodes(status)) == NODES == len(ready(status)) else None

    at = eventually("two nodes take rooms", both, seconds, every=0.7)
    time.sleep(AGREED_SECONDS)
    return at


def seats(house: House, sessions: Sequence[str]) -> dict[str, str]:
    """Session to the LiveKit node id that its room was made on."""
    if not sessions:
        return {}
    names = ", ".join(f"'{one}'" for one in sessions)
    query = f"SELECT id::text AS id, media->>'node_id' AS node FROM sessions WHERE id IN ({names})"
    return {row["id"]: row["node"] for row in house.rows(query)}


def ends(house: House) -> list[dict[str, Any]]:
    """Of each session how it ended: epoch, losses, close_reason."""
    return house.rows("SELECT id::text AS id, state, epoch, losses, close_reason FROM sessions")


def told(house: House) -> dict[str, int]:
    """Events about the pool by reason."""
    items = house.kube.json("-n", RELEASE, "get", "events", f"--field-selector=involvedObject.name={POOL}")["items"]
    counts: dict[str, int] = {}
    for one in items:
        counts[one["reason"]] = counts.get(one["reason"], 0) + int(one.get("count") or 1)
    return counts


def front_door(house: House) -> tuple[str, str]:
    """The token endpoint's URL inside the cluster, and the Project's server key."""
    address = house.kube.json("-n", RELEASE, "get", "service", "talktime-gateway")["spec"]["clusterIP"]
    key = house.kube.secret(NAMESPACE, f"{STUDY}-access", "server-key")
    return f"http://{address}:8080/v1/projects/{NAMESPACE}/{STUDY}/token", key
