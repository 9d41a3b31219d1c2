"""Who comes and who goes while a pool's keys are changed."""

from __future__ import annotations

from typing import Any

from bench.drain_rounds import rotation
from bench.drain_rounds.rotation import COME_SECONDS, STAY_SECONDS, TALKING_SECONDS, another, leaving


def told(who: str, *events: tuple[float, str]) -> list[dict[str, Any]]:
    return [{"at": at, "who": who, "what": what} for at, what in events]


def test_a_guest_leaves_once_when_it_has_talked_for_long_enough() -> None:
    events = told("a", (1.0, "token"), (2.0, "heard"), (5.0, "turn"))
    assert leaving(events, ["a"], STAY_SECONDS) == []
    assert leaving(events, ["a"], 1.0 + STAY_SECONDS) == ["a"]
    assert leaving([*events, *told("a", (50.0, "leaving"))], ["a"], 60.0) == []


def test_a_guest_who_hears_nobody_is_given_up_and_one_without_a_token_is_waited_for() -> None:
    events = told("a", (1.0, "token"), (5.0, "turn"))
    assert leaving(events, ["a", "b"], STAY_SECONDS + 2) == []
    assert leaving(events, ["a", "b"], TALKING_SECONDS + 1) == ["a"]


def test_guests_come_one_after_the_other_and_only_so_many_are_there_at_once() -> None:
    assert another([], [], 0.0)
    assert not another([], ["a"], 100.0), "the last one has not got in"
    assert another(told("a", (1.0, "refused")), ["a"], 100.0)
    came = [chr(ord("a") + number) for number in range(rotation.AT_ONCE)]
    events = [event for number, who in enumerate(came) for event in told(who, (float(number), "token"))]
    assert not another(events, came, 100.0)
    events += told("a", (50.0, "leaving"), (51.0, "left"))
    assert not another(events, came, came.index(came[-1]) + COME_SECONDS - 1)
    assert another(events, came, 100.0)
