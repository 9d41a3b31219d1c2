"""Twin of children/sfu_statefulset.py"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_statefulset import Images, Mounts, build_sfu_statefulset, template_digest
from talktime_operator.names import Key, Manifest, Owner

IMAGES = Images("livekit:1", "redis:1", "IfNotPresent")


@pytest.fixture
def build(pool_key: Key, pool_owner: Owner, pool_spec: Callable[..., SFUPoolSpec]) -> Callable[..., Manifest]:
    def make(**spec: object) -> Manifest:
        return build_sfu_statefulset(pool_key, pool_owner, pool_spec(**spec), "sfu-eu-4", IMAGES)

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
    assert container["args"] == ["--node-ip=$(NODE_IP)"]


def test_a_node_starts_once_the_redis_that_starts_beside_it_answers(build: Callable[..., Manifest]) -> None:
    (waiting,) = _pod(build())["initContainers"]
    assert waiting["image"] == "redis:1"
    assert waiting["command"][3:] == ["sfu-eu-redis.talktime.svc", "6379"]
    assert "initContainers" not in _pod(build(redis={"address": "redis.example.com:6379"}))


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


def test_each_node_has_a_set_of_its_own_and_only_the_operator_deletes_its_pod(build: Callable[..., Manifest]) -> None:
    made = build()
    spec = made["spec"]
    assert (made["metadata"]["name"], spec["replicas"], spec["updateStrategy"]) == ("sfu-eu-4", 1, {"type": "OnDelete"})
    # What is taken from a pod that drains must not be what its StatefulSet knows it by.
    labels = spec["template"]["metadata"]["labels"]
    assert labels == spec["selector"]["matchLabels"] | {"talktime.dev/signal": "open"}
    assert "talktime.dev/signal" not in spec["selector"]["matchLabels"]
    assert spec["selector"]["matchLabels"]["talktime.dev/node"] == "sfu-eu-4"


def test_a_node_that_hangs_is_restarted_quickly_a_deleted_one_drains(build: Callable[..., Manifest]) -> None:
    pod = _pod(build())
    (container,) = pod["containers"]
    assert container["livenessProbe"]["terminationGracePeriodSeconds"] == 5
    assert pod["terminationGracePeriodSeconds"] > 7200


def _template(made: Manifest) -> str:
    return str(made["spec"]["template"]["metadata"]["annotations"]["talktime.dev/template"])


@pytest.mark.parametrize(
    ("change", "new"),
    [
        ({"autoscaling": {"sessionsPerNode": 7}}, True),
        ({"network": {"ports": {"udp": 7000}}}, True),
        ({"nodeSelector": {"pool": "a"}}, True),
        ({"drain": {"deadline": "10m"}}, False),
        ({"replicas": 5}, False),
    ],
)
def test_what_a_node_runs_decides_whether_it_is_outdated(
    build: Callable[..., Manifest], change: dict[str, object], new: bool
) -> None:
    assert (_template(build(**change)) != _template(build())) is new


def test_the_configuration_is_of_the_pod_and_not_of_a_file_that_changes_under_it(
    build: Callable[..., Manifest],
) -> None:
    (container,) = _pod(build())["containers"]
    (config,) = [e["value"] for e in container["env"] if e["name"] == "LIVEKIT_CONFIG"]
    assert "port: 7880" in config
    assert [v["name"] for v in _pod(build())["volumes"]] == ["keys"]


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
    environment = {e["name"]: e.get("valueFrom", {}) for e in container["env"]}
    assert environment["LIVEKIT_WEBHOOK_API_KEY"]["secretKeyRef"] == {"name": "sfu-eu-keys", "key": "api-key"}
    assert environment.get("REDIS_PASSWORD", {}).get("secretKeyRef") == source


def test_a_public_address_is_found_by_the_node_itself(build: Callable[..., Manifest]) -> None:
    (container,) = _pod(build(network={"useExternalIP": True}))["containers"]
    assert container["args"] == []


TURN = {"network": {"turn": {"domain": "turn.acme.test", "tlsPort": 5350}, "tlsSecretRef": {"name": "cert"}}}
REDIS = {"redis": {"address": "r:1", "tls": True, "caSecretRef": {"name": "acme-ca"}}}


@pytest.mark.parametrize(
    ("spec", "volume", "secret", "folder"),
    [(TURN, "tls", "cert", "/etc/livekit-tls"), (REDIS, "redis-ca", "acme-ca", "/etc/livekit-redis")],
)
def test_what_the_sre_gave_is_mounted_where_the_configuration_looks_for_it(
    build: Callable[..., Manifest], spec: dict[str, object], volume: str, secret: str, folder: str
) -> None:
    pod = _pod(build(**spec))
    (container,) = pod["containers"]
    assert {v["name"]: v["secret"]["secretName"] for v in pod["volumes"]}[volume] == secret
    assert {m["name"]: m["mountPath"] for m in container["volumeMounts"]}[volume] == folder
    (config,) = [e["value"] for e in container["env"] if e["name"] == "LIVEKIT_CONFIG"]
    assert folder in config


def test_the_nodes_address_is_known_before_the_configuration_that_names_it(build: Callable[..., Manifest]) -> None:
    (container,) = _pod(build(**TURN))["containers"]
    names = [e["name"] for e in container["env"]]
    assert names.index("NODE_IP") < names.index("LIVEKIT_CONFIG")
    assert {p["name"]: p["hostPort"] for p in container["ports"]}["turn-tls"] == 5350


@pytest.mark.parametrize("mounts", [Mounts(ring="other"), Mounts(secrets="other")])
def test_other_keys_or_secrets_make_a_node_outdated(
    pool_key: Key, pool_spec: Callable[..., SFUPoolSpec], mounts: Mounts
) -> None:
    assert template_digest(pool_key, pool_spec(), IMAGES, mounts) != template_digest(pool_key, pool_spec(), IMAGES)


@pytest.mark.parametrize(
    ("images", "same"), [(replace(IMAGES, redis="redis:2"), True), (replace(IMAGES, sfu="lk:2"), False)]
)
def test_only_what_a_node_itself_runs_makes_it_outdated(
    pool_key: Key, pool_spec: Callable[..., SFUPoolSpec], images: Images, same: bool
) -> None:
    before = template_digest(pool_key, pool_spec(), IMAGES)
    assert (template_digest(pool_key, pool_spec(), images) == before) == same


def test_a_node_gets_the_key_file_of_its_ring(pool_key: Key, pool_owner: Owner) -> None:
    spec = SFUPoolSpec.model_validate({})
    made = build_sfu_statefulset(pool_key, pool_owner, spec, "sfu-eu-4", IMAGES, Mounts(ring="abc"))
    (keys,) = [v for v in _pod(made)["volumes"] if v["name"] == "keys"]
    assert keys["secret"]["items"] == [{"key": "ring-abc.yaml", "path": "keys.yaml"}]
    assert made["spec"]["template"]["metadata"]["annotations"]["talktime.dev/keys"] == "abc"
