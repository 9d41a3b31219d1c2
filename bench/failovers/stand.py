"""Talktime on a cluster of its own: an SFU on the node that suffers, a second LiveKit that plays Cloud, a Project."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from hack.chaos.house import House, eventually
from hack.chaos.interviews import Tell
from hack.chaos.projects import apply, closed, project, secret
from hack.cluster.layout import Node, cluster_named, state_root
from hack.demo import clusters, release
from hack.demo.release import EXAMPLES
from hack.demo.release import NAMESPACE as RELEASE

NAMESPACE, STUDY = "failover", "study"
POOL, FALLBACK = "eu", "cloud"
HOME, AWAY = "node-1", "node-2"
"""Everything lives at HOME, the fallback too; the pool's only SFU lives at AWAY."""

VALUES = (
    release.VALUES,
    Path(__file__).parents[2] / "hack" / "chaos" / "values.yaml",
    Path(__file__).with_name("values.yaml"),
)
GUESTS = 3
AGREED_SECONDS = 6.0
"""What the front doors may take to learn that the pool is back: its push to the ledger, and their look at it."""
PATIENT = "10s"
"""Health without a break before new rooms come back: short, so that the next fault may come soon."""


def node(house: House, name: str) -> Node:
    return next(each for each in house.cluster.nodes if each.name == name)


def url_of(house: House, name: str, port: int = 7880) -> str:
    """The LiveKit on that node, for everybody in the cluster."""
    return f"ws://{node(house, name).address}:{port}"


def pools(house: House, name: str = POOL, fallback: str = FALLBACK, **ports: int) -> list[dict[str, Any]]:
    """The fallback at HOME, another LiveKit with its own keys and its own Redis; then the pool at AWAY that has it.

    `ports`: `http` and the others of spec.network.ports, where another pool has the usual ones.
    """
    http = ports.get("http", 7880)

    def pool(name: str, where: str, **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": "talktime.dev/v1alpha1",
            "kind": "SFUPool",
            "metadata": {"name": name, "namespace": RELEASE},
            "spec": {
                "replicas": 1,
                "nodeSelector": {"kubernetes.io/hostname": where},
                "network": {"publicURL": url_of(house, where, http), "ports": ports},
                **spec,
            },
        }

    second = {"url": url_of(house, HOME, http), "secretRef": {"name": f"sfu-{fallback}-keys"}}
    switching = {"mode": "Auto", **second, "standbyReplicas": 1, "failbackAfter": PATIENT}
    # Lost UDP is seen by who looks for it.
    return [pool(fallback, HOME), pool(name, AWAY, fallback=switching, health={"mediaProbe": True})]


def built(name: str, tell: Tell) -> House:
    """The cluster with everything Ready. Raises RuntimeError or AssertionError with what is not."""
    kube, images = clusters.local(name)
    folder = state_root() / "failover"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    house = House(cluster_named(name), kube, images, folder, VALUES)
    tell("installing Talktime")
    house.install()
    kube("apply", "--server-side", "--force-conflicts", "-f", str(EXAMPLES / "rate-cards"))
    tell("waiting for the SFUs")
    with closed(house, HOME):
        # The pool's Redis may come to AWAY, too: its process outlives a kubelet.
        apply(house, *pools(house)[1:])
        eventually("the SFU has its node", lambda: placed(house), 120)
    with closed(house, AWAY):
        apply(house, *pools(house)[:1])
        apply(house, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, secret(NAMESPACE))
        # One standby pod must take all guests, the newcomer, and who asks whether new ones come home again.
        apply(house, project(NAMESPACE, STUDY, sessions=GUESTS + 2))
        release.wait_ready(kube, NAMESPACE, STUDY)
    eventually("the fallback is ready", lambda: condition(house, "FallbackReady") == "True", 90, every=1)
    return house


def placed(house: House) -> bool:
    pods = house.kube.json("-n", RELEASE, "get", "pods", "-l=app.kubernetes.io/component=sfu")["items"]
    return any(pod["spec"].get("nodeName") == AWAY for pod in pods)


def pool_status(house: House, pool: str = POOL) -> dict[str, Any]:
    found: dict[str, Any] = house.kube.json("-n", RELEASE, "get", "sfu", pool).get("status", {})
    return found


def condition(house: House, kind: str, pool: str = POOL) -> str:
    """Status of one condition of the pool; empty while there is none."""
    found = [one for one in pool_status(house, pool).get("conditions", []) if one["type"] == kind]
    return str(found[0]["status"]) if found else ""


def says_home(house: House, seconds: float = 180, pool: str = POOL) -> None:
    """Until the pool's status says that new rooms go to its own node, which takes them, and front doors may know it."""

    def back() -> bool:
        status = pool_status(house, pool)
        ready = any(one.get("state") == "Ready" for one in status.get("nodes", []))
        return ready and status.get("active", {}).get("target") == "SelfHosted"

    eventually("the pool says that it takes new rooms itself", back, seconds, every=1)
    time.sleep(AGREED_SECONDS)


def standby_ready(house: House, seconds: float = 120) -> None:
    """Until the agents at the fallback are registered there."""

    def ready() -> bool:
        try:
            found = house.kube.json("-n", NAMESPACE, "get", "deploy", f"talktime-standby-{STUDY}")
        except RuntimeError:
            return False
        return int(found.get("status", {}).get("readyReplicas", 0)) >= 1

    eventually("standby agents are ready", ready, seconds)


def front_door(house: House) -> tuple[str, str]:
    """The token endpoint's URL inside the cluster, and the Project's server key."""
    address = house.kube.json("-n", RELEASE, "get", "service", "talktime-gateway")["spec"]["clusterIP"]
    key = house.kube.secret(NAMESPACE, f"{STUDY}-access", "server-key")
    return f"http://{address}:8080/v1/projects/{NAMESPACE}/{STUDY}/token", key
