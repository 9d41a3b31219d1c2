"""SFU nodes come and go without cutting a room: the operator against a real API server, the rest of the cluster played
by `House`, which also writes down every pod that was ended and what it still held."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.operator.played_cluster import MERGE, NOW, PODS, RELEASE, SETS, House
from tests.integration.operator.waiting import until

SECRETS = f"/api/v1/namespaces/{RELEASE}/secrets"


@pytest.fixture
def house(operator: Any, api: httpx.Client) -> Iterator[House]:
    with House(api, 4) as made:
        yield made


def test_scaling_down_removes_the_emptiest_node_and_not_the_highest(house: House, ledger: Any) -> None:
    house.make_pool(replicas=3)
    assert house.names() == ["sfu-eu-0-0", "sfu-eu-1-0", "sfu-eu-2-0"]
    house.holds(a=2, b=1, c=5)
    house.scale(2)
    until(lambda: house.node("sfu-eu-1-0").get("state") == "Draining")
    states = {n["name"]: n["state"] for n in ledger.pools[f"{RELEASE}/eu"]["nodes"]}
    assert states == {"sfu-eu-0-0": "Ready", "sfu-eu-1-0": "Draining", "sfu-eu-2-0": "Ready"}
    assert house.condition("Autoscaling")["reason"] == "HeldByReplicas"
    time.sleep(4)  # twice what a zero needs to be believed: the room still lives, so the node stays
    assert house.names() == ["sfu-eu-0-0", "sfu-eu-1-0", "sfu-eu-2-0"]
    house.rooms["sfu-eu-1-0"] = 0
    until(lambda: house.names() == ["sfu-eu-0-0", "sfu-eu-2-0"])
    assert sorted(s["metadata"]["name"] for s in house.sets()) == ["sfu-eu-0", "sfu-eu-2"]
    assert house.cut() == []
    until(lambda: house.status().get("lastDrain", {}).get("node") == "sfu-eu-1-0")
    assert house.status()["lastDrain"]["moved"] == 0
    assert {"ScaleDown", "Drained"} <= set(house.events())
    house.scale(3)
    until(lambda: "sfu-eu-1-0" in house.names())


def test_a_node_with_rooms_is_kept_until_its_deadline_and_the_rest_is_counted(
    house: House, ledger: Any, operator: Any
) -> None:
    house.make_pool(replicas=2, drain={"deadline": "25s"})
    house.holds(a=2, b=3)
    began = time.time()
    house.scale(1)
    until(lambda: house.node("sfu-eu-0-0").get("state") == "Draining")
    assert house.node("sfu-eu-0-0")["rooms"] == 2
    assert house.node("sfu-eu-0-0")["drainReason"] == "ScaleDown"
    assert "sfu-eu-0-0 (ScaleDown) until" in house.condition("Draining")["message"]
    labels = f'{{namespace="{RELEASE}",node="sfu-eu-0-0",pool="eu"}}'
    metrics = dict(line.rsplit(" ", 1) for line in operator.metrics().splitlines() if not line.startswith("#"))
    assert float(metrics[f"talktime_sfu_node_sessions{labels}"]) == 2
    assert 0 <= float(metrics[f"talktime_sfu_drain_remaining_seconds{labels}"]) <= 25
    until(lambda: house.names() == ["sfu-eu-1-0"])
    assert time.time() - began >= 23  # the mark's second is cut off, its deadline is not moved by that
    assert house.cut() == [("sfu-eu-0-0", 2, 30)]
    until(lambda: house.status().get("lastDrain", {}).get("moved") == 2)
    assert "DrainDeadlinePassed" in house.events()


def test_a_node_that_does_not_tell_its_rooms_is_neither_chosen_nor_removed(house: House) -> None:
    house.make_pool(replicas=2)
    house.holds(a=0, b=3)
    house.silent.add("sfu-eu-0-0")
    until(lambda: house.condition("MetricsFresh").get("status") == "Unknown")
    house.scale(1)
    until(lambda: house.node("sfu-eu-1-0").get("state") == "Draining")
    house.silent = {"sfu-eu-1-0"}
    house.rooms["sfu-eu-1-0"] = 0
    time.sleep(4)
    assert house.names() == ["sfu-eu-0-0", "sfu-eu-1-0"]
    house.silent.clear()
    until(lambda: house.names() == ["sfu-eu-0-0"])
    assert house.cut() == []


def test_the_ledger_must_know_before_a_node_counts_as_empty(house: House, ledger: Any) -> None:
    """Gateways learn from it that a node takes no new rooms; until then an empty one may be about to get one."""
    house.make_pool(replicas=2)
    house.holds(a=0, b=1)
    ledger.refuse_all = True
    house.scale(1)
    until(lambda: house.node("sfu-eu-0-0").get("state") == "Draining")
    time.sleep(4)
    assert "sfu-eu-0-0" in house.names()
    ledger.refuse_all = False
    until(lambda: house.names() == ["sfu-eu-1-0"])


def test_a_node_stays_for_signal_connections_of_other_nodes_rooms_and_gets_no_new_ones(
    house: House, api: httpx.Client
) -> None:
    """Clients come to any node through the Service; the one that their signals go through must not go under them."""

    def selector() -> dict[str, str]:
        return dict(api.get(f"/api/v1/namespaces/{RELEASE}/services/sfu-eu").json()["spec"]["selector"])

    def opened() -> dict[str, str | None]:
        return {p["metadata"]["name"]: p["metadata"]["labels"].get("talktime.dev/signal") for p in house.pods()}

    house.make_pool(replicas=2)
    house.signals = {"sfu-eu-0-0": 2}
    house.holds(a=0, b=1)
    # As pods of an older version are: without the label, so the Service may not ask for it before they have it.
    label = json.dumps({"metadata": {"labels": {"talktime.dev/signal": None}}})
    house.api.patch(f"{PODS}/sfu-eu-1-0", headers=MERGE, content=label).raise_for_status()
    until(lambda: opened() == {"sfu-eu-0-0": "open", "sfu-eu-1-0": "open"})
    until(lambda: selector().get("talktime.dev/signal") == "open")
    house.scale(1)
    until(lambda: opened() == {"sfu-eu-0-0": None, "sfu-eu-1-0": "open"})
    until(lambda: "carries signal connections" in house.condition("Draining").get("message", ""))
    time.sleep(4)  # twice what a zero needs to be believed
    assert house.names() == ["sfu-eu-0-0", "sfu-eu-1-0"]
    house.scale(2)
    until(lambda: opened() == {"sfu-eu-0-0": "open", "sfu-eu-1-0": "open"})
    house.scale(1)
    until(lambda: house.node("sfu-eu-0-0").get("state") == "Draining")
    house.signals = {}
    until(lambda: house.names() == ["sfu-eu-1-0"])


def test_cordon_starts_the_drain_and_the_budget_lets_go_at_its_end(house: House) -> None:
    house.make_pool(replicas=2)
    house.holds(a=2, b=1)
    machine = next(p["spec"]["nodeName"] for p in house.pods() if p["metadata"]["name"] == "sfu-eu-0-0")
    assert house.evict("sfu-eu-0-0") == 429
    house.cordon(machine)
    until(lambda: house.node("sfu-eu-0-0").get("drainReason") == "Cordoned")
    until(lambda: house.node("sfu-eu-2-0").get("state") == "Ready")  # its successor, on another machine
    assert house.evict("sfu-eu-0-0") == 429  # what kubectl drain asks again and again
    house.rooms["sfu-eu-0-0"] = 0
    until(lambda: house.evict("sfu-eu-0-0") in (201, 404))
    until(lambda: house.names() == ["sfu-eu-1-0", "sfu-eu-2-0"])
    assert house.cut() == []
    # What lets go is the label, not that the pod was on its way out.
    house.talks_on = None
    label = json.dumps({"metadata": {"labels": {"talktime.dev/drained": "true"}}})
    house.api.patch(f"{PODS}/sfu-eu-2-0", headers=MERGE, content=label).raise_for_status()
    assert house.evict("sfu-eu-1-0") == 429
    assert house.evict("sfu-eu-2-0") == 201


def test_uncordon_takes_the_drain_back(house: House) -> None:
    house.make_pool(replicas=2)
    house.holds(a=2, b=1)
    machine = next(p["spec"]["nodeName"] for p in house.pods() if p["metadata"]["name"] == "sfu-eu-0-0")
    house.cordon(machine)
    until(lambda: house.node("sfu-eu-0-0").get("state") == "Draining")
    house.cordon(machine, unschedulable=False)
    until(lambda: house.node("sfu-eu-0-0").get("state") == "Ready")
    until(lambda: len(house.names()) == 2)
    assert house.cut() == []


def test_a_changed_configuration_rolls_node_by_node_and_cuts_nobody(house: House) -> None:
    house.machines = dict(list(house.machines.items())[:3])  # as many machines as nodes: no room to spare
    house.make_pool(replicas=3)
    house.holds(a=1, b=2, c=3)
    before = {p["metadata"]["name"]: p["metadata"]["annotations"]["talktime.dev/template"] for p in house.pods()}
    house.talks_on, house.fewest_ready, house.most_draining = 1.5, 99, 0
    house.edit(autoscaling={"sessionsPerNode": 40})

    def rolled() -> bool:
        pods = house.pods()
        templates = {p["metadata"]["annotations"]["talktime.dev/template"] for p in pods}
        return len(pods) == 3 and not templates & set(before.values())

    until(rolled, 400)
    until(lambda: house.status().get("nodesSummary") == "3/3")
    assert house.most_draining == 1
    assert house.fewest_ready >= 2
    assert house.cut() == []
    until(lambda: house.condition("Draining").get("reason") == "NoDrain")


def test_a_restarted_operator_goes_on_where_the_last_one_was(house: House, operator: Any) -> None:
    house.make_pool(replicas=2)
    house.holds(a=1, b=2)
    house.scale(1)
    until(lambda: house.node("sfu-eu-0-0").get("state") == "Draining")
    deadline = house.node("sfu-eu-0-0")["drainDeadline"]
    operator.stop(9)
    operator.start()
    house.rooms["sfu-eu-0-0"] = 3
    until(lambda: house.node("sfu-eu-0-0").get("rooms") == 3)  # the new one has looked
    assert house.node("sfu-eu-0-0")["drainDeadline"] == deadline
    house.rooms["sfu-eu-0-0"] = 0
    until(lambda: house.names() == ["sfu-eu-1-0"])


def test_a_pod_that_lost_its_set_gets_a_successor(house: House, operator: Any, api: httpx.Client) -> None:
    """An operator died between the two deletions of a removal, and the cause of the drain is gone since."""
    house.make_pool(replicas=2)
    house.holds(a=1, b=2)
    operator.stop(9)
    api.request("DELETE", f"{SETS}/sfu-eu-0", json={"propagationPolicy": "Orphan"}).raise_for_status()
    until(lambda: "sfu-eu-0" in house.orphaned)
    operator.start()
    until(lambda: house.node("sfu-eu-0-0").get("state") == "Draining")
    assert house.node("sfu-eu-0-0")["drainReason"] == "Update"
    house.rooms["sfu-eu-0-0"] = 0
    until(lambda: house.names() == ["sfu-eu-1-0", "sfu-eu-2-0"])
    assert house.cut() == []


def test_a_pool_of_an_older_version_is_moved_node_by_node(house: House, api: httpx.Client) -> None:
    """Its one StatefulSet is given up without its pods."""
    labels = {
        "app.kubernetes.io/managed-by": "talktime",
        "app.kubernetes.io/component": "sfu",
        "talktime.dev/pool": "eu",
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "livekit", "image": "x"}]}}
    spec = {"selector": {"matchLabels": labels}, "serviceName": "x", "replicas": 0, "template": template}
    api.post(SETS, json={"metadata": {"name": "sfu-eu", "labels": labels}, "spec": spec}).raise_for_status()
    house.make_pool(replicas=1)
    assert "sfu-eu" in house.orphaned
    assert [s["metadata"]["name"] for s in house.sets()] == ["sfu-eu-0"]


class Vault:
    """What stands in the Secrets of the pool, and which LiveKit keys its nodes were started with."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.port = house.http

    def read(self, name: str) -> dict[str, str]:
        answer = self._house.api.get(f"{SECRETS}/{name}")
        data = answer.json().get("data") or {}
        return {k: base64.b64decode(v).decode() for k, v in data.items()}

    def gateways(self) -> dict[str, Any]:
        return dict(json.loads(self.read("talktime-sfu-keys")[f"{RELEASE}.eu.json"]))

    def nodes(self) -> list[set[str]]:
        """Key names in the file of each node."""
        rings = [p["metadata"]["annotations"]["talktime.dev/keys"] for p in self._house.pods()]
        data = self.read("sfu-eu-keys")  # last: a ring is there before its first pod is
        return [set(yaml.safe_load(data[f"ring-{ring}.yaml"])) for ring in rings]


def test_other_keys_cut_nobody_whoever_is_restarted_meanwhile(house: House, operator: Any) -> None:
    house.make_pool(replicas=2)
    vault = Vault(house)
    old = vault.gateways()["apiKey"]
    assert vault.nodes() == [{old}, {old}]
    agent = {
        "metadata": {
            "name": f"agent-{time.monotonic_ns()}",
            "labels": {
                "app.kubernetes.io/managed-by": "talktime",
                "app.kubernetes.io/component": "agent",
                "talktime.dev/project": "study",
            },
        },
        "spec": {"containers": [{"name": "agent", "image": "x", "env": [_key_of(vault)]}]},
    }
    pods = "/api/v1/namespaces/default/pods"
    house.api.post(pods, json=agent).raise_for_status()
    house.talks_on = 3.0
    house.holds(a=1, b=2)
    house.api.delete(f"{SECRETS}/sfu-eu-keys").raise_for_status()
    until(lambda: house.condition("RotatingKeys").get("reason") == "AddingKey")
    assert vault.gateways()["apiKey"] == old
    until(lambda: any(len(ring) == 2 for ring in vault.nodes()))
    operator.stop(signal.SIGKILL)
    operator.start()
    seen: set[str] = set()

    def moved() -> bool:
        """Whatever gateways sign with, every node knows it."""
        signs = vault.gateways()["apiKey"]
        seen.add(signs)
        assert all(signs in ring for ring in vault.nodes())
        return house.condition("RotatingKeys").get("reason") == "MovingClients"

    until(moved, 400)
    new = vault.gateways()
    assert (new["apiKey"] != old, list(new["also"])) == (True, [old])
    assert vault.nodes() == [{old, new["apiKey"]}] * 2
    time.sleep(5)  # longer than handed out tokens are kept: an agent still has the old pair
    assert house.condition("RotatingKeys")["reason"] == "MovingClients"
    house.api.request("DELETE", f"{pods}/{agent['metadata']['name']}", json=NOW)
    until(lambda: house.condition("RotatingKeys").get("reason") == "RetiringKey")
    until(lambda: house.condition("RotatingKeys").get("reason") == "KeysSettled", 400)
    assert vault.nodes() == [{new["apiKey"]}] * 2
    until(lambda: "also" not in vault.gateways())
    assert house.cut() == []


def _key_of(vault: Vault) -> dict[str, Any]:
    """How an agent of Project `study` that was started with the pool's present pair refers to it."""
    data = vault.read("sfu-eu-keys")
    url = f"ws://sfu-eu.{RELEASE}.svc:{vault.port}"
    text = "\0".join((url, data["api-key"], data["api-secret"]))
    name = f"study-livekit-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return {"name": "LIVEKIT_API_KEY", "valueFrom": {"secretKeyRef": {"name": name, "key": "api-key"}}}


def test_a_node_that_hangs_is_restarted_and_the_other_left_alone(house: House) -> None:
    house.make_pool(replicas=2, health={"restartAfter": "20s"})
    house.holds(a=1, b=2)
    before = {p["metadata"]["name"]: p["metadata"]["uid"] for p in house.pods()}
    house.hung.add("sfu-eu-0-0")
    until(lambda: house.node("sfu-eu-0-0").get("state") == "Sick")
    assert house.ended == [], "it gets its time first"
    until(lambda: house.condition("RestartingNodes").get("status") == "True")
    until(lambda: house.node("sfu-eu-0-0").get("state") == "Ready")
    assert house.ended == [("sfu-eu-0-0", 1, 5)]
    after = {p["metadata"]["name"]: p["metadata"]["uid"] for p in house.pods()}
    assert [name for name in after if after[name] != before[name]] == ["sfu-eu-0-0"]
    (restarts,) = house.status()["restarts"]
    assert (restarts["node"], restarts["count"]) == ("sfu-eu-0-0", 1)
    assert "does not answer" in house.condition("RestartingNodes")["message"]
    assert "NodeRestarted" in house.events()
