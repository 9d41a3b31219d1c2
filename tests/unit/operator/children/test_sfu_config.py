"""Twin of children/sfu_config.py"""

from __future__ import annotations

from collections.abc import Callable

import yaml
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_config import config_text, livekit_config
from talktime_operator.names import Key


def test_defaults(pool_key: Key, pool_spec: Callable[..., SFUPoolSpec]) -> None:
    config = yaml.safe_load(config_text(pool_key, pool_spec()))
    assert config["port"] == 7880
    assert config["prometheus"] == {"port": 6789}
    assert config["rtc"] == {
        "udp_port": 7882,
        "tcp_port": 7881,
        "use_external_ip": False,
        "ips": {"includes": ["$(NODE_IP)/32"]},
    }
    assert config["redis"] == {"address": "sfu-eu-redis.talktime.svc:6379"}
    assert config["signal_relay"] == {"retry_timeout": "2m"}, "a Redis that is away breaks no live connection"
    assert config["room"] == {"auto_create": False, "empty_timeout": 60, "departure_timeout": 60}
    assert config["limit"]["num_tracks"] == 2400
    assert "keys" not in config
    assert config["webhook"] == {
        "urls": ["http://talktime-gateway.talktime.svc:8080/v1/webhooks/livekit/talktime/eu"],
        "filter_params": {
            "include_events": [
                "participant_joined",
                "participant_left",
                "participant_connection_aborted",
                "room_finished",
            ]
        },
    }


def test_a_node_that_looks_for_its_outside_address_looks_from_all_of_its_own(
    pool_key: Key, pool_spec: Callable[..., SFUPoolSpec]
) -> None:
    rtc = livekit_config(pool_key, pool_spec(network={"useExternalIP": True}))["rtc"]
    assert rtc == {"udp_port": 7882, "tcp_port": 7881, "use_external_ip": True}


def test_an_own_redis_with_tls(pool_key: Key, pool_spec: Callable[..., SFUPoolSpec]) -> None:
    config = livekit_config(pool_key, pool_spec(redis={"address": "redis.acme:6380", "tls": True}))
    assert config["redis"] == {"address": "redis.acme:6380", "tls": {"enabled": True}}


def test_an_own_redis_with_a_ca_of_its_own(pool_key: Key, pool_spec: Callable[..., SFUPoolSpec]) -> None:
    redis = {"address": "redis.acme:6380", "tls": True, "caSecretRef": {"name": "acme-ca"}}
    tls = livekit_config(pool_key, pool_spec(redis=redis))["redis"]["tls"]
    assert tls == {"enabled": True, "ca_cert_file": "/etc/livekit-redis/ca.crt"}


def test_turn_relays_to_its_own_node_and_to_what_the_sre_allows(
    pool_key: Key, pool_spec: Callable[..., SFUPoolSpec]
) -> None:
    network = {"turn": {"domain": "turn.acme.test", "peerCIDRs": ["10.0.0.0/24"]}, "tlsSecretRef": {"name": "cert"}}
    turn = livekit_config(pool_key, pool_spec(network=network))["turn"]
    assert turn["allow_restricted_peer_cidrs"] == ["$(NODE_IP)/32", "10.0.0.0/24"]
    assert (turn["domain"], turn["tls_port"], "udp_port" in turn) == ("turn.acme.test", 5349, False)
    assert "turn" not in livekit_config(pool_key, pool_spec())
