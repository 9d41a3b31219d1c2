"""What the operator has seen of the cluster: small frozen tuples made from raw objects, so that indices stay small."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from talktime_ledger.resources.schema import Spec

from .names import (
    DRAIN_ANNOTATION,
    DRAINED_LABEL,
    HASH_ANNOTATION,
    NODE_LABEL,
    OPEN,
    OPEN_LABEL,
    PAUSED_ANNOTATION,
    POOL_LABEL,
    PROJECT_LABEL,
    RING_ANNOTATION,
    ROTATE_ANNOTATION,
    SECRETS_ANNOTATION,
    SFU_CONTAINER,
    TEMPLATE_ANNOTATION,
    Key,
    Manifest,
)

LEAVING_TAINTS = frozenset({"karpenter.sh/disrupted", "ToBeDeletedByClusterAutoscaler"})
"""Put on a machine by autoscalers before they take it away; they do not always cordon it."""

SpecModel = TypeVar("SpecModel", bound=Spec)


@dataclass(frozen=True)
class Resource(Generic[SpecModel]):
    """One Project, SFUPool or RateCard, parsed. `spec` is None when it does not parse; `problem` says why.
    `rotate_keys`: an SFUPool's request for other LiveKit keys."""

    key: Key
    uid: str
    generation: int
    paused: bool
    spec: SpecModel | None
    problem: str
    status: Mapping[str, Any]
    deleting: bool
    rotate_keys: str = ""
    created: datetime | None = None

    @classmethod
    def parse(cls, body: Mapping[str, Any], model: type[SpecModel]) -> Resource[SpecModel]:
        meta = body["metadata"]
        spec, problem = None, ""
        try:
            spec = model.model_validate(_plain(body.get("spec", {})))
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"spec.{'.'.join(str(p) for p in first['loc'])}: {first['msg']}"
        return cls(
            key=Key(meta.get("namespace", ""), meta["name"]),
            uid=meta["uid"],
            generation=meta.get("generation", 0),
            paused=(meta.get("annotations") or {}).get(PAUSED_ANNOTATION, "").lower() == "true",
            spec=spec,
            problem=problem,
            status=_plain(body.get("status") or {}),
            deleting="deletionTimestamp" in meta,
            rotate_keys=(meta.get("annotations") or {}).get(ROTATE_ANNOTATION, ""),
            created=_moment(meta.get("creationTimestamp")),
        )


def _moment(text: Any) -> datetime | None:
    """A time of the API server's; None for what is none."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None


def _plain(value: Any) -> Any:
    """kopf hands out views; keep plain dicts and lists."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


@dataclass(frozen=True)
class SfuMarks:
    """What only SFU pods have. `slot`: the StatefulSet of its node; `orphan`: that is there no more; `drain`: the
    drain's mark as text; `drained`: its drain has ended; `homeless`: the scheduler finds no machine; `ends`: when a
    terminating pod is killed, RFC 3339; `ports`: host ports by name, as it was started with; `ring`, `secrets`:
    fingerprints of its LiveKit keys and of the SRE's Secrets; `open`: the Service may lead new signal connections
    there; `began`: when its livekit-server last began, by its machine's clock, RFC 3339."""

    slot: str = ""
    orphan: bool = False
    template: str = ""
    drain: str = ""
    drained: bool = False
    homeless: bool = False
    ends: str = ""
    ports: tuple[tuple[str, int], ...] = ()
    ring: str = ""
    secrets: str = ""
    open: bool = False
    began: str = ""

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> SfuMarks:
        meta, status = body["metadata"], body.get("status") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        return cls(
            slot=labels.get(NODE_LABEL, ""),
            orphan=not any(owner.get("controller") for owner in meta.get("ownerReferences") or ()),
            template=annotations.get(TEMPLATE_ANNOTATION, ""),
            drain=annotations.get(DRAIN_ANNOTATION, ""),
            drained=DRAINED_LABEL in labels,
            homeless=any(
                c["type"] == "PodScheduled" and c["status"] == "False" and c.get("reason") == "Unschedulable"
                for c in status.get("conditions") or ()
            ),
            ends=meta.get("deletionTimestamp") or "",
            ports=tuple(
                (port["name"], port["hostPort"])
                for container in (body.get("spec") or {}).get("containers") or ()
                for port in container.get("ports") or ()
                if port.get("name") and port.get("hostPort")
            ),
            ring=annotations.get(RING_ANNOTATION, ""),
            secrets=annotations.get(SECRETS_ANNOTATION, ""),
            open=labels.get(OPEN_LABEL) == OPEN,
            began=next(
                (
                    (container["state"].get("running") or {}).get("startedAt") or ""
                    for container in status.get("containerStatuses") or ()
                    if container.get("name") == SFU_CONTAINER and container.get("state")
                ),
                "",
            ),
        )


@dataclass(frozen=True)
class Machine:
    """One Kubernetes node. `leaving`: cordoned, or about to be taken away by an autoscaler; `away`: its kubelet does
    not report, so nothing there can be started or stopped."""

    name: str
    leaving: bool
    away: bool = False

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Machine:
        spec = body.get("spec") or {}
        taints = {t.get("key", "") for t in spec.get("taints") or ()}
        conditions = (body.get("status") or {}).get("conditions") or ()
        return cls(
            body["metadata"]["name"],
            bool(spec.get("unschedulable")) or bool(taints & LEAVING_TAINTS),
            any(c["type"] == "Ready" and c["status"] != "True" for c in conditions),
        )


@dataclass(frozen=True)
class Pod:
    """One pod of ours. `waiting` are (reason, message) of containers that do not start; `livekit`: the Secret that an
    agent has its LiveKit's URL and keys from; `started`: since when an agent runs, thus when it read its keys."""

    key: Key
    uid: str
    project: str
    pool: str
    component: str
    ip: str
    host_ip: str
    node: str
    phase: str
    ready: bool
    terminating: bool
    deletion_cost: str
    waiting: tuple[tuple[str, str], ...]
    sfu: SfuMarks = field(default_factory=lambda: SfuMarks())
    livekit: str = ""
    started: datetime | None = None

    @property
    def live(self) -> bool:
        """Counts as a replica: neither ending nor ended."""
        return not self.terminating and self.phase not in ("Succeeded", "Failed")

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Pod:
        meta, status = body["metadata"], body.get("status") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        waiting = tuple(
            (state["reason"], state.get("message", ""))
            for container in status.get("containerStatuses") or ()
            if (state := (container.get("state") or {}).get("waiting")) and state.get("reason")
        )
        return cls(
            key=Key(meta["namespace"], meta["name"]),
            uid=meta["uid"],
            project=labels.get(PROJECT_LABEL, ""),
            pool=labels.get(POOL_LABEL, ""),
            component=labels.get("app.kubernetes.io/component", ""),
            ip=status.get("podIP", ""),
            host_ip=status.get("hostIP", ""),
            node=(body.get("spec") or {}).get("nodeName", ""),
            phase=status.get("phase", "Pending"),
            ready=any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()),
            terminating="deletionTimestamp" in meta,
            deletion_cost=annotations.get("controller.kubernetes.io/pod-deletion-cost", ""),
            waiting=waiting,
            sfu=SfuMarks.parse(body) if labels.get(POOL_LABEL) else SfuMarks(),
            livekit=_livekit_secret(body) if labels.get(PROJECT_LABEL) else "",
            started=_started(status) if labels.get(PROJECT_LABEL) else None,
        )


def _livekit_secret(body: Mapping[str, Any]) -> str:
    for container in (body.get("spec") or {}).get("containers") or ():
        for entry in container.get("env") or ():
            if entry["name"] == "LIVEKIT_API_KEY":
                return sys.intern(str(((entry.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name", "")))
    return ""


def _started(status: Mapping[str, Any]) -> datetime | None:
    states = [container.get("state") or {} for container in status.get("containerStatuses") or ()]
    began = [state["running"]["startedAt"] for state in states if (state.get("running") or {}).get("startedAt")]
    return datetime.fromisoformat(min(began)) if began else None


@dataclass(frozen=True)
class Child:
    """One object the operator applies. `digest` is what was applied last, `generation` shows edits by others."""

    kind: str
    key: Key
    project: str
    pool: str
    owner_uid: str
    digest: str
    generation: int
    replicas: int | None
    ready: int
    data: Mapping[str, str]
    deleting: bool

    @classmethod
    def parse(cls, kind: str, body: Mapping[str, Any]) -> Child:
        meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
        labels = meta.get("labels") or {}
        owners = meta.get("ownerReferences") or ()
        return cls(
            kind=kind,
            key=Key(meta["namespace"], meta["name"]),
            project=labels.get(PROJECT_LABEL, ""),
            pool=labels.get(POOL_LABEL, ""),
            owner_uid=owners[0]["uid"] if owners else "",
            digest=(meta.get("annotations") or {}).get(HASH_ANNOTATION, ""),
            generation=meta.get("generation", 0),
            replicas=spec.get("replicas"),
            ready=status.get("readyReplicas", 0),
            # Interned: a CA bundle is as large as it is the same for every Project.
            data={k: sys.intern(v) for k, v in (body.get("data") or {}).items()} if kind == "ConfigMap" else {},
            deleting="deletionTimestamp" in meta,
        )


def identity(manifest: Manifest) -> tuple[str, Key]:
    """Kind and key of a manifest."""
    meta = manifest["metadata"]
    return manifest["kind"], Key(meta["namespace"], meta["name"])
