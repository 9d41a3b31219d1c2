"""ConfigMap `<project>-talktime`: what the operator has to remember because it may not read it back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from talktime_ledger.wire import AccessKey

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner


@dataclass(frozen=True)
class Record:
    """Hashes of the access keys that were handed out, and the names of the LiveKit Secrets that were made: that of the
    pool and, for standby agents, that of its fallback.

    `epoch` is -1 while no access Secret was made.
    """

    epoch: int = -1
    keys: tuple[AccessKey, ...] = ()
    livekit_secret: str = ""
    standby_secret: str = ""

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Record:
        """An unreadable record is an empty one: the Secrets are then asked for again."""
        try:
            keys = tuple(AccessKey.model_validate(k) for k in json.loads(data["access-keys.json"]))
            return cls(int(data["access-epoch"]), keys, data.get("livekit-secret", ""), data.get("standby-secret", ""))
        except (KeyError, ValueError):
            return cls()


def build_agent_record(key: Key, owner: Owner, record: Record) -> Manifest:
    keys = [k.model_dump(mode="json") for k in record.keys]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.metadata(
            Key(key.namespace, names.record(key.name)), {**names.MANAGED_BY, names.PROJECT_LABEL: key.name}, owner
        ),
        "data": {
            "access-epoch": str(record.epoch),
            "access-keys.json": json.dumps(keys, sort_keys=True),
            "livekit-secret": record.livekit_secret,
            **({"standby-secret": record.standby_secret} if record.standby_secret else {}),
        },
    }
