"""One StatefulSet per livekit-server node: on the host's network, at most one per machine, each removable by itself.

Why one each: a StatefulSet of many gives up its highest ordinal, and the node to give up is the emptiest. Its strategy
is OnDelete and the operator alone deletes pods, so that no change of the template ends a running node (law 5).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_ledger.resources.schema import seconds

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner

from . import pod_security
from .sfu_config import REDIS_FOLDER, TLS_FOLDER, config_text, redis_address
from .sfu_keys import ring_entry

# livekit-server polls every 5 s whether its last participant has left.
GRACE_MARGIN = 30


QUICK = 5
"""Seconds between SIGTERM and SIGKILL of a node that no longer answers: its clients wait for the restart."""


@dataclass(frozen=True)
class Images:
    """What the operator's settings say about the pool's containers."""

    sfu: str
    redis: str
    pull_policy: Literal["Always", "IfNotPresent", "Never"]


@dataclass(frozen=True)
class Mounts:
    """What a node gets beside the spec. `ring`: the fingerprint of the LiveKit keys it accepts; `secrets`: that of the
    SRE's Secrets it reads when it starts (certificate, password and CA of Redis), so that new ones come by a drain."""

    ring: str = ""
    secrets: str = ""


def build_sfu_statefulset(
    key: Key,
    owner: Owner,
    spec: SFUPoolSpec,
    slot: str,
    images: Images,
    mounts: Mounts = Mounts(),
) -> Manifest:
    """The node called `slot` (`names.sfu_node`)."""
    own = {names.NODE_LABEL: slot}
    labels = names.pool_labels(key.name) | own
    template = _pod(key, spec, images, mounts)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": names.metadata(Key(key.namespace, slot), labels, owner),
        "spec": {
            "replicas": 1,
            "serviceName": f"{names.sfu(key.name)}-nodes",
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {
                    "labels": labels | {names.OPEN_LABEL: names.OPEN},
                    "annotations": {
                        names.TEMPLATE_ANNOTATION: template_digest(key, spec, images, mounts),
                        names.RING_ANNOTATION: mounts.ring,
                        names.SECRETS_ANNOTATION: mounts.secrets,
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(spec.network.ports.metrics),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": template,
            },
        },
    }


def template_digest(key: Key, spec: SFUPoolSpec, images: Images, mounts: Mounts = Mounts()) -> str:
    """Fingerprint of what a node runs; a pod with another one is outdated. The grace is not in it: the operator keeps
    the deadline itself, so changing it is no reason to drain; nor is another image of what only waits for Redis."""
    template = _pod(key, spec, images, mounts)
    del template["terminationGracePeriodSeconds"]
    template.pop("initContainers", None)
    text = json.dumps(template, sort_keys=True) + mounts.secrets
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _pod(key: Key, spec: SFUPoolSpec, images: Images, mounts: Mounts) -> Manifest:
    labels = names.pool_labels(key.name)
    return {
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # SIGTERM drains: no new rooms, ends when the last participant has left. The operator deletes drained nodes
        # only; the long grace is for whoever else deletes one.
        "terminationGracePeriodSeconds": seconds(spec.drain.deadline) + GRACE_MARGIN,
        "securityContext": pod_security.pod(),
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
                ]
            }
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
        **({"nodeSelector": dict(spec.node_selector)} if spec.node_selector else {}),
        # One of its own starts beside the nodes; another's is there or its absence is for the SRE to see.
        **({} if spec.redis.address else {"initContainers": [_waiting(key, spec, images)]}),
        "containers": [_container(key, spec, images)],
        "volumes": [
            {
                "name": "keys",
                "secret": {
                    "secretName": f"{names.sfu(key.name)}-keys",
                    # livekit-server refuses a key file that others may read.
                    "defaultMode": 0o440,
                    "items": [{"key": ring_entry(mounts.ring) if mounts.ring else "keys.yaml", "path": "keys.yaml"}],
                },
            },
            *({"name": name, "secret": secret} for name, _, secret in _files(spec)),
        ],
    }


def _files(spec: SFUPoolSpec) -> list[tuple[str, str, Manifest]]:
    """(volume, folder, Secret) of what the SRE gave."""
    out: list[tuple[str, str, Manifest]] = []
    if spec.network.turn is not None and spec.network.tls_secret_ref is not None:
        out.append(("tls", TLS_FOLDER, {"secretName": spec.network.tls_secret_ref.name, "defaultMode": 0o440}))
    if spec.redis.ca_secret_ref is not None:
        items = [{"key": "ca.crt", "path": "ca.crt"}]
        out.append(("redis-ca", REDIS_FOLDER, {"secretName": spec.redis.ca_secret_ref.name, "items": items}))
    return out


def _waiting(key: Key, spec: SFUPoolSpec, images: Images) -> Manifest:
    """Until the embedded Redis answers. Without it livekit-server ends at once, and a kubelet that has seen it end
    starts it 10 s later the next time within ten minutes: too late for a quick restart to keep its sessions."""
    host, _, port = redis_address(key, spec).rpartition(":")
    secret = {"name": f"{names.sfu(key.name)}-keys", "key": "redis-password"}
    loop = 'until timeout 3 redis-cli -h "$0" -p "$1" ping; do echo "waiting for Redis at $0:$1"; sleep 0.5; done'
    return {
        "name": "wait-for-redis",
        "image": images.redis,
        "imagePullPolicy": images.pull_policy,
        "command": ["sh", "-c", loop, host, port],
        "env": [{"name": "REDISCLI_AUTH", "valueFrom": {"secretKeyRef": secret}}],
        "securityContext": pod_security.container(),
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }


def _container(key: Key, spec: SFUPoolSpec, images: Images) -> Manifest:
    ports = spec.network.ports
    # Not `/`: it fails on every node at once when Redis is away while media flows.
    alive = {"tcpSocket": {"port": "http"}, "periodSeconds": 5, "timeoutSeconds": 3}
    redis_secret, redis_key, optional = f"{names.sfu(key.name)}-keys", "redis-password", False
    if spec.redis.address is not None:
        redis_secret = spec.redis.password_secret_ref.name if spec.redis.password_secret_ref else ""
        redis_key = "password"
    webhook_key = {"name": f"{names.sfu(key.name)}-keys", "key": "api-key"}
    environment: list[Manifest] = [
        {"name": "NODE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        {"name": "LIVEKIT_WEBHOOK_API_KEY", "valueFrom": {"secretKeyRef": webhook_key}},
        # Not a mounted file: a node restarted in place must find the configuration (ports) it was made with.
        {"name": "LIVEKIT_CONFIG", "value": config_text(key, spec)},
    ]
    if redis_secret:
        source = {"name": redis_secret, "key": redis_key, "optional": optional}
        environment.append({"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": source}})
    arguments = [] if spec.network.use_external_ip else ["--node-ip=$(NODE_IP)"]
    return {
        "name": names.SFU_CONTAINER,
        "image": images.sfu,
        "imagePullPolicy": images.pull_policy,
        "args": arguments,
        "env": environment,
        "ports": [
            {"name": name, "containerPort": port, "hostPort": port, "protocol": protocol}
            for name, port, protocol in (
                ("http", ports.http, "TCP"),
                ("rtc-tcp", ports.tcp, "TCP"),
                ("rtc-udp", ports.udp, "UDP"),
                ("metrics", ports.metrics, "TCP"),
                *([("turn-tls", spec.network.turn.tls_port, "TCP")] if spec.network.turn is not None else []),
            )
        ],
        "readinessProbe": {**alive, "failureThreshold": 2},
        "livenessProbe": {
            **alive,
            "failureThreshold": 6,
            "initialDelaySeconds": 10,
            "terminationGracePeriodSeconds": QUICK,
        },
        "securityContext": pod_security.container(),
        "resources": spec.resources.model_dump(exclude_defaults=True)
        if spec.resources
        else {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [
            {"name": "keys", "mountPath": "/etc/livekit-keys", "readOnly": True},
            *({"name": name, "mountPath": folder, "readOnly": True} for name, folder, _ in _files(spec)),
        ],
    }
