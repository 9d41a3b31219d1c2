"""ServiceAccount of a Project's agents: who they are to the ledger. It has no rights in the cluster."""

from __future__ import annotations

from talktime_operator import names
from talktime_operator.names import Key, Manifest


def build_agent_service_account(key: Key) -> Manifest:
    """Without an owner: the tokens of pods that still hold sessions must outlive a deleted Project. The operator
    deletes it when no pod of the Project is left."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": names.metadata(Key(key.namespace, names.agent(key.name)), names.agent_labels(key.name), None),
        "automountServiceAccountToken": False,
    }
