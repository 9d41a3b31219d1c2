"""What an SRE gives to a pool's nodes: noticed when it changes; missing, it is named and nobody drains for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.pools.pool_secrets import Given, Wanted, given, wanted

TURN = {"turn": {"domain": "turn.acme.test"}, "tlsSecretRef": {"name": "cert"}}
REDIS = {
    "address": "r:6380",
    "tls": True,
    "caSecretRef": {"name": "acme-ca"},
    "passwordSecretRef": {"name": "acme-password"},
}
CERT = Wanted("network.tlsSecretRef", "cert", ("tls.crt", "tls.key"))
PASSWORD = Wanted("redis.passwordSecretRef", "acme-password", ("password",))
CA = Wanted("redis.caSecretRef", "acme-ca", ("ca.crt",))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"network": TURN}, [CERT]),
        # A certificate without TURN is not used.
        ({"network": {"tlsSecretRef": {"name": "cert"}}}, []),
        ({"redis": REDIS}, [PASSWORD, CA]),
        ({"network": TURN, "redis": REDIS}, [CERT, PASSWORD, CA]),
    ],
)
def test_what_is_read(pool_spec: Callable[..., SFUPoolSpec], spec: dict[str, object], expected: list[Wanted]) -> None:
    assert wanted(pool_spec(**spec)) == expected


def test_what_redis_is_asked_with() -> None:
    made = given([(PASSWORD, {"password": "pw"}), (CA, {"ca.crt": "PEM"})], "talktime")
    assert (made.password, made.ca, made.problem, made.findings()) == ("pw", "PEM", "", [])
    assert "pw" not in repr(made)


def test_a_new_certificate_is_another_fingerprint_and_other_entries_are_none() -> None:
    first = given([(CERT, {"tls.crt": "a", "tls.key": "k"})], "talktime").fingerprint
    assert given([(CERT, {"tls.crt": "a", "tls.key": "k", "ca.crt": "x"})], "talktime").fingerprint == first
    assert given([(CERT, {"tls.crt": "b", "tls.key": "k"})], "talktime").fingerprint != first
    assert given([], "talktime").fingerprint == ""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, "spec.network.tlsSecretRef.name: there is no Secret 'cert' in namespace 'talktime': create it with"),
        ({"tls.crt": "a"}, "spec.network.tlsSecretRef.name: Secret 'cert' has no 'tls.key': add it"),
        ({"tls.crt": "a", "tls.key": ""}, "spec.network.tlsSecretRef.name: Secret 'cert' has no 'tls.key': add it"),
    ],
)
def test_what_is_missing_is_named_and_drains_nobody(data: dict[str, str] | None, text: str) -> None:
    made = given([(CERT, data)], "talktime")
    (finding,) = made.findings()
    assert finding.message.startswith(text)
    assert (finding.type, finding.status, finding.reason) == ("SecretsFound", "False", "SecretMissing")
    assert made.fingerprint_or(["", "as it was"]) == "as it was"
    assert made.fingerprint_or([]) == ""


def test_what_is_there_is_wanted_whatever_runs() -> None:
    assert Given("new").fingerprint_or(["as it was"]) == "new"
    assert Given("").fingerprint_or(["as it was"]) == ""
