"""LiveKit API keys: `sfu-<pool>-keys` per pool and the aggregate `talktime-sfu-keys` for the gateway."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner

AGGREGATE = "talktime-sfu-keys"


@dataclass(frozen=True)
class SfuKeys:
    """One pool's LiveKit key pair, and the password of its embedded Redis."""

    api_key: str
    api_secret: str
    redis_password: str


def build_sfu_keys(key: Key, owner: Owner, keys: SfuKeys) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": names.metadata(
            Key(key.namespace, f"{names.sfu(key.name)}-keys"), names.pool_labels(key.name, "keys"), owner
        ),
        "type": "Opaque",
        "stringData": {
            "api-key": keys.api_key,
            "api-secret": keys.api_secret,
            # The key file livekit-server reads.
            "keys.yaml": f"{keys.api_key}: {keys.api_secret}\n",
            "redis-password": keys.redis_password,
        },
    }


def build_aggregate(namespace: str, pools: Mapping[Key, SfuKeys]) -> Manifest:
    """Mounted by the gateway; without an owner because it spans pools."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": names.metadata(Key(namespace, AGGREGATE), dict(names.MANAGED_BY), None),
        "type": "Opaque",
        # `data` and not `stringData`: only then does an apply remove the entry of a pool that is gone.
        "data": {
            f"{key.namespace}.{key.name}.json": _encoded({"apiKey": k.api_key, "apiSecret": k.api_secret})
            for key, k in sorted(pools.items())
        },
    }


def _encoded(value: Mapping[str, str]) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()
