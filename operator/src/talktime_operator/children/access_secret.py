"""Secret `<project>-access`: the server key and the observer key of a Project.

The operator may create Secrets in a Project's namespace but not read them, so it can never see a provider's key. Access
keys are therefore derived: HMAC-SHA256(seed, Project uid / epoch / kind). The seed is a Secret of the release namespace;
the epoch goes up each time the Secret was deleted and made anew (that is how one rotates).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass

from talktime_ledger.wire import AccessKey, AccessKind

from .. import names
from ..names import Key, Manifest, Owner

PREFIXES = {AccessKind.SERVER: "tts_", AccessKind.OBSERVER: "tto_"}


@dataclass(frozen=True)
class AccessKeys:
    """The keys of one epoch in clear; only hashes leave the operator's memory, except into the Secret."""

    epoch: int
    server: str
    observer: str

    def hashes(self) -> tuple[AccessKey, ...]:
        return tuple(
            AccessKey(id=f"{kind.value}-{self.epoch}", kind=kind, sha256=hashlib.sha256(key.encode()).hexdigest())
            for kind, key in ((AccessKind.SERVER, self.server), (AccessKind.OBSERVER, self.observer))
        )


def derive_access_keys(seed: bytes, project_uid: str, epoch: int) -> AccessKeys:
    def key(kind: AccessKind) -> str:
        digest = hmac.new(seed, f"{project_uid}/{epoch}/{kind.value}".encode(), hashlib.sha256).digest()
        return PREFIXES[kind] + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    return AccessKeys(epoch, key(AccessKind.SERVER), key(AccessKind.OBSERVER))


def build_access_secret(key: Key, owner: Owner, keys: AccessKeys) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": names.metadata(
            Key(key.namespace, names.access_secret(key.name)),
            {**names.MANAGED_BY, names.PROJECT_LABEL: key.name},
            owner,
        ),
        "type": "Opaque",
        "stringData": {"server-key": keys.server, "observer-key": keys.observer},
    }


@dataclass(frozen=True)
class Record:
    """What the operator remembers in the ConfigMap `<project>-talktime`: hashes of the keys that were handed out."""

    epoch: int
    keys: tuple[AccessKey, ...]

    @classmethod
    def parse(cls, data: dict[str, str]) -> Record | None:
        try:
            raw = json.loads(data["access-keys.json"])
            return cls(int(data["access-epoch"]), tuple(AccessKey.model_validate(k) for k in raw))
        except (KeyError, ValueError):
            return None


def build_record(key: Key, owner: Owner, record: Record) -> Manifest:
    keys = [k.model_dump(mode="json") for k in record.keys]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.metadata(
            Key(key.namespace, names.record(key.name)), {**names.MANAGED_BY, names.PROJECT_LABEL: key.name}, owner
        ),
        "data": {"access-epoch": str(record.epoch), "access-keys.json": json.dumps(keys, sort_keys=True)},
    }
