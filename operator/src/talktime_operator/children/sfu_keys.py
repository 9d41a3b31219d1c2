"""LiveKit API keys: `sfu-<pool>-keys` per pool and the aggregate `talktime-sfu-keys` for the gateway."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner
from talktime_operator.pools.rotation import Keys, Pair

AGGREGATE = "talktime-sfu-keys"
STATE = "rotation.json"
"""Entry of a pool's Secret: where a rotation of its keys stands."""


@dataclass(frozen=True)
class SfuKeys:
    """One pool's LiveKit key pairs, and the password of its embedded Redis."""

    keys: Keys
    redis_password: str = field(default="", repr=False)


def ring_entry(ring: str) -> str:
    """The key file for nodes of that ring. An entry each: a node restarted in place must find the pairs it had."""
    return f"ring-{ring}.yaml"


def entries(pool: SfuKeys) -> dict[str, str]:
    """What stands in a pool's Secret."""
    active = pool.keys.active
    return {
        "api-key": active.api_key,
        "api-secret": active.api_secret,
        # Of nodes of older versions.
        "keys.yaml": _key_file(pool.keys.ring),
        **{ring_entry(ring): _key_file(pairs) for ring, pairs in pool.keys.rings.items()},
        "redis-password": pool.redis_password,
        STATE: pool.keys.render(),
    }


def build_sfu_keys(key: Key, owner: Owner, pool: SfuKeys) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": names.metadata(
            Key(key.namespace, f"{names.sfu(key.name)}-keys"), names.pool_labels(key.name, "keys"), owner
        ),
        "type": "Opaque",
        # `data` and not `stringData`: only then does an apply remove the entries of rings that are gone.
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in entries(pool).items()},
    }


def build_aggregate(namespace: str, pools: Mapping[Key, Keys]) -> Manifest:
    """Mounted by the gateway; without an owner because it spans pools."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": names.metadata(Key(namespace, AGGREGATE), dict(names.MANAGED_BY), None),
        "type": "Opaque",
        "data": {f"{key.namespace}.{key.name}.json": _encoded(keys) for key, keys in sorted(pools.items())},
    }


def _key_file(pairs: tuple[Pair, ...]) -> str:
    return "".join(f"{p.api_key}: {p.api_secret}\n" for p in pairs)


def _encoded(keys: Keys) -> str:
    """`also`: pairs that are not signed with now, and whose signatures count."""
    value: dict[str, object] = {"apiKey": keys.active.api_key, "apiSecret": keys.active.api_secret}
    if keys.other is not None:
        value["also"] = {keys.other.api_key: keys.other.api_secret}
    return base64.b64encode(json.dumps(value, sort_keys=True).encode()).decode()
