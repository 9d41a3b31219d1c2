"""What a ladder of steps says: the last good one, what broke, and rooms per core from the server's own CPU."""

from __future__ import annotations

from typing import Any

import pytest

from bench.density import JOIN_P95_MS, Step, p95, result


def step(rooms: int, **changes: Any) -> Step:
    told: dict[str, Any] = {
        "rooms": rooms, "failed": 0, "join_p95_ms": 200.0, "lost_share": 0.0, "late_share": 0.0, "silent": 0,
        "server_cores": rooms / 100, "generator_cores": 0.5, "join_cpu_ms": 20.0, "rss_mib": 80,
    }  # fmt: skip
    return Step(**{**told, **changes})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, ""),
        ({"failed": 1}, "joins failed"),
        ({"join_p95_ms": JOIN_P95_MS + 1}, "joins took"),
        ({"silent": 2}, "heard nothing"),
        ({"lost_share": 0.006}, "lost"),
        ({"late_share": 0.02}, "late"),
    ],
)
def test_a_step_is_bad_for_a_reason(changes: dict[str, Any], word: str) -> None:
    trouble = step(20, **changes).trouble()
    assert trouble == "" if not word else word in trouble


@pytest.mark.parametrize(
    ("server", "generator", "by"),
    [(0.95, 0.5, "server"), (0.5, 0.95, "generator"), (0.95, 0.95, "both"), (0.5, 0.5, "neither was full")],
)
def test_rooms_per_core_are_of_the_last_good_step_and_who_was_full_is_said(
    server: float, generator: float, by: str
) -> None:
    steps = [step(20), step(40), step(60, failed=3, server_cores=server, generator_cores=generator)]
    found = result(steps, 1, 1)
    assert (found["good_rooms"], found["rooms_per_core"], found["core_ms_per_room_second"]) == (40, 100, 10.0)
    assert (found["broke_at_rooms"], found["broke_because"], found["broke_by"]) == (60, "3 joins failed", by)


def test_a_ladder_that_ended_by_the_clock_broke_nothing() -> None:
    found = result([step(20), step(40)], 1, 1)
    assert (found["good_rooms"], found["broke_at_rooms"]) == (40, None)


def test_a_bad_first_step_is_no_result() -> None:
    with pytest.raises(ValueError, match="first step"):
        result([step(20, failed=1)], 1, 1)


def test_p95_is_a_sample() -> None:
    assert p95([float(n) for n in range(1, 21)]) == 19
    assert p95([]) == 0
