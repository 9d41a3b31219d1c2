"""Twin of children/agent_service_account.py"""

from __future__ import annotations

from talktime_operator.children.agent_service_account import build_agent_service_account
from talktime_operator.names import Key


def test_it_outlives_its_project(key: Key) -> None:
    manifest = build_agent_service_account(key)
    assert manifest["metadata"]["name"] == "talktime-agent-study"
    assert "ownerReferences" not in manifest["metadata"]
    assert manifest["metadata"]["labels"]["talktime.dev/project"] == "study"
    assert manifest["automountServiceAccountToken"] is False
