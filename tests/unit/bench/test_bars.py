"""Whether a figure is what the issue asks is computed, for every bench that declares its bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import bars, record

BENCHES = Path(record.__file__).parent


@pytest.mark.parametrize(
    ("value", "bar", "met"),
    [
        (12, "<= 12", True),
        (12.01, "<= 12", False),
        (50, "< 50", False),
        (19, ">= 20", False),
        ("0.000000", "== 0", True),
        ("0E-9", "== 0", True),
        ("0.000000001", "== 0", False),
        (True, "== True", True),
        (False, "== True", False),
        (True, ">= 1", False),
        (None, "== 0", False),
        ("Infinity", ">= 1", False),
        ({"a": 0}, "== 0", False),
    ],
)
def test_a_figure_meets_its_bar_exactly_or_not(value: Any, bar: str, met: bool) -> None:
    assert bars.met(value, bar) is met


@pytest.mark.parametrize("bar", ["12", "<=12", "about 12", ""])
def test_a_bar_that_cannot_be_read_is_an_error(bar: str) -> None:
    with pytest.raises(ValueError, match="no bar"):
        bars.met(1, bar)


def test_missed_are_figures_that_were_measured_a_dot_leads_into_a_group() -> None:
    figures = {"a": 3, "group": {"b": 5}, "fine": 0}
    found = bars.missed(figures, {"a": "<= 2", "group.b": "<= 4", "group.c": "<= 4", "fine": "== 0", "not": "== 0"})
    assert found == ["a 3, bar <= 2", "group.b 5, bar <= 4"]


def test_bars_are_read_from_a_script_without_running_it(tmp_path: Path) -> None:
    script = tmp_path / "one.py"
    script.write_text('import nothing_of_the_kind\nBARS = {\n    "a": "<= 2",\n}\n')
    assert bars.declared(script) == {"a": "<= 2"}
    script.write_text("x = 1\n")
    assert bars.declared(script) == {}


def test_every_declared_bar_can_be_read() -> None:
    declared = record.declared()
    assert {"ledger", "overshoot", "metering", "finance", "gate"} <= set(declared)
    for asked in declared.values():
        for bar in asked.values():
            bars.met(0, bar)


KEPT = {"command": "make bench-x", "commit": "abc", "date": "2026-01-01"}


def page(name: str, figures: dict[str, Any], declared: dict[str, dict[str, str]]) -> list[str]:
    return record.page({name: {**KEPT, "figures": figures}}, declared).partition("## ")[2].splitlines()[3:]


def test_the_page_says_beside_each_figure_what_it_should_be_and_whether_it_is() -> None:
    asked = {"x": {"p95_s": "<= 5", "lost_usd": "== 0", "frozen.p95_s": "<= 25", "frozen.kills": ">= 5"}}
    figures = {"p95_s": 5.1, "lost_usd": "0", "seed": 1, "frozen": {"kills": 5, "p95_s": 24, "at": {"a": 1}}}
    assert page("x", figures, asked) == [
        "| figure | value | bar | met |",
        "|---|---|---|---|",
        "| p95_s | 5.1 | <= 5 | no |",
        "| lost_usd | 0 | == 0 | yes |",
        "| seed | 1 |  |  |",
        "| frozen | kills 5, p95_s 24, at a 1 |  |  |",
        "| frozen.p95_s | 24 | <= 25 | yes |",
        "| frozen.kills | 5 | >= 5 | yes |",
    ]


def test_what_was_not_measured_is_told_and_meets_nothing_but_a_part_of_a_bench_is_a_part() -> None:
    asked = {"x": {"job.p95_s": "<= 5", "pod.p95_s": "<= 10"}}
    figures = {"job": {"kills": 5}}
    assert page("x", figures, asked)[2:] == [
        "| job | kills 5 |  |  |",
        "| job.p95_s | not measured | <= 5 | no |",
        "| pod.p95_s | not measured | <= 10 | no |",
    ]
    assert page("x.rest", figures, asked)[2:] == ["| job | kills 5 |  |  |"]


def test_a_bench_without_bars_has_no_column_for_them() -> None:
    assert page("chaos", {"rounds": 1}, {}) == ["| figure | value |", "|---|---|", "| rounds | 1 |"]
