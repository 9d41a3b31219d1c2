"""Twin of children/sfu_services.py"""

from __future__ import annotations

from collections.abc import Callable

from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_services import (
    build_headless_service,
    build_signal_service,
    in_cluster_url,
    public_url,
)
from talktime_operator.names import Key, Owner


def test_signal_and_headless(pool_key: Key, pool_owner: Owner, pool_spec: Callable[..., SFUPoolSpec]) -> None:
    signal = build_signal_service(pool_key, pool_owner, pool_spec())
    headless = build_headless_service(pool_key, pool_owner, pool_spec())
    assert signal["metadata"]["name"] == "sfu-eu"
    assert signal["spec"]["ports"][0]["port"] == 7880
    assert headless["metadata"]["name"] == "sfu-eu-nodes"
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["publishNotReadyAddresses"] is True


def test_signals_go_to_open_nodes_where_there_are_some_and_else_to_all(
    pool_key: Key, pool_owner: Owner, pool_spec: Callable[..., SFUPoolSpec]
) -> None:
    every = build_signal_service(pool_key, pool_owner, pool_spec())["spec"]["selector"]
    some = build_signal_service(pool_key, pool_owner, pool_spec(), only_open=True)["spec"]["selector"]
    assert "talktime.dev/signal" not in every
    assert some == every | {"talktime.dev/signal": "open"}


def test_urls(pool_key: Key, pool_spec: Callable[..., SFUPoolSpec]) -> None:
    assert in_cluster_url(pool_key, pool_spec()) == public_url(pool_key, pool_spec()) == "ws://sfu-eu.talktime.svc:7880"
    spec = pool_spec(network={"publicURL": "wss://rtc.acme.org"})
    assert public_url(pool_key, spec) == "wss://rtc.acme.org"
    assert in_cluster_url(pool_key, spec) == "ws://sfu-eu.talktime.svc:7880"
