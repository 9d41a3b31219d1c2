"""What sessions of the ledger tell: first audio, and the month that transport is bought for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from talktime_console.measured import FirstAudio, first_audio, month_of, percentile
from talktime_console.shape import Shape, Stays
from talktime_ledger.wire import SessionRow, TransportRow

T = datetime(2026, 11, 22, 12, tzinfo=UTC)


def row(start: float | None, end: float | None = None, spoke: float | None = None, model: str = "m") -> SessionRow:
    def at(seconds: float | None) -> str | None:
        return None if seconds is None else (T + timedelta(seconds=seconds)).isoformat()

    session: dict[str, Any] = {
        "session_id": "s",
        "namespace": "n",
        "project": "p",
        "provider": "main",
        "api": "OpenAIRealtime",
        "model": model,
        "epoch": 1,
        "state": "closed" if end is not None else "open",
        "opened_at": T.isoformat(),
        "attached_at": at(start),
        "closed_at": at(end),
        "participant_identity": "participant-1",
        "observers": [],
        "posted": "0",
        "reserved": "0",
        "limit": "1",
        "events": [] if spoke is None else [{"name": "first_audio", "at": at(spoke)}],
    }
    return SessionRow.model_validate({"session": session, "costs": []})


def test_first_audio_by_model() -> None:
    rows = [
        row(0, spoke=0.4),
        row(10, spoke=10.6),
        row(0, spoke=2),
        row(0, spoke=1, model="x"),
        row(0),
        row(None, spoke=3),
    ]
    assert first_audio(rows) == {"m": FirstAudio(600, 2000, 3), "x": FirstAudio(1000, 1000, 1)}


def test_percentiles_are_values_that_occurred() -> None:
    assert [percentile(list(range(1, 101)), p) for p in (50, 95, 100)] == [50, 95, 100]
    assert percentile([7], 1) == 7


def presence(**changes: int) -> TransportRow:
    told = {
        "sessions": 4, "talk_sec": 4 * 600, "peak_sessions": 3, "connections": 11, "participant_seconds": 5000,
        "selfhosted_seconds": 5000, "begun_minutes": 93, "selfhosted_begun_minutes": 93,
    }  # fmt: skip
    return TransportRow.model_validate(told | changes)


def test_a_month_is_its_real_connections() -> None:
    month = month_of(presence(), Shape())
    assert month is not None
    assert (month.sessions, month.peak, month.shape.minutes, month.shape.participants) == (4, 3, 10, 2)
    assert month.shape.stays == Stays(Decimal(1250), Decimal("23.25"))
    assert month.told == "4 sessions, 93 participant-minutes, 3 at once"


def test_a_month_without_connections_says_so_and_one_without_sessions_is_none() -> None:
    month = month_of(presence(connections=0, participant_seconds=0, begun_minutes=0), Shape(participants=3))
    assert month is not None
    assert (month.shape.stays, month.shape.participants) == (None, 3)
    assert "nobody told participant-minutes" in month.told
    assert month_of(presence(sessions=0), Shape()) is None
