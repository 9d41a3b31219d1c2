"""Real livekit-servers under a real operator: over to the fallback, both sick, back; and Redis, which is nobody's
failover."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.operator.waiting import until

GROUP, RELEASE = "/apis/talktime.dev/v1alpha1", "talktime"
BIN = Path(__file__).parents[3] / ".state" / "bin" / "livekit-server"
CLOUD = ("APIcloud", "cloud-secret-of-at-least-thirty-two-characters")
MERGE = {"Content-Type": "application/merge-patch+json"}


def free_port() -> int:
    while True:
        port = random.randrange(15_000, 30_000)
        with closing(socket.socket()) as sock:
            if sock.connect_ex(("127.0.0.1", port)) != 0:
                return port


class Servers:
    """Processes of this test, ended with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def livekit(self, ports: dict[str, int], keys: tuple[str, str], redis: str = "") -> subprocess.Popen[bytes]:
        config: dict[str, Any] = {
            "port": ports["http"],
            "bind_addresses": ["127.0.0.1"],
            "prometheus": {"port": ports["metrics"]},
            "keys": {keys[0]: keys[1]},
            "rtc": {
                "tcp_port": ports["tcp"],
                "udp_port": ports["udp"],
                "node_ip": "127.0.0.1",
                "ips": {"includes": ["127.0.0.1/32"]},
                "use_external_ip": False,
                "enable_loopback_candidate": True,
            },
        }
        if redis:
            config["redis"] = {"address": redis}
        path = self._folder / f"{ports['http']}.yaml"
        path.write_text(yaml.safe_dump(config))
        return self.start([str(BIN), "--config", str(path), "--node-ip", "127.0.0.1"])

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        self._running.append(process)
        return process

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait(5)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path)
    yield made
    made.close()


def ports() -> dict[str, int]:
    return {name: free_port() for name in ("http", "tcp", "udp", "metrics")}


class Pool:
    """SFUPool `eu` with one pod whose livekit-server the test holds, and Project `study` on it."""

    def __init__(self, api: httpx.Client, ledger: Any, namespace: str, **spec: Any) -> None:
        self.api, self.ledger, self.namespace, self.ports = api, ledger, namespace, ports()
        body = {
            "apiVersion": "talktime.dev/v1alpha1",
            "kind": "SFUPool",
            "metadata": {"name": "eu"},
            "spec": {"replicas": 1, "network": {"ports": self.ports}, **spec},
        }
        self.api.post(f"{GROUP}/namespaces/{RELEASE}/sfupools", json=body).raise_for_status()

    def secret(self, name: str) -> dict[str, str]:
        answer = self.api.get(f"/api/v1/namespaces/{RELEASE}/secrets/{name}")
        data = answer.json().get("data", {}) if answer.status_code == 200 else {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def keys(self) -> tuple[str, str]:
        made = until(lambda: self.secret("sfu-eu-keys"))
        return made["api-key"], made["api-secret"]

    def make_pod(self) -> None:
        """What the StatefulSet's controller and a kubelet would do."""
        pods = f"/api/v1/namespaces/{RELEASE}/pods"
        where = f"/apis/apps/v1/namespaces/{RELEASE}/statefulsets/sfu-eu-0"
        made = until(lambda: (a := self.api.get(where)).status_code == 200 and a.json())
        template = made["spec"]["template"]
        spec = {key: value for key, value in template["spec"].items() if key != "volumes"}
        spec["terminationGracePeriodSeconds"] = 0
        for container in spec["containers"]:
            container.pop("volumeMounts", None)
        owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "controller": True}
        owner |= {key: made["metadata"][key] for key in ("name", "uid")}
        body = {"metadata": template["metadata"] | {"name": "sfu-eu-0-0", "ownerReferences": [owner]}, "spec": spec}
        self.api.post(pods, json=body).raise_for_status()
        address = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "hostIP": "127.0.0.1"}
        content = json.dumps({"status": address | {"conditions": [{"type": "Ready", "status": "True"}]}})
        self.api.patch(f"{pods}/sfu-eu-0-0/status", headers=MERGE, content=content).raise_for_status()

    def status(self) -> dict[str, Any]:
        found = self.api.get(f"{GROUP}/namespaces/{RELEASE}/sfupools/eu").json()
        return dict(found.get("status") or {})

    def condition(self, kind: str) -> tuple[str, str]:
        for condition in self.status().get("conditions") or ():
            if condition["type"] == kind:
                return condition["status"], condition["reason"]
        return "", ""

    def told(self) -> dict[str, Any]:
        """What gateways read from the ledger."""
        return dict(self.ledger.pools.get(f"{RELEASE}/eu") or {})

    def events(self, reason: str) -> list[str]:
        items = self.api.get(f"/api/v1/namespaces/{RELEASE}/events").json()["items"]
        return [e["type"] for e in items if e["reason"] == reason and e["involvedObject"]["kind"] == "SFUPool"]

    def standby(self) -> int | None:
        where = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/talktime-standby-study"
        answer = self.api.get(where)
        return int(answer.json()["spec"]["replicas"]) if answer.status_code == 200 else None

    def close(self) -> None:
        print(json.dumps(self.status(), indent=1))  # pytest shows it when the test failed
        self.api.delete(f"/api/v1/namespaces/{RELEASE}/pods/sfu-eu-0-0")
        self.api.delete(f"/api/v1/namespaces/{RELEASE}/secrets/cloud")


def make_project(api: httpx.Client, namespace: str) -> None:
    body = {
        "apiVersion": "talktime.dev/v1alpha1",
        "kind": "Project",
        "metadata": {"name": "study", "namespace": namespace},
        "spec": {
            "budget": {"amount": "5", "session": {"limit": "0.50"}},
            "providers": [{"name": "o", "api": "OpenAIRealtime", "model": "mini", "secretRef": {"name": "openai"}}],
            "agent": {"instructions": "Ask."},
            "media": {"poolRef": {"name": "eu"}},
        },
    }
    api.post(f"{GROUP}/namespaces/{namespace}/projects", json=body).raise_for_status()


@pytest.mark.usefixtures("operator")
def test_over_both_sick_and_back(api: httpx.Client, namespace: str, ledger: Any, servers: Servers) -> None:
    second = ports()
    cloud = servers.livekit(second, CLOUD)
    fallback = {"mode": "Auto", "url": f"ws://127.0.0.1:{second['http']}", "secretRef": {"name": "cloud"}}
    health = {"mediaProbe": True, "restartSick": False}  # nobody would start the deleted pod again
    pool = Pool(api, ledger, namespace, fallback=fallback | {"failbackAfter": "5s"}, health=health)
    try:
        until(lambda: pool.condition("FallbackReady") == ("False", "KeysNotFound"))
        data = {"api-key": CLOUD[0], "api-secret": CLOUD[1]}
        secret = {"metadata": {"name": "cloud"}, "stringData": data}
        api.post(f"/api/v1/namespaces/{RELEASE}/secrets", json=secret).raise_for_status()
        node = servers.livekit(pool.ports, pool.keys())
        pool.make_pod()
        until(lambda: pool.condition("Ready") == ("True", "Ready"))
        until(lambda: pool.condition("MediaProbed") == ("True", "MediaFlows"))
        until(lambda: pool.condition("FallbackReady") == ("True", "Answers"))
        assert pool.told()["fallbackURL"] == fallback["url"]
        mounted = until(lambda: pool.secret("talktime-sfu-keys").get(f"{RELEASE}.eu_fallback.json"))
        assert json.loads(mounted) == {"apiKey": CLOUD[0], "apiSecret": CLOUD[1]}

        make_project(api, namespace)
        until(lambda: ledger.projects.get(f"{namespace}/study"))
        assert pool.standby() is None, "no session yet"
        ledger.say(f"{namespace}/study", sessions={"open": 1, "attached": 1})
        until(lambda: pool.standby() == 1)

        node.kill()
        node.wait(5)
        killed = time.monotonic()
        until(lambda: pool.told()["active"] == "Fallback")
        print(f"the ledger knew {time.monotonic() - killed:.1f} s after the kill")
        active = until(lambda: (a := pool.status()["active"])["target"] == "Fallback" and a)
        assert (active["reason"], active["count"]) == ("PoolSick", 1)
        assert "refuses connections" in active["message"]
        assert pool.condition("Ready") == ("True", "OnFallback")
        assert pool.condition("NodesHealthy") == ("False", "AllNodesSick")
        assert until(lambda: pool.events("PoolSick")) == ["Warning"]
        study = f"{GROUP}/namespaces/{namespace}/projects/study"
        until(lambda: api.get(study).json()["status"]["media"]["active"] == "Fallback")

        cloud.kill()
        cloud.wait(5)
        until(lambda: pool.condition("Ready") == ("False", "BothSick"))
        assert pool.condition("FallbackReady") == ("False", "FallbackSick")
        assert pool.status()["active"]["count"] == 1, "nothing moves when nothing would be better"

        cloud, node = servers.livekit(second, CLOUD), servers.livekit(pool.ports, pool.keys())
        active = until(lambda: (a := pool.status()["active"])["target"] == "SelfHosted" and a)
        assert (active["reason"], active["count"]) == ("PoolRecovered", 2)
        until(lambda: pool.told()["active"] == "SelfHosted")
        assert until(lambda: pool.events("PoolRecovered")) == ["Normal"]

        until(lambda: pool.condition("FallbackReady") == ("True", "Answers"))
        os.kill(node.pid, signal.SIGSTOP)
        active = until(lambda: (a := pool.status()["active"])["target"] == "Fallback" and a)
        assert "does not answer" in active["message"]
        os.kill(node.pid, signal.SIGCONT)
        until(lambda: pool.status()["active"]["count"] == 4)
    finally:
        pool.close()


@pytest.mark.usefixtures("operator")
def test_a_redis_that_is_away_is_no_failover(api: httpx.Client, namespace: str, ledger: Any, servers: Servers) -> None:
    port, second = free_port(), ports()
    redis = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", ""]
    store = servers.start(redis)
    servers.livekit(second, CLOUD)
    data = {"api-key": CLOUD[0], "api-secret": CLOUD[1]}
    secret = {"metadata": {"name": "cloud"}, "stringData": data}
    api.post(f"/api/v1/namespaces/{RELEASE}/secrets", json=secret).raise_for_status()
    fallback = {"mode": "Auto", "url": f"ws://127.0.0.1:{second['http']}", "secretRef": {"name": "cloud"}}
    pool = Pool(api, ledger, namespace, fallback=fallback, redis={"address": f"127.0.0.1:{port}"})
    try:
        servers.livekit(pool.ports, pool.keys(), f"127.0.0.1:{port}")
        pool.make_pod()
        until(lambda: pool.condition("Ready") == ("True", "Ready"))
        store.kill()
        store.wait(5)
        until(lambda: pool.condition("NodesHealthy") == ("Unknown", "RedisAway"))
        seen = set()
        looked = time.monotonic()
        while time.monotonic() - looked < 12:  # 406 comes after 4 s, three rounds of it make a node sick
            seen.add((pool.status()["active"]["target"], pool.condition("NodesHealthy")[1]))
            time.sleep(0.3)
        assert seen == {("SelfHosted", "RedisAway")}
        servers.start(redis)
        until(lambda: pool.condition("Ready") == ("True", "Ready"))
        assert pool.status()["active"]["count"] == 0
    finally:
        pool.close()
