"""Twin of children/livekit_secret.py"""

from __future__ import annotations

from talktime_operator.children.livekit_secret import LiveKitAccess, build_livekit_secret
from talktime_operator.names import Key, Owner


def test_the_name_changes_with_the_content(key: Key, owner: Owner) -> None:
    one, two = LiveKitAccess("ws://a", "k", "s"), LiveKitAccess("ws://b", "k", "s")
    assert one.secret_name("study") != two.secret_name("study")
    manifest = build_livekit_secret(key, owner, one)
    assert manifest["metadata"]["name"] == one.secret_name("study")
    assert manifest["immutable"] is True
    assert manifest["stringData"] == {"url": "ws://a", "api-key": "k", "api-secret": "s"}
