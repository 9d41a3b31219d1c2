"""The few calls the operator makes to the API server, each one request, through the official async client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from prometheus_client import Counter

from talktime_operator.names import (
    DELETION_COST,
    DRAIN_ANNOTATION,
    DRAINED_LABEL,
    HASH_ANNOTATION,
    MANAGER,
    OPEN,
    OPEN_LABEL,
    Key,
    Manifest,
)
from talktime_operator.settings import OperatorSettings

PATHS: Mapping[str, tuple[str, str]] = {
    "Secret": ("/api/v1", "secrets"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Service": ("/api/v1", "services"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Project": ("/apis/talktime.dev/v1alpha1", "projects"),
    "SFUPool": ("/apis/talktime.dev/v1alpha1", "sfupools"),
    "RateCard": ("/apis/talktime.dev/v1alpha1", "ratecards"),
}
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
TIMEOUT = 15.0

requests_total = Counter(
    "talktime_operator_api_requests_total", "Requests to the API server but watches.", ["verb", "kind", "code"]
)


class KubeError(Exception):
    """The API server refused or did not answer (`status` 0)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def digest(manifest: Manifest) -> str:
    """Fingerprint of a manifest, kept as an annotation so that a restarted operator applies nothing twice."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]


async def connect(settings: OperatorSettings) -> client.ApiClient:
    """In-cluster, or by kubeconfig when one is given."""
    configuration = client.Configuration()
    if settings.kubeconfig is not None:
        load = config.load_kube_config(config_file=str(settings.kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        await load
    else:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return client.ApiClient(configuration=configuration)


class Kube:
    """Typed by kind; every method is one request and raises KubeError."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    async def apply(self, manifest: Manifest) -> dict[str, Any]:
        """Server-side apply with our field manager; what we no longer say is removed."""
        body = {**manifest, "metadata": dict(manifest["metadata"])}
        annotations = dict(body["metadata"].get("annotations") or {})
        body["metadata"]["annotations"] = annotations | {HASH_ANNOTATION: digest(manifest)}
        meta = manifest["metadata"]
        path = self._path(manifest["kind"], Key(meta["namespace"], meta["name"]))
        query = [("fieldManager", MANAGER), ("force", "true")]
        return await self._call("PATCH", manifest["kind"], path, query, body, APPLY)

    async def create(self, manifest: Manifest) -> bool:
        """True if it was made, False if one of that name is there already."""
        meta = manifest["metadata"]
        path = self._path(manifest["kind"], Key(meta["namespace"], ""))
        try:
            await self._call("POST", manifest["kind"], path, [("fieldManager", MANAGER)], manifest, "application/json")
        except KubeError as error:
            if error.status == 409:
                return False
            raise
        return True

    async def get(self, kind: str, key: Key) -> dict[str, Any] | None:
        """The object, None when there is none."""
        try:
            return await self._call("GET", kind, self._path(kind, key), [], None, None)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def delete(self, kind: str, key: Key, grace: int | None = None, orphan: bool = False) -> None:
        """Absent afterwards, or on its way. `grace` in seconds, None = the object's own; `orphan` keeps its pods."""
        options: Manifest = {"propagationPolicy": "Orphan" if orphan else "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self._call("DELETE", kind, self._path(kind, key), [], options, "application/json")
        except KubeError as error:
            if error.status != 404:
                raise

    async def write_status(self, kind: str, key: Key, status: Mapping[str, Any]) -> None:
        """The whole status, owned by our field manager."""
        root, _ = PATHS[kind]
        body = {
            "apiVersion": root.removeprefix("/apis/"),
            "kind": kind,
            "metadata": {"name": key.name, **({"namespace": key.namespace} if key.namespace else {})},
            "status": dict(status),
        }
        query = [("fieldManager", MANAGER), ("force", "true")]
        try:
            await self._call("PATCH", kind, self._path(kind, key) + "/status", query, body, APPLY)
        except KubeError as error:
            # Applying to a resource that was deleted meanwhile would create it; the API server refuses that here.
            if error.status not in (404, 409):
                raise

    async def set_deletion_cost(self, pod: Key, cost: str) -> None:
        """Written once, right before a scale-down; a pod that is gone is fine."""
        await self._mark(pod, {"annotations": {DELETION_COST: cost}})

    async def set_drain(self, pod: Key, mark: str | None) -> None:
        """The mark of a drain, None takes it away; a pod that is gone is fine."""
        await self._mark(pod, {"annotations": {DRAIN_ANNOTATION: mark}, "labels": {OPEN_LABEL: None if mark else OPEN}})

    async def set_open(self, pod: Key, opened: bool) -> None:
        """Whether the pool's Service leads new signal connections there."""
        await self._mark(pod, {"labels": {OPEN_LABEL: OPEN if opened else None}})

    async def release(self, pod: Key) -> None:
        """Its drain has ended: the PodDisruptionBudget holds it no longer."""
        await self._mark(pod, {"labels": {DRAINED_LABEL: "true"}})

    async def _mark(self, pod: Key, metadata: Manifest) -> None:
        body = {"metadata": metadata}
        try:
            await self._call("PATCH", "Pod", self._path("Pod", pod), [("fieldManager", MANAGER)], body, MERGE)
        except KubeError as error:
            if error.status != 404:
                raise

    def _path(self, kind: str, key: Key) -> str:
        root, plural = PATHS[kind]
        where = f"{root}/namespaces/{key.namespace}/{plural}" if key.namespace else f"{root}/{plural}"
        return f"{where}/{key.name}" if key.name else where

    async def _call(
        self, verb: str, kind: str, path: str, query: list[tuple[str, str]], body: Any, content: str | None
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", **({"Content-Type": content} if content else {})}
        code = 0
        try:
            request = await self._api.param_serialize(
                verb, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = await self._api.call_api(*request, _request_timeout=TIMEOUT)
            code, data = response.status, await response.read()  # type: ignore[no-untyped-call]
        except (TimeoutError, OSError, aiohttp.ClientError, ApiException) as error:
            raise KubeError(f"{verb} {path}: {type(error).__name__}: {error}", 0) from error
        finally:
            requests_total.labels(verb, kind, str(code)).inc()
        if code >= 300:
            raise KubeError(f"{verb} {path}: {code}: {_message(data)}", code)
        answer: dict[str, Any] = json.loads(data)
        return answer


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data).get("message", ""))
    except ValueError:
        return data[:200].decode(errors="replace")
