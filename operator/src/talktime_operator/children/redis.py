"""Embedded Redis of a pool: rooms and nodes only, nothing worth a volume; a killed one finds them again in its pod. One
per pool, because nodes that share a Redis are one LiveKit."""

from __future__ import annotations

from typing import Literal

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner

from . import pod_security


def build_redis_deployment(
    key: Key, owner: Owner, image: str, pull_policy: Literal["Always", "IfNotPresent", "Never"]
) -> Manifest:
    labels = names.pool_labels(key.name, "redis")
    secret = {"name": f"{names.sfu(key.name)}-keys", "key": "redis-password"}
    # Without its rooms a LiveKit takes nobody back into them, and no lost agent could be replaced.
    arguments = ["--dir", "/data", "--save", "", "--appendonly", "yes", "--requirepass", "$(REDIS_PASSWORD)"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": names.metadata(Key(key.namespace, f"{names.sfu(key.name)}-redis"), labels, owner),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 2,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 10,
                    "securityContext": pod_security.pod(),
                    "containers": [
                        {
                            "name": "redis",
                            "image": image,
                            "imagePullPolicy": pull_policy,
                            "command": ["redis-server"],
                            "args": arguments,
                            "env": [{"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": secret}}],
                            "ports": [{"name": "redis", "containerPort": 6379, "protocol": "TCP"}],
                            "readinessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 3},
                            "livenessProbe": {
                                "tcpSocket": {"port": "redis"},
                                "periodSeconds": 10,
                                "failureThreshold": 6,
                            },
                            "securityContext": pod_security.container(),
                            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                        }
                    ],
                    "volumes": [{"name": "data", "emptyDir": {}}],
                },
            },
        },
    }


def build_redis_service(key: Key, owner: Owner) -> Manifest:
    labels = names.pool_labels(key.name, "redis")
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(Key(key.namespace, f"{names.sfu(key.name)}-redis"), labels, owner),
        "spec": {
            "selector": labels,
            "ports": [{"name": "redis", "port": 6379, "targetPort": "redis", "protocol": "TCP"}],
        },
    }
