"""Secret `<project>-livekit-<digest>`: how a Project's agents reach their LiveKit.

The name changes with the content, so that a new URL or key makes new pods, and a Secret that exists never has to be
read to know that it is right.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner


@dataclass(frozen=True)
class LiveKitAccess:
    """URL and keys of one LiveKit."""

    url: str
    api_key: str
    api_secret: str

    def secret_name(self, project: str) -> str:
        text = "\0".join((self.url, self.api_key, self.api_secret))
        return f"{project}-livekit-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def build_livekit_secret(key: Key, owner: Owner, access: LiveKitAccess) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": names.metadata(
            Key(key.namespace, access.secret_name(key.name)),
            {**names.MANAGED_BY, names.PROJECT_LABEL: key.name},
            owner,
        ),
        "type": "Opaque",
        "immutable": True,
        "stringData": {"url": access.url, "api-key": access.api_key, "api-secret": access.api_secret},
    }
