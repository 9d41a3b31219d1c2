"""StatefulSet of livekit-server nodes: on the host's network, at most one per machine."""

from __future__ import annotations

import hashlib
from typing import Literal

from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_ledger.resources.schema import seconds

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner

from . import pod_security
from .sfu_config import build_sfu_config

# livekit-server polls every 5 s whether its last participant has left.
GRACE_MARGIN = 30


def build_sfu_statefulset(
    key: Key,
    owner: Owner,
    spec: SFUPoolSpec,
    nodes: int,
    image: str,
    pull_policy: Literal["Always", "IfNotPresent", "Never"],
) -> Manifest:
    labels = names.pool_labels(key.name)
    config = build_sfu_config(key, owner, spec)["data"]["livekit.yaml"]
    ports = spec.network.ports
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": names.metadata(Key(key.namespace, names.sfu(key.name)), labels, owner),
        "spec": {
            "replicas": nodes,
            "serviceName": f"{names.sfu(key.name)}-nodes",
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        "talktime.dev/config": hashlib.sha256(config.encode()).hexdigest()[:16],
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(ports.metrics),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": {
                    "hostNetwork": True,
                    "dnsPolicy": "ClusterFirstWithHostNet",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    # SIGTERM drains: no new rooms, ends when the last participant has left.
                    "terminationGracePeriodSeconds": seconds(spec.drain.deadline) + GRACE_MARGIN,
                    "securityContext": pod_security.pod(),
                    "affinity": {
                        "podAntiAffinity": {
                            "requiredDuringSchedulingIgnoredDuringExecution": [
                                {
                                    "topologyKey": "kubernetes.io/hostname",
                                    "labelSelector": {"matchLabels": labels},
                                }
                            ]
                        }
                    },
                    **({"nodeSelector": dict(spec.node_selector)} if spec.node_selector else {}),
                    "containers": [_container(key, spec, image, pull_policy)],
                    "volumes": [
                        {"name": "config", "configMap": {"name": f"{names.sfu(key.name)}-config"}},
                        {
                            "name": "keys",
                            "secret": {
                                "secretName": f"{names.sfu(key.name)}-keys",
                                # livekit-server refuses a key file that others may read.
                                "defaultMode": 0o440,
                                "items": [{"key": "keys.yaml", "path": "keys.yaml"}],
                            },
                        },
                    ],
                },
            },
        },
    }


def _container(key: Key, spec: SFUPoolSpec, image: str, pull_policy: str) -> Manifest:
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
    ]
    if redis_secret:
        source = {"name": redis_secret, "key": redis_key, "optional": optional}
        environment.append({"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": source}})
    arguments = ["--config=/etc/livekit/livekit.yaml"]
    if not spec.network.use_external_ip:
        arguments.append("--node-ip=$(NODE_IP)")
    return {
        "name": "livekit",
        "image": image,
        "imagePullPolicy": pull_policy,
        "args": arguments,
        "env": environment,
        "ports": [
            {"name": name, "containerPort": port, "hostPort": port, "protocol": protocol}
            for name, port, protocol in (
                ("http", ports.http, "TCP"),
                ("rtc-tcp", ports.tcp, "TCP"),
                ("rtc-udp", ports.udp, "UDP"),
                ("metrics", ports.metrics, "TCP"),
            )
        ],
        "readinessProbe": {**alive, "failureThreshold": 2},
        "livenessProbe": {**alive, "failureThreshold": 6, "initialDelaySeconds": 10},
        "securityContext": pod_security.container(),
        "resources": spec.resources.model_dump(exclude_defaults=True)
        if spec.resources
        else {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/livekit", "readOnly": True},
            {"name": "keys", "mountPath": "/etc/livekit-keys", "readOnly": True},
        ],
    }
