"""Twin of children/sfu_statefulset.py"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_statefulset import build_sfu_statefulset
from talktime_operator.names import Key, Manifest, Owner


@pytest.fixture
def build(pool_key: Key, pool_owner: Owner, pool_spec: Callable[..., SFUPoolSpec]) -> Callable[..., Manifest]:
    def make(**spec: object) -> Manifest:
        return build_sfu_statefulset(pool_key, pool_owner, pool_spec(**spec), 2, "livekit:1", "IfNotPresent")

    return make


def _pod(manifest: Manifest) -> Manifest:
    return dict(manifest["spec"]["template"]["spec"])


def test_nodes_are_on_the_hosts_network_one_per_machine(build: Callable[..., Manifest]) -> None:
    pod = _pod(build())
    assert pod["hostNetwork"] is True
    assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    (term,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    (container,) = pod["containers"]
    assert [(p["name"], p["hostPort"], p["protocol"]) for p in container["ports"]] == [
        ("http", 7880, "TCP"),
        ("rtc-tcp", 7881, "TCP"),
        ("rtc-udp", 7882, "UDP"),
        ("metrics", 6789, "TCP"),
    ]
    assert container["args"] == ["--config=/etc/livekit/livekit.yaml", "--node-ip=$(NODE_IP)"]


def test_no_probe_asks_for_slash(build: Callable[..., Manifest]) -> None:
    (container,) = _pod(build())["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["tcpSocket"] == {"port": "http"}
        assert "httpGet" not in container[probe]


def test_the_drain_deadline_is_the_grace(build: Callable[..., Manifest]) -> None:
    assert _pod(build())["terminationGracePeriodSeconds"] == 7200 + 30
    assert _pod(build(drain={"deadline": "10m"}))["terminationGracePeriodSeconds"] == 630


def test_others_may_not_read_the_key_file(build: Callable[..., Manifest]) -> None:
    (keys,) = [v for v in _pod(build())["volumes"] if v["name"] == "keys"]
    assert keys["secret"]["defaultMode"] & 0o007 == 0


def test_a_changed_configuration_makes_new_pods(build: Callable[..., Manifest]) -> None:
    one = build()["spec"]["template"]["metadata"]["annotations"]["talktime.dev/config"]
    two = build(autoscaling={"sessionsPerNode": 7})["spec"]["template"]["metadata"]["annotations"][
        "talktime.dev/config"
    ]
    assert one != two


@pytest.mark.parametrize(
    ("redis", "source"),
    [
        ({}, {"name": "sfu-eu-keys", "key": "redis-password", "optional": False}),
        ({"address": "r:1"}, None),
        (
            {"address": "r:1", "passwordSecretRef": {"name": "mine"}},
            {"name": "mine", "key": "password", "optional": False},
        ),
    ],
)
def test_the_redis_password_comes_from_a_secret(
    build: Callable[..., Manifest], redis: dict[str, object], source: dict[str, object] | None
) -> None:
    (container,) = _pod(build(redis=redis))["containers"]
    environment = {e["name"]: e["valueFrom"] for e in container["env"]}
    assert environment["LIVEKIT_WEBHOOK_API_KEY"]["secretKeyRef"] == {"name": "sfu-eu-keys", "key": "api-key"}
    assert environment.get("REDIS_PASSWORD", {}).get("secretKeyRef") == source


def test_a_public_address_is_found_by_the_node_itself(build: Callable[..., Manifest]) -> None:
    (container,) = _pod(build(network={"useExternalIP": True}))["containers"]
    assert container["args"] == ["--config=/etc/livekit/livekit.yaml"]
