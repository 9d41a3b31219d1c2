"""A Project nobody here knows: other namespace, names, budget, key and provider address; a stock LiveKit client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from hack.demo.release import wait_ready
from tests.conftest import locked_real_sessions
from tests.e2e.house import House
from tests.e2e.stranger import Server, run_client, settled

PLACE = "university-of-somewhere"
STUDY = "sleep-and-work-7"
SERVER = "their-realtime"


def their_secret() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "llm-credentials", "namespace": PLACE},
        "stringData": {"token-for-speech": "any-key-of-theirs"},
    }


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
    """Another server that speaks OpenAI Realtime, in their namespace, on a port of their own; and their Project."""
    server = Server(PLACE, SERVER, f"talktime/simulator:{house.images.tag}", 9443, 9443)
    items = [*server.manifests(), their_secret(), their_project()]
    house.kube("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    house.kube("-n", PLACE, "rollout", "status", f"deploy/{SERVER}", "--timeout=120s")
    wait_ready(house.kube, PLACE, STUDY)
    yield
    house.kube("delete", "project", STUDY, "-n", PLACE, "--wait=false")
    house.kube("delete", "namespace", PLACE, "--wait=false")


def test_a_strangers_project_holds_an_interview_with_a_stock_client(house: House, study: None) -> None:
    with locked_real_sessions():
        heard = run_client(house, PLACE, STUDY)
    assert heard["loud_seconds"] > 2, heard
    assert any(identity.startswith("agent") for identity in heard["identities"]), heard
    status = settled(house, PLACE, STUDY)
    assert Decimal(status["budget"]["posted"]) < Decimal("0.77")
    assert status["budget"]["state"] == "OK"
