"""A Project nobody here knows: other namespace, names, budget, key and provider address; a stock LiveKit client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hack.demo.release import NAMESPACE, wait_ready
from tests.conftest import locked_real_sessions
from tests.e2e.house import House, eventually

PLACE = "university-of-somewhere"
STUDY = "sleep-and-work-7"
SERVER = "their-realtime"
CLIENT = Path(__file__).with_name("stock_client.py")
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}


def their_server(image: str) -> list[dict[str, Any]]:
    """Another server that speaks OpenAI Realtime, in their namespace, on a port of their own."""
    labels = {"app": SERVER}
    container = {
        "name": "server",
        "image": image,
        "command": ["python", "-m", "talktime_simulator", "serve", "--port", "9443"],
        "ports": [{"containerPort": 9443}],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 9443}, "periodSeconds": 1},
        "securityContext": SECURITY,
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLACE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": SERVER, "namespace": PLACE},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": SERVER, "namespace": PLACE},
            "spec": {"selector": labels, "ports": [{"port": 9443}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "llm-credentials", "namespace": PLACE},
            "stringData": {"token-for-speech": "any-key-of-theirs"},
        },
    ]


def their_project() -> dict[str, Any]:
    provider = {
        "name": "house-model",
        "api": "OpenAIRealtime",
        "model": "gpt-realtime-mini",
        "secretRef": {"name": "llm-credentials", "key": "token-for-speech"},
        "endpoint": f"http://{SERVER}.{PLACE}.svc:9443/v1",
        "caps": {"contextTokens": 2000, "responseSeconds": 15},
    }
    return {
        "apiVersion": "talktime.dev/v1alpha1",
        "kind": "Project",
        "metadata": {"name": STUDY, "namespace": PLACE},
        "spec": {
            "budget": {"amount": "3.21", "session": {"limit": "0.77"}},
            "providers": [provider],
            "agent": {"instructions": "You ask shift workers how they sleep. " * 12, "greeting": "Say hello and ask."},
            "media": {"poolRef": {"name": "eu"}},
        },
    }


@pytest.fixture(scope="module")
def study(house: House) -> Iterator[None]:
    image = f"talktime/simulator:{house.images.tag}"
    everything = {"apiVersion": "v1", "kind": "List", "items": [*their_server(image), their_project()]}
    house.kube("apply", "-f", "-", stdin=json.dumps(everything))
    house.kube("-n", PLACE, "rollout", "status", f"deploy/{SERVER}", "--timeout=120s")
    wait_ready(house.kube, PLACE, STUDY)
    yield
    house.kube("delete", "project", STUDY, "-n", PLACE, "--wait=false")
    house.kube("delete", "namespace", PLACE, "--wait=false")


def test_a_strangers_project_holds_an_interview_with_a_stock_client(house: House, study: None) -> None:
    key = house.kube.secret(PLACE, f"{STUDY}-access", "server-key")
    endpoint = f"http://talktime-gateway.{NAMESPACE}.svc:8080/v1/projects/{PLACE}/{STUDY}/token"
    with locked_real_sessions():
        heard = run_client(house, endpoint, key)
    assert heard["loud_seconds"] > 2, heard
    assert any(identity.startswith("agent") for identity in heard["identities"]), heard

    def counted() -> dict[str, Any] | None:
        status: dict[str, Any] = house.project(PLACE, STUDY)["status"]
        over = status["sessions"]["open"] == 0 and Decimal(status["budget"]["posted"]) > 0
        return status if over and Decimal(status["budget"]["reserved"]) == 0 else None

    status = eventually("the session is over and its cost stands on the Project", counted, 90)
    assert Decimal(status["budget"]["posted"]) < Decimal("0.77")
    assert status["budget"]["state"] == "OK"


def run_client(house: House, endpoint: str, key: str) -> dict[str, Any]:
    """The stock client in a pod of their namespace; its last line."""
    inside = ["-n", PLACE]
    container = {
        "name": "client",
        "image": f"talktime/simulator:{house.images.tag}",
        "command": ["python", "-c", CLIENT.read_text(), endpoint, "30"],
        "env": [{"name": "KEY", "value": key}, {"name": "HOME", "value": "/tmp"}],
        "securityContext": SECURITY,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": PLACE},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    house.kube("apply", "-f", "-", stdin=json.dumps(pod))

    def phase() -> str | None:
        now = str(house.kube.json(*inside, "get", "pod", "client")["status"]["phase"])
        return now if now in ("Succeeded", "Failed") else None

    ended = eventually("the client is done", phase, 120, every=1)
    said = house.kube(*inside, "logs", "client")
    assert ended == "Succeeded", said
    last: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return last
