"""Services of a pool: `sfu-<pool>` for signalling and API, `sfu-<pool>-nodes` (headless) for the StatefulSet."""

from __future__ import annotations

from talktime_ledger.resources.pool import SFUPoolSpec

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner


def build_signal_service(key: Key, owner: Owner, spec: SFUPoolSpec, only_open: bool = False) -> Manifest:
    """`only_open`: new connections to nodes that do not drain; else to all, which is better than to none."""
    extra = {"selector": names.pool_labels(key.name) | {names.OPEN_LABEL: names.OPEN}} if only_open else {}
    return _service(key, owner, names.sfu(key.name), spec.network.ports.http, extra)


def build_headless_service(key: Key, owner: Owner, spec: SFUPoolSpec) -> Manifest:
    # Draining nodes stay resolvable: their rooms still accept joins.
    extra: Manifest = {"clusterIP": "None", "publishNotReadyAddresses": True}
    return _service(key, owner, f"{names.sfu(key.name)}-nodes", spec.network.ports.http, extra)


def _service(key: Key, owner: Owner, name: str, port: int, extra: Manifest) -> Manifest:
    labels = names.pool_labels(key.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(Key(key.namespace, name), labels, owner),
        "spec": {
            "selector": labels,
            "ports": [{"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}],
            **extra,
        },
    }


def in_cluster_url(key: Key, spec: SFUPoolSpec) -> str:
    """What agents and gateway use."""
    default = f"ws://{names.sfu(key.name)}.{key.namespace}.svc:{spec.network.ports.http}"
    return spec.network.internal_url or default


def public_url(key: Key, spec: SFUPoolSpec) -> str:
    """What participants are told."""
    return spec.network.public_url or in_cluster_url(key, spec)
