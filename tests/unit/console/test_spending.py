"""The spend report and the table of sessions."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from talktime_console.sittings import clock, sessions_table
from talktime_console.spending import budget_table, plan_table, sessions_left, spend_table
from talktime_ledger.wire import PlanRow, ProjectStatus, SessionRow, SpendRow

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def spend(**changes: Any) -> SpendRow:
    base = {"namespace": "team", "project": "study", "sessions": 4, "ai_cost_usd": "1", "transport_cost": "0.02"}
    tokens = {"audio_in_tokens": 10, "audio_out_tokens": 20, "text_tokens": 30, "duration_sec": 90}
    more = {"total_cost_usd": "1.02", "unmetered_usd": "0", "provider": "openai_realtime", "model": "mini"}
    return SpendRow.model_validate({**base, **tokens, **more, **changes})


def status(**budget: str) -> ProjectStatus:
    money = {"amount": "10", "posted": "2.5", "reserved": "0.5", "available": "7", "forecast": "12"}
    return ProjectStatus.model_validate(
        {
            "namespace": "team",
            "name": "study",
            "budget": {**money, "state": "OK", "period": "2026-11", **budget},
            "sessions": {},
            "feasible": {"ok": True},
            "ledgerTime": NOW.isoformat(),
        }
    )


def test_spend_shows_averages_and_sums() -> None:
    table = spend_table([spend(), spend(model="big", sessions=0, ai_cost_usd="0", total_cost_usd="0")], ["model"], 2)
    first, second = table.records()
    assert (first["model"], first["total_usd"], first["average_usd"], first["minutes"]) == (
        "mini",
        "1.02",
        "0.26",
        "1.5",
    )
    assert second["average_usd"] is None, "no sessions, no average"
    assert "provider" not in first, "not asked for"
    assert table.total is not None
    assert len(table.total) == len(table.columns)
    assert table.total[-5:-2] == ("1.00", "0.04", "1.04")


def test_budgets_say_how_far_they_go() -> None:
    (row,) = budget_table([status()], [spend()], 4).records()
    assert (row["used_percent"], row["forecast_percent"], row["sessions_left"]) == ("25.0", "120.0", 27)
    assert row["average_session_usd"] == "0.2550"


def test_a_month_of_the_plan_stands_beside_the_spend() -> None:
    row = PlanRow(
        month="2026-11",
        card="livekit-cloud",
        fee_usd=Decimal(50),
        included_minutes=150_000,
        used_minutes=1_237,
        left_minutes=148_763,
        included_bytes=250 * 10**9,
        used_bytes=1_110_000_000,
        left_bytes=248_890_000_000,
        beyond_usd=Decimal(0),
    )
    without = row.model_copy(update={"included_bytes": None, "left_bytes": None})
    told, bare = plan_table([row, without], 2).records()
    assert (told["month"], told["fee_usd"], told["beyond_usd"]) == ("2026-11", "50.00", "0.00")
    assert (told["included_minutes"], told["used_minutes"], told["left_minutes"]) == (150_000, 1_237, 148_763)
    assert (told["included_gb"], told["used_gb"], told["left_gb"]) == ("250.00", "1.11", "248.89")
    assert (bare["included_gb"], bare["left_gb"]) == (None, None), "nothing of it is included"


def test_a_spent_or_unused_budget() -> None:
    (row,) = budget_table([status(available="-0.5", amount="0")], [], 4).records()
    assert (row["used_percent"], row["sessions_left"], row["average_session_usd"]) == (None, None, None)
    assert sessions_left(Decimal("-0.5"), Decimal("0.1")) == 0
    assert sessions_left(Decimal("1"), Decimal("0")) is None


def session_row(costs: list[dict[str, Any]] | None = None, **changes: Any) -> SessionRow:
    session = {
        "session_id": "00000000-0000-4000-8000-000000000001",
        "namespace": "team",
        "project": "study",
        "provider": "main",
        "api": "OpenAIRealtime",
        "model": "mini",
        "epoch": 1,
        "state": "open",
        "opened_at": NOW.isoformat(),
        "participant_identity": "participant-1",
        "observers": [],
        "posted": "0.05",
        "reserved": "0.01",
        "limit": "0.10",
        **changes,
    }
    return SessionRow.model_validate({"session": session, "costs": costs or []})


def cost(**changes: Any) -> dict[str, Any]:
    base = {
        "session_id": "s",
        "project_id": "p",
        "provider": "openai_realtime",
        "model": "mini",
        "audio_in_tokens": 1,
        "audio_out_tokens": 2,
        "text_tokens": 3,
        "ai_cost_usd": "0.06",
        "transport_cost": "0.001",
        "total_cost_usd": "0.061",
        "duration_sec": 75,
        "created_at": NOW.isoformat(),
        "rate_snapshot": [],
    }
    return {**base, **changes}


def test_a_closed_session_is_told_by_its_cost_rows() -> None:
    row = session_row([cost(), cost(model="transcribe", ai_cost_usd="0.01")], state="closed", close_reason="HardLimit")
    (told,) = sessions_table([row], NOW, 4).records()
    assert (told["duration"], told["ai_usd"], told["transport_usd"]) == ("1:15", "0.0700", "0.0020")
    assert (told["audio_in_tokens"], told["ended"]) == (2, "HardLimit")


@pytest.mark.parametrize(
    ("changes", "duration", "ended"),
    [
        ({}, "0:00", "waiting for an agent"),
        ({"attached_at": NOW.isoformat()}, "1:05", "open"),
        ({"attached_at": NOW.isoformat(), "soft_at": NOW.isoformat()}, "1:05", "open (soft limit)"),
        ({"state": "closed", "close_reason": "nobody_joined", "closed_at": NOW.isoformat()}, "0:00", "nobody_joined"),
        (
            {"state": "closed", "soft_at": NOW.isoformat(), "hard_at": NOW.isoformat()},
            "0:00",
            "closed (soft limit, hard limit)",
        ),
    ],
)
def test_how_a_session_stands(changes: dict[str, Any], duration: str, ended: str) -> None:
    (told,) = sessions_table([session_row(**changes)], NOW + timedelta(seconds=65), 4).records()
    assert (told["duration"], told["ended"], told["ai_usd"]) == (duration, ended, "0.0500")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59, "0:59"), (61, "1:01"), (3600, "1:00:00")])
def test_clock(seconds: int, text: str) -> None:
    assert clock(seconds) == text
