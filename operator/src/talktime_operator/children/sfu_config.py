"""livekit-server's configuration, part of each node's template. Keys, passwords and addresses come from elsewhere."""

from __future__ import annotations

from typing import Any

import yaml
from talktime_ledger.resources.pool import SFUPoolSpec, Turn

from talktime_operator import names
from talktime_operator.names import Key

KEY_FILE = "/etc/livekit-keys/keys.yaml"
TLS_FOLDER = "/etc/livekit-tls"
REDIS_FOLDER = "/etc/livekit-redis"
NODE_IP = "$(NODE_IP)"
"""The kubelet puts the node's address in its place: the environment has it before LIVEKIT_CONFIG."""
# Two publish, both hear each other (4), and eight observers hear both (16); some room for a second participant.
TRACKS_PER_SESSION = 24
# Signalling goes through Redis, on one node too: by livekit-server's own 7.5 s every live connection would break when
# Redis is away for longer. The price: who came in through another node than the room's notices that node's death by its
# media, after 18 s, not by its signalling after 8 s.
REDIS_AWAY = "2m"
# What the gateway takes from webhooks; others would be sent for nothing.
WEBHOOK_EVENTS = ("participant_joined", "participant_left", "participant_connection_aborted", "room_finished")


def redis_address(key: Key, spec: SFUPoolSpec) -> str:
    return spec.redis.address or f"{names.sfu(key.name)}-redis.{key.namespace}.svc:6379"


def webhook_url(key: Key) -> str:
    """The gateway's address for this pool's events; it believes what is signed with the pool's keys."""
    return f"http://talktime-gateway.{key.namespace}.svc:8080/v1/webhooks/livekit/{key.namespace}/{key.name}"


def livekit_config(key: Key, spec: SFUPoolSpec) -> dict[str, Any]:
    ports = spec.network.ports
    redis: dict[str, Any] = {"address": redis_address(key, spec)}
    if spec.redis.tls:
        redis["tls"] = {"enabled": True}
        if spec.redis.ca_secret_ref is not None:
            redis["tls"]["ca_cert_file"] = f"{REDIS_FOLDER}/ca.crt"
    return {
        "port": ports.http,
        "prometheus": {"port": ports.metrics},
        "rtc": _rtc(spec),
        **({"turn": _turn(spec.network.turn)} if spec.network.turn is not None else {}),
        "redis": redis,
        "signal_relay": {"retry_timeout": REDIS_AWAY},
        "key_file": KEY_FILE,
        # Rooms are made by the gateway only: a token alone must not open one past admission.
        "room": {"auto_create": False, "empty_timeout": 60, "departure_timeout": 60},
        # livekit-server 1.13.5 has no limits of its own.
        "limit": {
            "num_tracks": spec.autoscaling.sessions_per_node * TRACKS_PER_SESSION,
            "bytes_per_sec": 1_000_000_000,
            "max_metadata_size": 65536,
            "max_room_name_length": 256,
            "max_participant_identity_length": 256,
            "max_participant_name_length": 256,
        },
        # Signed with the API key of environment LIVEKIT_WEBHOOK_API_KEY (livekit-server's own name of
        # `webhook.api_key`), which comes from the Secret.
        "webhook": {"urls": [webhook_url(key)], "filter_params": {"include_events": list(WEBHOOK_EVENTS)}},
        "logging": {"json": True, "level": "info"},
    }


def _rtc(spec: SFUPoolSpec) -> dict[str, Any]:
    """On the node's own address alone, unless livekit-server finds out by STUN which of them leads outside. Else it
    listens on every address, those of bridges and tunnels too, offers the node's for all of them, and takes what comes
    to it from one by chance: where it was another one, nobody behind a NAT had UDP until the next restart."""
    ports, outside = spec.network.ports, spec.network.use_external_ip
    told = {"udp_port": ports.udp, "tcp_port": ports.tcp, "use_external_ip": outside}
    return told if outside else told | {"ips": {"includes": [f"{NODE_IP}/32"]}}


def _turn(turn: Turn) -> dict[str, Any]:
    """TURN over TLS only: who gets UDP through needs none. By default livekit-server relays to no private address, and
    nodes mostly have one."""
    return {
        "enabled": True,
        "domain": turn.domain,
        "tls_port": turn.tls_port,
        "cert_file": f"{TLS_FOLDER}/tls.crt",
        "key_file": f"{TLS_FOLDER}/tls.key",
        "relay_range_start": turn.relay_ports.start,
        "relay_range_end": turn.relay_ports.end,
        "allow_restricted_peer_cidrs": [f"{NODE_IP}/32", *turn.peer_cidrs],
    }


def config_text(key: Key, spec: SFUPoolSpec) -> str:
    """Value of livekit-server's environment variable LIVEKIT_CONFIG."""
    return str(yaml.safe_dump(livekit_config(key, spec), sort_keys=True))
