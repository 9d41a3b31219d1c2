"""The Projects that suffer, each with an agent pod of its own: a fault hits the session that it is meant for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from hack.chaos.house import House, eventually
from hack.demo.release import NAMESPACE as RELEASE
from hack.demo.release import wait_ready

NAMESPACE = "chaos"
MODEL = "gpt-realtime-2.1-mini"
HOME, AWAY = "node-1", "node-2"
"""Talktime, its database, the participants and most agents live at HOME; AWAY is the node that dies."""

STEADY, KILLED, EVICTED, STRANDED, CUT, TERMINATED = "steady", "killed", "evicted", "stranded", "cut", "terminated"
INSTRUCTIONS = (
    "You are holding a voice interview about how people plan their week. Ask one question at a time and keep your turns"
    " to one or two sentences. Ask for the last concrete week instead of the usual one, stay with a story until you"
    " know what happened and why it mattered, and use the participant's own words. Give no advice and no opinions."
)


def secret(namespace: str) -> dict[str, Any]:
    """Any key is good for the simulator."""
    metadata = {"name": "simulator", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"api-key": "sim-chaos"}}


def project(
    namespace: str,
    name: str,
    *,
    sessions: int = 1,
    pods: int = 1,
    caps: tuple[int, int] = (1000, 10),
    **budget: Any,
) -> Any:
    """A Project with so many agent pods, each for so many sessions. `caps`: context tokens, seconds of a response.

    `budget`: fields of spec.budget beside the defaults here.
    """
    provider = {
        "name": "openai",
        "api": "OpenAIRealtime",
        "model": MODEL,
        "secretRef": {"name": "simulator"},
        "endpoint": f"http://talktime-simulator.{RELEASE}.svc:8080/v1",
        "caps": {"contextTokens": caps[0], "responseSeconds": caps[1]},
    }
    agent = {
        "sessionsPerReplica": sessions,
        "minReplicas": pods,
        "maxReplicas": pods,
        "spareSessions": 0,
        "greeting": "Greet the participant in one sentence and ask the first question.",
        "instructions": INSTRUCTIONS,
    }
    return {
        "apiVersion": "talktime.dev/v1alpha1",
        "kind": "Project",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "budget": {"amount": "50", "session": {"limit": "2"}, **budget},
            "providers": [provider],
            "agent": agent,
            "media": {"poolRef": {"name": "eu"}},
        },
    }


def suffering() -> list[dict[str, Any]]:
    """All but the one whose agent lives on the node that dies."""
    # A minute and more of talk beyond the next response: what an outage reserve is for.
    reserve = "0.15"
    return [
        project(NAMESPACE, STEADY, sessions=2, outageReserve=reserve),
        project(NAMESPACE, KILLED),
        project(NAMESPACE, EVICTED),
        # Another pod has to take over.
        project(NAMESPACE, CUT, pods=2, outageReserve=reserve),
        project(NAMESPACE, TERMINATED, onLedgerOutage="Terminate"),
    ]


def place(house: House, only: Sequence[str] = ()) -> None:
    """Applies the Projects and sees to it that only one agent (and an SFU node) live on the node that will die.

    `only`: names of the Projects wanted; empty: all.
    """
    wanted = [one for one in suffering() if not only or one["metadata"]["name"] in only]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    with closed(house, AWAY):
        bring_home(house)
        apply(house, namespace, secret(NAMESPACE), *wanted)
        wait_ready(house.kube, NAMESPACE, *(one["metadata"]["name"] for one in wanted))
    with closed(house, HOME):
        apply(house, project(NAMESPACE, STRANDED))
        wait_ready(house.kube, NAMESPACE, STRANDED)


def bring_home(house: House) -> None:
    """Redis of the pool has no node of its own choosing; without it no SFU node takes rooms."""
    others = "talktime.dev/pool=eu,app.kubernetes.io/component!=sfu"
    pods = house.kube.json("-n", RELEASE, "get", "pods", f"--selector={others}")["items"]
    away = [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == AWAY]
    for name in away:
        house.kube("-n", RELEASE, "delete", "pod", name)
    if away:
        house.kube("-n", RELEASE, "rollout", "status", "deploy/sfu-eu-redis", "--timeout=120s")
    sfu_ready(house)


def sfu_ready(house: House, nodes: int = 2) -> None:
    """Until so many SFU nodes take rooms."""

    def ready() -> bool:
        status = house.kube.json("-n", RELEASE, "get", "sfu", "eu").get("status", {})
        return sum(1 for node in status.get("nodes", []) if node.get("state") == "Ready") >= nodes

    eventually(f"{nodes} SFU nodes are ready", ready, 300, every=1)


@contextlib.contextmanager
def closed(house: House, node: str) -> Iterator[None]:
    """Nothing new is placed on the node while the block runs. Not by a cordon: that would drain its SFU node."""
    taint = "talktime.dev/closed=chaos:NoSchedule"
    house.kube("taint", "node", node, "--overwrite", taint)
    try:
        yield
    finally:
        house.kube("taint", "node", node, f"{taint}-")


def apply(house: House, *items: dict[str, Any]) -> None:
    house.kube("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)}))
