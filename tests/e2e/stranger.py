"""What journeys with Projects of others share: a server that speaks OpenAI Realtime, a stock client, and its bill."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from hack.demo.release import NAMESPACE
from tests.e2e.house import House, eventually

CLIENT = Path(__file__).with_name("stock_client.py")
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}


@dataclass(frozen=True)
class Server:
    """A server in a namespace of its own. `tls_secret`: a kubernetes.io/tls Secret there; empty: plain HTTP."""

    namespace: str
    name: str
    image: str
    port: int
    service_port: int
    tls_secret: str = ""

    def manifests(self) -> list[dict[str, Any]]:
        """Namespace, Deployment, Service."""
        labels = {"app": self.name}
        metadata = {"name": self.name, "namespace": self.namespace}
        port = {"port": self.service_port, "targetPort": self.port}
        return [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": metadata,
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": self._pod()},
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"selector": labels, "ports": [port]},
            },
        ]

    def _pod(self) -> dict[str, Any]:
        command = ["python", "-m", "talktime_simulator", "serve", "--port", str(self.port)]
        probe: dict[str, Any] = {"path": "/healthz", "port": self.port}
        container: dict[str, Any] = {
            "name": "server",
            "image": self.image,
            "command": command,
            "ports": [{"containerPort": self.port}],
            "env": [{"name": "HOME", "value": "/tmp"}],
            "readinessProbe": {"httpGet": probe, "periodSeconds": 1},
            "securityContext": SECURITY,
        }
        pod: dict[str, Any] = {"containers": [container]}
        if self.tls_secret:
            command += ["--tls-cert", "/tls/tls.crt", "--tls-key", "/tls/tls.key"]
            probe["scheme"] = "HTTPS"
            container["volumeMounts"] = [{"name": "tls", "mountPath": "/tls", "readOnly": True}]
            pod["volumes"] = [{"name": "tls", "secret": {"secretName": self.tls_secret}}]
        return pod


def run_client(house: House, namespace: str, project: str) -> dict[str, Any]:
    """The stock client stays half a minute in the Project, as a pod of its namespace; what it heard and saw."""
    inside = ["-n", namespace]
    endpoint = f"http://talktime-gateway.{NAMESPACE}.svc:8080/v1/projects/{namespace}/{project}/token"
    container = {
        "name": "client",
        "image": f"talktime/simulator:{house.images.tag}",
        "command": ["python", "-c", CLIENT.read_text(), endpoint, "30"],
        "env": [
            {"name": "KEY", "value": house.kube.secret(namespace, f"{project}-access", "server-key")},
            {"name": "HOME", "value": "/tmp"},
        ],
        "securityContext": SECURITY,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": namespace},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    # A second go (ADR 8) is not to read what the first one said.
    house.kube(*inside, "delete", "pod", "client", "--ignore-not-found", "--grace-period=1")
    house.kube("apply", "-f", "-", stdin=json.dumps(pod))

    def phase() -> str | None:
        now = str(house.kube.json(*inside, "get", "pod", "client")["status"]["phase"])
        return now if now in ("Succeeded", "Failed") else None

    ended = eventually("the client is done", phase, 300, every=1)
    said = house.kube(*inside, "logs", "client")
    assert ended == "Succeeded", said
    last: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return last


def settled(house: House, namespace: str, project: str) -> dict[str, Any]:
    """The Project's status once its session is over and paid for."""

    def counted() -> dict[str, Any] | None:
        status: dict[str, Any] = house.project(namespace, project).get("status", {})
        if "sessions" not in status or "budget" not in status:
            return None  # one that was just applied
        over = status["sessions"]["open"] == 0 and Decimal(status["budget"]["posted"]) > 0
        return status if over and Decimal(status["budget"]["reserved"]) == 0 else None

    return eventually("the session is over and its cost stands on the Project", counted, 240)
