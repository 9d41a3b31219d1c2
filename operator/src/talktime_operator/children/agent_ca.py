"""ConfigMap `<project>-ca-<digest>`: the CAs that a Project's agents trust instead of their image's.

The name changes with the content, so that a new bundle makes new pods while draining ones keep what they started with.
"""

from __future__ import annotations

import hashlib

from talktime_operator import names
from talktime_operator.names import Key, Manifest, Owner

FILE = "ca.pem"


def agent_ca_name(project: str, bundle: str) -> str:
    return f"{project}-ca-{hashlib.sha256(bundle.encode()).hexdigest()[:10]}"


def build_agent_ca(key: Key, owner: Owner, bundle: str) -> Manifest:
    """`bundle`: PEM certificates."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.metadata(
            Key(key.namespace, agent_ca_name(key.name, bundle)),
            {**names.MANAGED_BY, names.PROJECT_LABEL: key.name},
            owner,
        ),
        "immutable": True,
        "data": {FILE: bundle},
    }
