"""A Project without `endpoint` dials api.openai.com over TLS; agents trust the CAs they are told to trust.

The cluster has no way out: its DNS leads the name to a stand-in whose certificate a CA of this test has signed.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from hack.demo import release
from tests.certificates import Authority
from tests.conftest import locked_real_sessions
from tests.e2e.house import House, eventually
from tests.e2e.stranger import Server, run_client, settled

HOST = "api.openai.com"
PLACE = "behind-a-proxy"
STUDY = "no-endpoint"
STAND_IN = "stand-in"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


@pytest.fixture(scope="module")
def stand_in(house: House, authority: Authority) -> Iterator[Callable[[], bool]]:
    """The provider's public address, as far as this cluster can tell once the returned call has waited for its DNS."""
    chain, key = authority.issue(HOST)
    server = Server(PLACE, STAND_IN, f"talktime/simulator:{house.images.tag}", 8443, 443, "stand-in-tls")
    namespace, *workload = server.manifests()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "stand-in-tls", "namespace": PLACE},
        "stringData": {"tls.crt": chain, "tls.key": key},
    }
    # What an interrupted run left would answer with the certificate of another CA.
    house.kube("delete", "namespace", PLACE, "--ignore-not-found", "--timeout=180s")
    house.kube("apply", "-f", "-", stdin=json.dumps(listed(namespace, secret, *workload)))
    try:
        house.kube("-n", PLACE, "rollout", "status", f"deploy/{STAND_IN}", "--timeout=120s")
        address = house.kube.json("-n", PLACE, "get", "service", STAND_IN)["spec"]["clusterIP"]
        with named_in_dns(house, address) as known:
            yield known
    finally:
        house.kube("delete", "namespace", PLACE, "--wait=false")


@contextlib.contextmanager
def named_in_dns(house: House, address: str) -> Iterator[Callable[[], bool]]:
    """While the block runs the cluster's DNS is told of HOST; yields what waits until it knows."""

    def answer(text: str) -> None:
        patch = json.dumps({"data": {"hosts": text}})
        house.kube("-n", "kube-system", "patch", "configmap", "coredns", "--type=merge", "--patch", patch)

    def known() -> bool:
        ask = f"import socket; print(*socket.gethostbyname_ex({HOST!r})[2])"
        with contextlib.suppress(RuntimeError):
            return house.kube("-n", PLACE, "exec", f"deploy/{STAND_IN}", "--", "python", "-c", ask).strip() == address
        return False

    before = str(house.kube.json("-n", "kube-system", "get", "configmap", "coredns")["data"]["hosts"])
    # A line that an interrupted run left is not put back.
    others = [line for line in before.splitlines() if HOST not in line.split()]
    try:
        answer("\n".join([*others, f"{address} {HOST}", ""]))
        yield lambda: eventually(f"the cluster's DNS knows {HOST}", known, 120, every=2)
    finally:
        answer("".join(f"{line}\n" for line in others))


@pytest.fixture(scope="module")
def trusting(house: House, stand_in: Callable[[], bool], authority: Authority) -> Iterator[str]:
    """Talktime upgraded to a bundle; the name of the agents' Deployment that had been there before."""
    bundle = house.folder / "ca-bundle.pem"
    bundle.write_text(authority.pem)
    try:
        house.install({"children.caBundle": bundle})
        yield "talktime-agent-interviews"
    finally:
        house.install()


@pytest.fixture(scope="module")
def study(house: House, stand_in: Callable[[], bool], trusting: str) -> Iterator[None]:
    stand_in()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "openai", "namespace": PLACE},
        "stringData": {"api-key": "any-key"},
    }
    house.kube("apply", "-f", "-", stdin=json.dumps(listed(secret, project())))
    release.wait_ready(house.kube, PLACE, STUDY)
    yield
    house.kube("delete", "project", STUDY, "-n", PLACE, "--wait=false")


def project() -> dict[str, Any]:
    """As a team with an OpenAI key writes it: no `endpoint`."""
    provider = {
        "name": "openai",
        "api": "OpenAIRealtime",
        "model": "gpt-realtime-2.1-mini",
        "secretRef": {"name": "openai", "key": "api-key"},
        "caps": {"contextTokens": 2000, "responseSeconds": 15},
    }
    return {
        "apiVersion": "talktime.dev/v1alpha1",
        "kind": "Project",
        "metadata": {"name": STUDY, "namespace": PLACE},
        "spec": {
            "budget": {"amount": "5", "session": {"limit": "0.80"}},
            "providers": [provider],
            "agent": {"instructions": "You ask people about their morning. " * 12, "greeting": "Say hello and ask."},
            "media": {"poolRef": {"name": "eu"}},
        },
    }


def listed(*items: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}


def provider_log(house: House, authority: Authority) -> list[dict[str, Any]]:
    """The stand-in's log; it is served over the same TLS as the sessions and over nothing else."""
    context = ssl.create_default_context(cadata=authority.pem)
    with (
        house.kube.forward(PLACE, f"svc/{STAND_IN}", 443) as local,
        urllib.request.urlopen(f"https://127.0.0.1:{local}/log", timeout=30, context=context) as answer,
    ):
        return [json.loads(line) for line in answer.read().decode().splitlines()]


def test_agents_that_were_there_before_roll_to_the_bundle(house: House, trusting: str) -> None:
    def mounted() -> str | None:
        volumes = house.kube.json("-n", "demo", "get", "deploy", trusting)["spec"]["template"]["spec"]["volumes"]
        return next((v["configMap"]["name"] for v in volumes if v["name"] == "ca"), None)

    name = eventually("the operator gives the bundle to agents", mounted, 240, every=1)
    assert name.startswith("interviews-ca-")
    house.kube("-n", "demo", "rollout", "status", f"deploy/{trusting}", "--timeout=180s")


def test_without_an_endpoint_the_interview_is_held_at_the_public_address_over_tls(
    house: House, authority: Authority, study: None
) -> None:
    with locked_real_sessions():
        heard = run_client(house, PLACE, STUDY)
    assert heard["loud_seconds"] > 2, heard
    log = provider_log(house, authority)
    sessions = {record["provider_session"] for record in log if record["event"] == "session.created"}
    answered = {record["provider_session"] for record in log if record["event"] == "response.done"}
    assert len(sessions) >= 1
    assert answered
    assert answered <= sessions
    status = settled(house, PLACE, STUDY)
    assert Decimal("0") < Decimal(status["budget"]["posted"]) < Decimal("0.80")
    credentials = next(c for c in status["conditions"] if c["type"] == "CredentialsValid")
    assert (credentials["status"], credentials["reason"]) == ("True", "ProviderAccepted"), credentials
