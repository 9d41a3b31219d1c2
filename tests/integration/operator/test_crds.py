"""What the API server itself accepts and refuses, and with which words."""

from __future__ import annotations

import copy
import uuid
from typing import Any

import httpx
import pytest

GROUP = "/apis/talktime.dev/v1alpha1"

PROJECT: dict[str, Any] = {
    "apiVersion": "talktime.dev/v1alpha1",
    "kind": "Project",
    "metadata": {"name": "study"},
    "spec": {
        "budget": {"amount": "5", "session": {"limit": "0.50"}},
        "providers": [
            {
                "name": "openai",
                "api": "OpenAIRealtime",
                "model": "gpt-realtime-2.1-mini",
                "secretRef": {"name": "openai"},
            }
        ],
        "agent": {"instructions": "Ask about the commute."},
        "media": {"poolRef": {"name": "eu"}},
    },
}
POOL: dict[str, Any] = {
    "apiVersion": "talktime.dev/v1alpha1",
    "kind": "SFUPool",
    "metadata": {"name": "eu"},
    "spec": {},
}
CARD: dict[str, Any] = {
    "apiVersion": "talktime.dev/v1alpha1",
    "kind": "RateCard",
    "metadata": {"name": "openai-mini"},
    "spec": {
        "provider": "openai",
        "model": "gpt-realtime-2.1-mini",
        "entries": [
            {
                "effectiveFrom": "2026-01-01T00:00:00Z",
                "meters": {"audio_in": {"usdPerMillion": "10"}, "image_in": {"absent": True}},
                "source": "price page",
                "checkedAt": "2026-11-01",
            }
        ],
    },
}


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a dotted path (numbers index lists) replaced."""
    out = copy.deepcopy(body)
    *parents, last = path.split(".")
    node: Any = out
    for part in parents:
        node = node[int(part)] if part.isdigit() else node.setdefault(part, {})
    if isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value
    return out


def place(namespace: str, body: dict[str, Any]) -> str:
    """Where objects of this kind are."""
    plural = {"Project": "projects", "SFUPool": "sfupools", "RateCard": "ratecards"}[body["kind"]]
    return f"{GROUP}/{plural}" if body["kind"] == "RateCard" else f"{GROUP}/namespaces/{namespace}/{plural}"


def create(api: httpx.Client, namespace: str, body: dict[str, Any]) -> httpx.Response:
    # kubectl sends fieldValidation=Strict by default; a typo must be an error and not be dropped.
    return api.post(place(namespace, body), params={"fieldValidation": "Strict"}, json=body)


def unique_card() -> dict[str, Any]:
    return changed(CARD, "metadata.name", f"card-{uuid.uuid4().hex[:8]}")


def test_the_smallest_project_is_accepted_and_defaults_are_visible(api: httpx.Client, namespace: str) -> None:
    answer = create(api, namespace, PROJECT)
    assert answer.status_code == 201, answer.text
    spec = answer.json()["spec"]
    assert spec["budget"]["softPercent"] == 80
    assert spec["budget"]["period"] == "Total"
    assert spec["budget"]["onProjectSoft"] == "WrapUpIfShort"
    assert spec["providers"][0]["caps"] == {"contextTokens": 8000, "responseSeconds": 60}
    assert spec["providers"][0]["secretRef"]["key"] == "api-key"
    assert "{minutes}" in spec["agent"]["wrapUp"]


def test_the_smallest_pool_has_every_default(api: httpx.Client, namespace: str) -> None:
    answer = create(api, namespace, POOL)
    assert answer.status_code == 201, answer.text
    spec = answer.json()["spec"]
    assert spec["autoscaling"] == {"min": 1, "max": 3, "sessionsPerNode": 100, "headroomPercent": 20}
    assert spec["network"]["ports"] == {"http": 7880, "tcp": 7881, "udp": 7882, "metrics": 6789}
    assert spec["drain"]["deadline"] == "2h"
    assert spec["health"]["mediaProbe"] is True
    assert "replicas" not in spec


def test_a_rate_card_is_accepted(api: httpx.Client, namespace: str) -> None:
    answer = create(api, namespace, unique_card())
    assert answer.status_code == 201, answer.text


def test_a_project_with_a_model_without_price_is_accepted(api: httpx.Client, namespace: str) -> None:
    assert create(api, namespace, changed(PROJECT, "spec.providers.0.model", "unpriced-9")).status_code == 201


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.budget.softPercent", 101, ["spec.budget.softPercent", "less than or equal to 100"]),
        ("spec.budget.softPercent", 0, ["spec.budget.softPercent", "greater than or equal to 1"]),
        ("spec.budget.session.limit", "6", ["spec.budget.session.limit", "lower session.limit too"]),
        ("spec.budget.session.limit", "0", ["spec.budget.session.limit", "above 0"]),
        ("spec.budget.participant", {"limit": "9"}, ["lower participant.limit too"]),
        ("spec.budget.amount", "-1", ["spec.budget.amount", "should match"]),
        ("spec.budget.amount", "1k", ["spec.budget.amount", "should match"]),
        ("spec.budget.amount", "1e3", ["spec.budget.amount", "should match"]),
        ("spec.budget.amount", "0.1234567", ["spec.budget.amount", "should match"]),
        ("spec.budget.amount", 5, ["spec.budget.amount", "must be of type string"]),
        ("spec.budget.period", "Weekly", ["spec.budget.period", '"Total", "Monthly"']),
        ("spec.budget.amonut", "5", ['unknown field "spec.budget.amonut"']),
        ("spec.agent.sessionPerReplica", 3, ['unknown field "spec.agent.sessionPerReplica"']),
        ("spec.agent.configMapRef", {"name": "x"}, ["exactly one of agent.instructions and agent.configMapRef"]),
        ("spec.agent.minReplicas", 11, ["agent.minReplicas must not be above agent.maxReplicas"]),
        ("spec.agent.resources", {"requests": {"cpu": "a lot"}}, ["spec.agent.resources.requests.cpu"]),
        ("spec.providers", [], ["spec.providers", "at least 1 items"]),
        ("spec.providers.0.api", "Realtime", ["spec.providers[0].api", '"OpenAIRealtime", "GeminiLive"']),
        ("metadata.name", "a" * 41, ["metadata.name", "40"]),
    ],
)
def test_a_wrong_project_is_refused_with_the_field_and_the_reason(
    api: httpx.Client, namespace: str, path: str, value: Any, words: list[str]
) -> None:
    answer = create(api, namespace, changed(PROJECT, path, value))
    assert answer.status_code in (400, 422), answer.text
    for word in words:
        assert word in answer.json()["message"]


def test_two_providers_with_one_name_are_refused(api: httpx.Client, namespace: str) -> None:
    one = PROJECT["spec"]["providers"][0]
    answer = create(api, namespace, changed(PROJECT, "spec.providers", [one, {**one, "model": "other"}]))
    assert answer.status_code == 422
    message = answer.json()["message"]
    assert "spec.providers[1]" in message
    assert "Duplicate value" in message


def test_lowering_the_budget_below_the_session_limit_says_what_to_do(api: httpx.Client, namespace: str) -> None:
    assert create(api, namespace, PROJECT).status_code == 201
    answer = api.patch(
        f"{GROUP}/namespaces/{namespace}/projects/study",
        headers={"Content-Type": "application/merge-patch+json"},
        content='{"spec":{"budget":{"amount":"0.40"}}}',
    )
    assert answer.status_code == 422
    assert "lower session.limit too" in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.entries.0.meters", {}, ["spec.entries[0].meters", "at least 1 properties"]),
        ("spec.entries", [], ["spec.entries", "at least 1 items"]),
        ("spec.entries.0.meters.audio_in", {}, ["a meter needs exactly one of usdPerMillion"]),
        ("spec.entries.0.meters.audio_in", {"usdPerMillion": "1", "free": True}, ["exactly one of"]),
        ("spec.entries.0.meters.audio_in", {"usdPerMillion": "-1"}, ["should match"]),
        ("spec.entries.0.meters.Audio", {"usdPerMillion": "1"}, ["keys must match"]),
        ("spec.entries.0.checkedAt", "yesterday", ["spec.entries[0].checkedAt", "date"]),
        ("spec.provider", "acme", ["spec.provider", '"openai"']),
    ],
)
def test_a_wrong_rate_card_is_refused(
    api: httpx.Client, namespace: str, path: str, value: Any, words: list[str]
) -> None:
    answer = create(api, namespace, changed(unique_card(), path, value))
    assert answer.status_code == 422, answer.text
    for word in words:
        assert word in answer.json()["message"]


def test_an_entry_without_the_field_meters_is_refused(api: httpx.Client, namespace: str) -> None:
    card = unique_card()
    del card["spec"]["entries"][0]["meters"]
    answer = create(api, namespace, card)
    assert answer.status_code == 422
    assert "spec.entries[0].meters: Required value" in answer.json()["message"]


TURN: dict[str, Any] = {"tlsSecretRef": {"name": "cert"}}
WIDE = {"domain": "turn.acme.test", "relayPorts": {"start": 41000, "end": 40000}}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.fallback", {"mode": "Auto"}, ["need fallback.url and fallback.secretRef"]),
        ("spec.autoscaling", {"min": 4, "max": 3}, ["autoscaling.min must not be above autoscaling.max"]),
        ("spec.drain", {"deadline": "soon"}, ["spec.drain.deadline", "should match"]),
        ("spec.network", {"publicUrl": "wss://x"}, ['unknown field "spec.network.publicUrl"']),
        ("spec.network", {"turn": {"domain": "turn.acme.test"}}, ["network.turn needs network.tlsSecretRef"]),
        ("spec.network", TURN | {"turn": {"domain": "turn acme"}}, ["spec.network.turn.domain", "should match"]),
        ("spec.network", TURN | {"turn": WIDE}, ["relayPorts.start must not be above"]),
        ("spec.redis", {"tls": True}, ["give redis.address, or remove them"]),
        ("spec.redis", {"passwordSecretRef": {"name": "pw"}}, ["give redis.address, or remove them"]),
        ("spec.redis", {"address": "r:1", "caSecretRef": {"name": "ca"}}, ["redis.caSecretRef needs redis.tls: true"]),
    ],
)
def test_a_wrong_pool_is_refused(api: httpx.Client, namespace: str, path: str, value: Any, words: list[str]) -> None:
    answer = create(api, namespace, changed(POOL, path, value))
    assert answer.status_code in (400, 422), answer.text
    for word in words:
        assert word in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.network", {"tlsSecretRef": {"name": "cert"}, "turn": {"domain": "turn.acme.test", "tlsPort": 443}}),
        ("spec.redis", {"address": "r:6380", "tls": True, "caSecretRef": {"name": "ca"}}),
        ("spec.health", {"mediaProbe": False, "restartSick": False}),
    ],
)
def test_a_right_pool_is_taken(api: httpx.Client, namespace: str, path: str, value: Any) -> None:
    answer = create(api, namespace, changed(POOL, path, value))
    assert answer.status_code == 201, answer.text


def test_kubectl_scale_sets_replicas_of_a_pool(api: httpx.Client, namespace: str) -> None:
    create(api, namespace, POOL)
    where = f"{GROUP}/namespaces/{namespace}/sfupools/eu"
    answer = api.patch(
        f"{where}/scale",
        headers={"Content-Type": "application/merge-patch+json"},
        content='{"spec":{"replicas":3}}',
    )
    assert answer.status_code == 200, answer.text
    assert api.get(where).json()["spec"]["replicas"] == 3


READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Ready",
    "message": "",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-11-22T12:00:00Z",
}
SPENDING = {
    "budget": {"posted": "1.2346", "usedPercent": "24.7%", "state": "OK"},
    "sessions": {"open": 2},
    "agents": {"summary": "1/2"},
    "media": {"active": "SelfHosted"},
    "conditions": [READY],
}
SERVING = {
    "active": {"target": "SelfHosted", "since": "2026-11-22T12:00:00Z"},
    "nodesSummary": "1/1",
    "sessions": 3,
    "conditions": [READY],
}
PRICED = {"entries": 1, "effectiveFrom": "2026-01-01T00:00:00Z", "conditions": [READY]}


@pytest.mark.parametrize(
    ("body", "status", "columns"),
    [
        (
            PROJECT,
            SPENDING,
            {
                "BUDGET": "5",
                "SPENT": "1.2346",
                "USED": "24.7%",
                "STATE": "OK",
                "SESSIONS": 2,
                "AGENTS": "1/2",
                "MEDIA": "SelfHosted",
            },
        ),
        (POOL, SERVING, {"ACTIVE": "SelfHosted", "NODES": "1/1", "SESSIONS": 3, "READY": "True"}),
        (
            unique_card(),
            PRICED,
            {
                "PROVIDER": "openai",
                "MODEL": "gpt-realtime-2.1-mini",
                "ENTRIES": 1,
                "EFFECTIVE": "2026-01-01T00:00:00Z",
                "READY": "True",
            },
        ),
    ],
    ids=["Project", "SFUPool", "RateCard"],
)
def test_the_columns_answer_the_next_question(
    api: httpx.Client, namespace: str, body: dict[str, Any], status: dict[str, Any], columns: dict[str, Any]
) -> None:
    made = create(api, namespace, body)
    assert made.status_code == 201, made.text
    where = place(namespace, body) + f"/{body['metadata']['name']}"
    told = api.patch(
        f"{where}/status", headers={"Content-Type": "application/merge-patch+json"}, json={"status": status}
    )
    assert told.status_code == 200, told.text
    table = api.get(where, headers={"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}).json()
    shown = [c["priority"] == 0 for c in table["columnDefinitions"]]
    names = [c["name"].upper() for c in table["columnDefinitions"]]
    cells = dict(zip(names, table["rows"][0]["cells"], strict=True))
    assert [name for name, first in zip(names, shown, strict=True) if first] == ["NAME", *columns, "AGE"]
    assert {name: cells[name] for name in columns} == columns


def test_status_is_a_subresource(api: httpx.Client, namespace: str) -> None:
    body = create(api, namespace, {**PROJECT, "status": {"observedGeneration": 7}})
    assert "status" not in body.json()
