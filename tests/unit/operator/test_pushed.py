"""What is remembered is read back; what cannot be read is forgotten."""

from __future__ import annotations

import pytest
from talktime_operator.names import Key
from talktime_operator.pushed import build_pushed, parse_pushed


def test_round_trip() -> None:
    entries = frozenset({("pool", Key("talktime", "eu")), ("card", Key("", "mini"))})
    manifest = build_pushed("talktime", entries)  # type: ignore[arg-type]
    assert parse_pushed(manifest["data"]) == entries
    assert build_pushed("talktime", entries) == manifest  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [{}, {"entries.json": "{"}, {"entries.json": "[1]"}])
def test_unreadable_is_empty(data: dict[str, str]) -> None:
    assert parse_pushed(data) == frozenset()
