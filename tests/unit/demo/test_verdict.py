"""The demo fails when an interview was too little of one, or when the limit was not kept as it promises."""

from __future__ import annotations

from typing import Any

import pytest

from hack.demo.verdict import limit_unkept, too_little

INTERVIEW = {"session": "s1", "turns": 6, "seconds": 45.0, "cost_updates": 4}
ROW = {
    "state": "closed",
    "close_reason": "budget",
    "events": [
        {"name": "wrap_up_sent", "at": "2026-11-22T10:01:00Z"},
        {"name": "closing_started", "at": "2026-11-22T10:02:00.500+00:00"},
    ],
    "keys": ["sess_1/resp_1", "item_1/0"],
}


def asked(at: str = "2026-11-22T10:01:00Z", connection: str = "sess_1", wrap_up: bool = True) -> dict[str, Any]:
    return {"event": "response.create", "at": at, "provider_session": connection, "wrap_up": wrap_up}


def test_six_turns_in_45_seconds_with_four_cost_updates_are_an_interview() -> None:
    assert too_little([INTERVIEW]) == []


@pytest.mark.parametrize(("name", "value"), [("turns", 5), ("seconds", 44.9), ("cost_updates", 3)])
def test_less_is_not(name: str, value: float) -> None:
    [line] = too_little([INTERVIEW, {**INTERVIEW, "session": "s2", name: value}])
    assert line.startswith(f"s2: {name.replace('_', ' ')} {value}")


def test_an_interview_that_never_began_is_not() -> None:
    assert len(too_little([{"participant": 0, "refused": 402}])) == 3


def test_one_wrap_up_before_the_closing_line_keeps_the_limit() -> None:
    log = [asked(), asked(wrap_up=False), asked(connection="sess_of_another"), {"event": "session.created"}]
    assert limit_unkept("s1", [ROW], log) == []


@pytest.mark.parametrize(
    ("row", "log", "says"),
    [
        ({"close_reason": "participant_left"}, [asked()], "closed by participant_left"),
        ({}, [], "told to wrap up 0 times"),
        ({}, [asked(connection="sess_of_another")], "told to wrap up 0 times"),
        ({}, [asked(), asked("2026-11-22T10:01:30Z")], "told to wrap up 2 times"),
        ({}, [asked("2026-11-22T10:02:01Z")], "after its closing line"),
        ({"events": []}, [asked()], "no closing line"),
        ({"state": "open"}, [asked()], "still open"),
    ],
)
def test_anything_else_does_not(row: dict[str, Any], log: list[dict[str, Any]], says: str) -> None:
    [line] = limit_unkept("s1", [{**ROW, **row}], log)
    assert says in line


def test_a_session_unknown_to_the_ledger_does_not() -> None:
    assert limit_unkept("s1", [], [asked()]) == ["s1: the ledger does not know this session"]
