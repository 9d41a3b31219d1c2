"""What a round of interviews leaves for the checker to look at."""

from __future__ import annotations

from pathlib import Path

from hack.demo.interviews import Held


def test_only_sessions_that_began_are_checked(tmp_path: Path) -> None:
    sessions = [{"session": "s1"}, {"participant": 1, "refused": 402}, {"session": "s2"}]
    assert Held({"sessions": sessions}, tmp_path).ids == ["s1", "s2"]
