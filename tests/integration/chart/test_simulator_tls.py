"""The simulator's certificate: made once by the chart, good for the Service's names, or one of your own."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from .conftest import Render

NAMES = ("talktime-simulator", "talktime-simulator.talktime", "talktime-simulator.talktime.svc")


@pytest.fixture(scope="module")
def made(render: Render) -> list[dict[str, Any]]:
    return render("simulator.enabled=true")


def secrets(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [m for m in manifests if m["kind"] == "Secret" and m["metadata"]["name"] == "talktime-simulator-tls"]


def pod(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (template,) = [
        m["spec"]["template"]
        for m in manifests
        if m["kind"] == "Deployment" and m["metadata"]["name"] == "talktime-simulator"
    ]
    return dict(template)


@pytest.mark.parametrize("name", NAMES)
def test_clients_that_trust_the_ca_take_the_certificate_for_the_service(made: list[dict[str, Any]], name: str) -> None:
    (secret,) = secrets(made)
    assert secret["type"] == "kubernetes.io/tls"
    data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
    store = Store([x509.load_pem_x509_certificate(data["ca.crt"])])
    verifier = PolicyBuilder().store(store).time(datetime.now(UTC)).build_server_verifier(x509.DNSName(name))
    assert verifier.verify(x509.load_pem_x509_certificate(data["tls.crt"]), [])


def test_the_server_reads_it_and_serves_it_on_8443(made: list[dict[str, Any]]) -> None:
    spec = pod(made)["spec"]
    command = spec["containers"][0]["command"]
    assert {"--tls-port=8443", "--tls-cert=/tls/tls.crt", "--tls-key=/tls/tls.key"} <= set(command)
    assert {"name": "tls", "secret": {"secretName": "talktime-simulator-tls"}} in spec["volumes"]
    (service,) = [m for m in made if m["kind"] == "Service" and m["metadata"]["name"] == "talktime-simulator"]
    assert [port["port"] for port in service["spec"]["ports"]] == [8080, 8443]


def test_a_secret_of_your_own_is_used_instead(render: Render) -> None:
    manifests = render("simulator.enabled=true", "simulator.tls.secretName=mine")
    assert secrets(manifests) == []
    assert {"name": "tls", "secret": {"secretName": "mine"}} in pod(manifests)["spec"]["volumes"]


def test_without_the_simulator_there_is_no_certificate(render: Render) -> None:
    assert secrets(render()) == []
