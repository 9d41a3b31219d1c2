"""Controllers, scheduler, kubelet and livekit-server of a pool, played to an operator on a real API server.

As in a cluster, a garbage collector is quicker than the operator, and a kubelet keeps to the grace of a pod's first
deletion (kubernetes#113606)."""

from __future__ import annotations

import http.server
import json
import threading
import time
from contextlib import suppress
from typing import Any

import httpx

from tests.integration.operator.waiting import until

RELEASE = "talktime"
POOLS = f"/apis/talktime.dev/v1alpha1/namespaces/{RELEASE}/sfupools"
SETS = f"/apis/apps/v1/namespaces/{RELEASE}/statefulsets"
PODS = f"/api/v1/namespaces/{RELEASE}/pods"
SFU = "labelSelector=app.kubernetes.io/component%3Dsfu"
MERGE = {"Content-Type": "application/merge-patch+json"}
NOW = {"gracePeriodSeconds": 0}


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
