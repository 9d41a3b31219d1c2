"""What sessions of the ledger tell: first audio, sessions at once, length."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from talktime_console.measured import FirstAudio, first_audio, mean_minutes, peak, percentile
from talktime_ledger.wire import SessionRow

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


def test_the_peak_counts_open_ones_and_not_those_who_follow() -> None:
    rows = [row(0, 60), row(60, 120), row(30, 90), row(100, None), row(None)]
    assert peak(rows, T + timedelta(seconds=200)) == 2
    assert peak([], T) == 0


def test_mean_length() -> None:
    assert mean_minutes([row(0, 60), row(0, 120), row(None)], T) == Decimal("1.5")
    assert mean_minutes([row(None)], T) is None
