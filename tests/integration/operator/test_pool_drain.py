"""SFU nodes come and go without cutting a room: the operator against a real API server. Controllers, scheduler, kubelet
and livekit-server are played by `House`, which also writes down every pod that was ended and what it still held.

As in a cluster, a garbage collector is quicker than the operator, and a kubelet keeps to the grace of a pod's first
deletion (kubernetes#113606)."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import httpx
import pytest
import yaml

RELEASE = "talktime"
POOLS = f"/apis/talktime.dev/v1alpha1/namespaces/{RELEASE}/sfupools"
SETS = f"/apis/apps/v1/namespaces/{RELEASE}/statefulsets"
PODS = f"/api/v1/namespaces/{RELEASE}/pods"
SECRETS = f"/api/v1/namespaces/{RELEASE}/secrets"
SFU = "labelSelector=app.kubernetes.io/component%3Dsfu"
MERGE = {"Content-Type": "application/merge-patch+json"}
NOW = {"gracePeriodSeconds": 0}
T = TypeVar("T")


def until(what: Callable[[], T], seconds: float = 240.0) -> T:
    """The first truthy answer; fails with the last one."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer or time.monotonic() > deadline:
            assert answer, "not within the time"
            return answer
        time.sleep(0.1)


class House:
    """Machines with one livekit-server each. `rooms` by pod, also `signals`: connections of clients that came to it;
    `silent` pods count nothing; a room of a draining pod ends after `talks_on` seconds (None: it never does); `hung`
    ones take connections and answer nothing."""

    def __init__(self, api: httpx.Client, machines: int) -> None:
        self.api = api
        self.machines = {f"m{i}-{time.monotonic_ns()}": f"127.7.{i + 10}.1" for i in range(machines)}
        self.rooms: dict[str, int] = {}
        self.signals: dict[str, int] = {}
        self.silent: set[str] = set()
        self.hung: set[str] = set()
        self.talks_on: float | None = None
        self.ended: list[tuple[str, int, int]] = []
        self.most_draining = 0
        self.fewest_ready = 99
        self._on: dict[str, str] = {}
        self._draining_since: dict[str, float] = {}
        self._noted: set[str] = set()
        self.orphaned: set[str] = set()
        self._stop = threading.Event()
        self._servers: list[http.server.ThreadingHTTPServer] = []
        # One port everywhere, as a pool has it; the first machine's choice is free on the others' addresses too.
        self.http = self.metrics = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> House:
        for ip in self.machines.values():
            self.http, self.metrics = self._serve(ip, self.http), self._serve(ip, self.metrics)
        for name in self.machines:
            self.api.post("/api/v1/nodes", json={"metadata": {"name": name}}).raise_for_status()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self.api.delete(POOLS + "/eu")
        for item in self.sets():
            self.api.delete(f"{SETS}/{item['metadata']['name']}")
        for item in self.pods():
            self.api.request("DELETE", f"{PODS}/{item['metadata']['name']}", json=NOW)
        for name in self.machines:
            self.api.delete(f"/api/v1/nodes/{name}")

    def _serve(self, ip: str, port: int) -> int:
        """The port it listens on: `port`, or with 0 a free one."""
        house = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pod = house._on.get(ip)
                while pod in house.hung and not house._stop.is_set():
                    time.sleep(0.1)
                lost = pod is None or (pod in house.silent and server.server_port == house.metrics)
                self.send_response(503 if lost else 200)
                self.end_headers()
                if pod and not lost:
                    labels = f'{{node_id="ND_{pod}",node_type="SERVER"}}'
                    self.wfile.write(f"livekit_room_total{labels} {house.rooms.get(pod, 0)}\n".encode())
                    signal = f'{{node_id="ND_{pod}",role="client",service="Signal",method="RelaySignal"}}'
                    streams = house.signals.get(pod, 0)
                    self.wfile.write(f"livekit_psrpc_stream_count{signal} {streams}\n".encode())

            def do_POST(self) -> None:
                """The room service: it answers wherever a livekit-server runs."""
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(200 if house._on.get(ip) else 503)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                return

        server = http.server.ThreadingHTTPServer((ip, port), Handler)
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port

    def sets(self) -> list[dict[str, Any]]:
        return [s for s in self.api.get(f"{SETS}?{SFU}").json()["items"] if "deletionTimestamp" not in s["metadata"]]

    def pods(self) -> list[dict[str, Any]]:
        return list(self.api.get(f"{PODS}?{SFU}").json()["items"])

    def names(self) -> list[str]:
        return sorted(p["metadata"]["name"] for p in self.pods())

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            with suppress(httpx.HTTPError, KeyError):
                self._tick()

    def _tick(self) -> None:
        self._orphan()
        sets = {s["metadata"]["name"]: s for s in self.sets()}
        pods = {p["metadata"]["name"]: p for p in self.pods()}
        existing = {s["metadata"]["uid"] for s in self.api.get(f"{SETS}?{SFU}").json()["items"]}
        draining = {n for n, p in pods.items() if "talktime.dev/drain" in (p["metadata"].get("annotations") or {})}
        self.most_draining = max(self.most_draining, len(draining))
        if len(self._on) >= 2:
            ready = [n for n in self._on.values() if n in pods and n not in draining]
            self.fewest_ready = min(self.fewest_ready, len(ready))
        for name, pod in pods.items():
            meta = pod["metadata"]
            since = self._draining_since.setdefault(name, time.monotonic()) if name in draining else time.monotonic()
            if self.talks_on is not None and time.monotonic() - since > self.talks_on:
                self.rooms[name] = 0
            collected = any(owner["uid"] not in existing for owner in meta.get("ownerReferences") or ())
            if "deletionTimestamp" in meta:
                own = pod["spec"]["terminationGracePeriodSeconds"]
                self._end(name, meta["uid"], own if collected else meta["deletionGracePeriodSeconds"])
            elif collected:
                self.api.delete(f"{PODS}/{name}")
        for name, made in sets.items():
            if f"{name}-0" not in pods:
                self._start(f"{name}-0", made)
            elif not pods[f"{name}-0"]["spec"].get("nodeName"):
                self._schedule(f"{name}-0", pods)

    def _orphan(self) -> None:
        """The garbage collector's part in a deletion that leaves the pods alone."""
        for made in self.api.get(f"{SETS}?{SFU}").json()["items"]:
            name, finalizers = made["metadata"]["name"], made["metadata"].get("finalizers") or []
            if "orphan" in finalizers and "deletionTimestamp" in made["metadata"]:
                self.orphaned.add(name)
                for pod in self.pods():
                    if pod["metadata"]["labels"].get("talktime.dev/node") == name:
                        alone = json.dumps({"metadata": {"ownerReferences": None}})
                        self.api.patch(f"{PODS}/{pod['metadata']['name']}", headers=MERGE, content=alone)
                body = json.dumps({"metadata": {"finalizers": [f for f in finalizers if f != "orphan"] or None}})
                self.api.patch(f"{SETS}/{name}", headers=MERGE, content=body)

    def _end(self, name: str, uid: str, grace: int) -> None:
        if uid not in self._noted:
            self._noted.add(uid)
            self.ended.append((name, self.rooms.get(name, 0), grace))
        if self.rooms.get(name, 0) == 0 or grace <= 30:
            self._on = {ip: n for ip, n in self._on.items() if n != name}
            self.rooms.pop(name, None)
            self.hung.discard(name)
            self.api.request("DELETE", f"{PODS}/{name}", json=NOW)

    def _start(self, name: str, made: dict[str, Any]) -> None:
        template = made["spec"]["template"]
        spec = {k: v for k, v in template["spec"].items() if k != "volumes"}
        for container in spec["containers"]:
            container.pop("volumeMounts", None)
        owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "controller": True}
        owner |= {key: made["metadata"][key] for key in ("name", "uid")}
        metadata = template["metadata"] | {"name": name, "ownerReferences": [owner]}
        self.api.post(PODS, json={"metadata": metadata, "spec": spec}).raise_for_status()

    def _schedule(self, name: str, pods: dict[str, Any]) -> None:
        taken = {p["spec"].get("nodeName") for p in pods.values()}
        for machine, ip in self.machines.items():
            cordoned = self.api.get(f"/api/v1/nodes/{machine}").json()["spec"].get("unschedulable")
            if machine not in taken and not cordoned:
                binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": machine}}
                self.api.post(f"{PODS}/{name}/binding", json=binding).raise_for_status()
                pods[name]["spec"]["nodeName"] = machine
                self._on[ip] = name
                status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": ip}
                status["conditions"] = [{"type": t, "status": "True"} for t in ("PodScheduled", "Ready")]
                self._status(name, status)
                return
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        self._status(name, {"phase": "Pending", "conditions": [condition]})

    def _status(self, name: str, status: dict[str, Any]) -> None:
        self.api.patch(f"{PODS}/{name}/status", headers=MERGE, content=json.dumps({"status": status}))

    # What an SRE does and sees.
    def make_pool(self, **spec: Any) -> None:
        network = {"ports": {"http": self.http, "metrics": self.metrics}}
        body = {
            "apiVersion": "talktime.dev/v1alpha1",
            "kind": "SFUPool",
            "metadata": {"name": "eu"},
            "spec": {"network": network, **spec},
        }
        self.api.post(POOLS, json=body).raise_for_status()
        count = spec["replicas"]
        until(lambda: self.pool()["status"].get("nodesSummary") == f"{count}/{count}" if self.status() else None, 240)

    def pool(self) -> dict[str, Any]:
        return dict(self.api.get(f"{POOLS}/eu").json())

    def status(self) -> dict[str, Any]:
        return dict(self.pool().get("status") or {})

    def node(self, name: str) -> dict[str, Any]:
        return next((n for n in self.status().get("nodes") or () if n["name"] == name), {})

    def condition(self, kind: str) -> dict[str, Any]:
        return next((c for c in self.status().get("conditions") or () if c["type"] == kind), {})

    def edit(self, **spec: Any) -> None:
        self.api.patch(f"{POOLS}/eu", headers=MERGE, content=json.dumps({"spec": spec})).raise_for_status()

    def scale(self, replicas: int) -> None:
        """kubectl scale sfu/eu --replicas=..."""
        body = json.dumps({"spec": {"replicas": replicas}})
        self.api.patch(f"{POOLS}/eu/scale", headers=MERGE, content=body).raise_for_status()

    def cordon(self, machine: str, unschedulable: bool = True) -> None:
        body = json.dumps({"spec": {"unschedulable": unschedulable}})
        self.api.patch(f"/api/v1/nodes/{machine}", headers=MERGE, content=body).raise_for_status()

    def evict(self, pod: str) -> int:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": RELEASE}}
        return self.api.post(f"{PODS}/{pod}/eviction", json=body).status_code

    def holds(self, **rooms: int) -> None:
        """`a=3`: pod sfu-eu-<a's number>-0 holds three rooms, and the operator has seen it."""
        for node, count in rooms.items():
            self.rooms[f"sfu-eu-{'abcdefgh'.index(node)}-0"] = count
        total = sum(self.rooms.values())
        until(lambda: self.status().get("sessions") == total)

    def events(self) -> list[str]:
        items = self.api.get(f"/api/v1/namespaces/{RELEASE}/events").json()["items"]
        return [e["reason"] for e in items if e["involvedObject"]["name"] == "eu"]

    def cut(self) -> list[tuple[str, int, int]]:
        """Pods that were ended with rooms on them."""
        return [e for e in self.ended if e[1] > 0]


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
