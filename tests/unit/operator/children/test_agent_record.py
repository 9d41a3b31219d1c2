"""Twin of children/agent_record.py"""

from __future__ import annotations

import pytest
from talktime_operator.children.access_secret import derive_access_keys
from talktime_operator.children.agent_record import Record, build_agent_record
from talktime_operator.names import Key, Owner


def test_what_is_remembered_can_be_read_back(key: Key, owner: Owner) -> None:
    record = Record(2, derive_access_keys(b"seed", "uid-1", 2).hashes(), "study-livekit-abc")
    manifest = build_agent_record(key, owner, record)
    assert manifest["metadata"]["name"] == "study-talktime"
    assert Record.parse(manifest["data"]) == record


@pytest.mark.parametrize("data", [{}, {"access-epoch": "x", "access-keys.json": "[]"}, {"access-keys.json": "{"}])
def test_an_unreadable_record_is_an_empty_one(data: dict[str, str]) -> None:
    assert Record.parse(data) == Record()


def test_no_key_stands_in_the_record(key: Key, owner: Owner) -> None:
    keys = derive_access_keys(b"seed", "uid-1", 0)
    text = str(build_agent_record(key, owner, Record(0, keys.hashes(), "")))
    assert keys.server not in text
    assert keys.observer not in text
