"""Deployment of a Project's agents: one worker process per pod, several sessions each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from talktime_ledger.resources.project import ProjectSpec, agent_name
from talktime_ledger.resources.schema import Resources

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner

from . import agent_ca, pod_security

WORKER_PORT = 8081
METRICS_PORT = 8082
TOKEN_SECONDS = 3600
CA_FOLDER = "/etc/talktime/ca"


@dataclass(frozen=True)
class AgentSettings:
    """What the operator's settings say about agents. `ca_bundle`: PEM, empty for the CAs of the image."""

    image: str
    pull_policy: Literal["Always", "IfNotPresent", "Never"]
    ledger_url: str
    grace_seconds: int
    ca_bundle: str = ""


def build_agent_deployment(
    key: Key,
    owner: Owner,
    spec: ProjectSpec,
    replicas: int,
    livekit_secret: str,
    settings: AgentSettings,
    labels: dict[str, str] | None = None,
) -> Manifest:
    """`livekit_secret` is the name of the Secret with url, api-key and api-secret of the Project's pool."""
    labels = labels or names.agent_labels(key.name)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": names.metadata(Key(key.namespace, names.agent(key.name)), labels, owner),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            # A new pod is ready before an old one is told to drain; the old one ends when its sessions have.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(METRICS_PORT),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": _pod(key, spec, labels, livekit_secret, settings),
            },
        },
    }


def _pod(key: Key, spec: ProjectSpec, labels: dict[str, str], livekit_secret: str, settings: AgentSettings) -> Manifest:
    ca = agent_ca.agent_ca_name(key.name, settings.ca_bundle) if settings.ca_bundle else None
    return {
        "serviceAccountName": names.agent(key.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Longer than the agent's own drain: SIGTERM is sent once, sessions end by themselves (law 5). No preStop hook,
        # because a second signal makes a livekit worker exit at once.
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "securityContext": pod_security.pod(),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
        "containers": [
            {
                "name": "agent",
                "image": spec.agent.image or settings.image,
                "imagePullPolicy": settings.pull_policy,
                "command": ["python", "-m", "talktime_agent", "start"],
                "env": _environment(key, spec, livekit_secret, settings),
                "ports": [
                    {"name": "worker", "containerPort": WORKER_PORT, "protocol": "TCP"},
                    {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
                ],
                # Ready = its LiveKit knows the worker (`/` is 503 before); never "has room" (a full pod that is not
                # ready would be the first to go).
                # No liveness probe: `/` fails while LiveKit is away and a restart would cut sessions.
                "readinessProbe": {
                    "httpGet": {"path": "/", "port": "worker"},
                    "periodSeconds": 3,
                    "timeoutSeconds": 3,
                    "failureThreshold": 5,
                },
                "securityContext": pod_security.container(),
                "resources": _resources(spec.agent.resources, spec.agent.sessions_per_replica),
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod
                    {"name": "spool", "mountPath": "/var/spool/talktime"},
                    {"name": "ledger-token", "mountPath": "/var/run/secrets/talktime", "readOnly": True},
                    *([{"name": "ca", "mountPath": CA_FOLDER, "readOnly": True}] if ca else []),
                ],
            }
        ],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "spool", "emptyDir": {}},
            {
                "name": "ledger-token",
                "projected": {
                    "sources": [
                        {
                            "serviceAccountToken": {
                                "audience": "talktime-ledger",
                                "expirationSeconds": TOKEN_SECONDS,
                                "path": "token",
                            }
                        }
                    ]
                },
            },
            *([{"name": "ca", "configMap": {"name": ca}}] if ca else []),
        ],
    }


def _environment(key: Key, spec: ProjectSpec, livekit_secret: str, settings: AgentSettings) -> list[Manifest]:
    plain = {
        "TALKTIME_PROJECT": str(key),
        "TALKTIME_LEDGER_URL": settings.ledger_url,
        "TALKTIME_AGENT_NAME": agent_name(*key),
        "TALKTIME_SESSIONS_PER_REPLICA": str(spec.agent.sessions_per_replica),
        "TALKTIME_PROVIDER_NAMES": ",".join(p.name for p in spec.providers),
        "HOME": "/tmp",  # noqa: S108 - the only place a read-only container may write a cache to
    }
    if settings.ca_bundle:
        # Read by OpenSSL (provider, LiveKit's API) and by LiveKit's own client (wss).
        plain["SSL_CERT_FILE"] = f"{CA_FOLDER}/{agent_ca.FILE}"
    secrets = {
        "LIVEKIT_URL": (livekit_secret, "url"),
        "LIVEKIT_API_KEY": (livekit_secret, "api-key"),
        "LIVEKIT_API_SECRET": (livekit_secret, "api-secret"),
    } | {
        f"TALKTIME_PROVIDER_KEY_{i}": (provider.secret_ref.name, provider.secret_ref.key)
        for i, provider in enumerate(spec.providers)
    }
    return [{"name": name, "value": value} for name, value in plain.items()] + [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": entry}}}
        for name, (secret, entry) in secrets.items()
    ]


def _resources(given: Resources | None, sessions: int) -> Manifest:
    """No limits by default: a memory limit kills every session of the pod at once."""
    if given is not None:
        return given.model_dump(exclude_defaults=True)
    return {"requests": {"cpu": "100m", "memory": f"{200 + 50 * sessions}Mi"}}
