"""When a status is written, how money is shown, and what becomes an event."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from talktime_operator import status
from talktime_operator.events import build_event, transitions
from talktime_operator.names import Owner

BASE: dict[str, Any] = {
    "budget": {"posted": "1.00", "state": "OK"},
    "sessions": {"open": 1},
    "conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}],
}


def _with(**budget: str) -> dict[str, Any]:
    return {**BASE, "budget": {**BASE["budget"], **budget}}


def test_nothing_changed_is_no_write() -> None:
    assert status.write_after(BASE, _with(), 1e9, 15) is None


def test_a_changed_state_is_written_at_once() -> None:
    assert status.write_after(BASE, _with(state="HardLimit"), 0.1, 15) == 0


def test_changed_amounts_wait_for_their_interval() -> None:
    assert status.write_after(BASE, _with(posted="1.01"), 4, 15) == 11
    assert status.write_after(BASE, _with(posted="1.01"), 16, 15) == 0


@pytest.mark.parametrize(
    ("value", "shown"),
    [("5", "5.00"), ("1.2345678", "1.234568"), ("0.0000005", "0.00"), ("-0.1", "-0.10"), ("12.300000", "12.30")],
)
def test_money_is_shown_to_the_micro_dollar(value: str, shown: str) -> None:
    assert status.usd(Decimal(value)) == shown


def test_percent_of_nothing_is_no_number() -> None:
    assert status.percent(Decimal("1.25"), Decimal("10")) == "12.5%"
    assert status.percent(Decimal(1), Decimal(0)) == "-"


def condition(kind: str, value: str, reason: str) -> dict[str, str]:
    return {"type": kind, "status": value, "reason": reason, "message": ""}


def test_only_transitions_become_events() -> None:
    before = [condition("Ready", "True", "Ready"), condition("PriceKnown", "True", "AllPriced")]
    after = [condition("Ready", "False", "PriceUnknown"), condition("PriceKnown", "False", "PriceUnknown")]
    assert [(t.type, t.warning) for t in transitions(before, after)] == [("Ready", True), ("PriceKnown", True)]
    assert transitions(after, after) == []
    assert [(t.type, t.warning) for t in transitions(after, before)] == [("Ready", False), ("PriceKnown", False)]


def test_the_first_good_state_is_no_news_and_unknown_never_is() -> None:
    after = [condition("Ready", "True", "Ready"), condition("MediaHealthy", "Unknown", "PoolUnknown")]
    assert transitions([], after) == []
    assert [t.reason for t in transitions([], [condition("Ready", "False", "AgentsNotReady")])] == ["AgentsNotReady"]


def test_a_pause_is_a_warning_and_its_end_is_not() -> None:
    paused, running = condition("Paused", "True", "PausedByAnnotation"), condition("Paused", "False", "NotPaused")
    assert transitions([running], [paused])[0].warning
    assert not transitions([paused], [running])[0].warning


def test_events_of_cluster_wide_objects_go_to_default(now: datetime) -> None:
    owner = Owner("talktime.dev/v1alpha1", "RateCard", "mini", "u")
    (transition,) = transitions([], [condition("Ready", "False", "CardRefused")])
    event = build_event(owner, "", transition, now, "x1")
    assert event["metadata"] == {"name": "mini.x1", "namespace": "default"}
    assert "namespace" not in event["involvedObject"]
