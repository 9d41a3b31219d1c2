"""Twin of children/access_secret.py"""

from __future__ import annotations

import hashlib

from talktime_operator.children.access_secret import build_access_secret, derive_access_keys
from talktime_operator.names import Key, Owner


def test_keys_are_the_same_for_the_same_project_and_epoch_only() -> None:
    keys = derive_access_keys(b"seed", "uid", 0)
    assert keys == derive_access_keys(b"seed", "uid", 0)
    others = [
        derive_access_keys(b"seed", "uid", 1),
        derive_access_keys(b"seed", "other", 0),
        derive_access_keys(b"other", "uid", 0),
    ]
    assert len({keys.server, keys.observer, *(k for o in others for k in (o.server, o.observer))}) == 8


def test_prefixes_tell_the_kind_and_the_ledger_gets_hashes(key: Key, owner: Owner) -> None:
    keys = derive_access_keys(b"seed", "uid", 3)
    assert keys.server.startswith("tts_")
    assert keys.observer.startswith("tto_")
    assert len(keys.server) == 4 + 43
    hashes = {h.kind.value: h for h in keys.hashes()}
    assert hashes["server"].sha256 == hashlib.sha256(keys.server.encode()).hexdigest()
    assert hashes["observer"].id == "observer-3"
    manifest = build_access_secret(key, owner, keys)
    assert manifest["metadata"]["name"] == "study-access"
    assert manifest["stringData"] == {"server-key": keys.server, "observer-key": keys.observer}
