"""Secret `<project>-access`: the server key and the observer key of a Project.

The operator may create Secrets in a Project's namespace but not read them, so it can never see a provider's key.
Access keys are therefore derived: HMAC-SHA256(seed, Project uid / epoch / kind). The seed is a Secret of the release
namespace; the epoch goes up each time the Secret was deleted and made anew (that is how one rotates).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass

from talktime_ledger.wire import AccessKey, AccessKind

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner

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
