"""Twin of children/agent_ca.py"""

from __future__ import annotations

from talktime_operator.children.agent_ca import FILE, agent_ca_name, build_agent_ca
from talktime_operator.names import Key, Owner


def test_a_bundle_has_a_name_of_its_own_and_never_changes(key: Key, owner: Owner) -> None:
    manifest = build_agent_ca(key, owner, "one")
    assert manifest["metadata"]["name"] == agent_ca_name("study", "one") != agent_ca_name("study", "two")
    assert manifest["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert manifest["immutable"] is True
    assert manifest["data"] == {FILE: "one"}
