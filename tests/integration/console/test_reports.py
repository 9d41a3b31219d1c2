"""The installed command against a ledger over HTTP: what it asks, what it makes of the answer, what it pipes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from talktime_ledger.wire import SessionReport, SessionRow, TransportReport, TransportRow

COMMAND = Path(sys.executable).parent / "talktime"
MODEL = "gpt-realtime-2.1"


def row(number: int, now: datetime) -> SessionRow:
    """Thirty minutes, begun a minute after the one before; it spoke after number x 100 ms."""
    began = now - timedelta(days=1) + timedelta(minutes=number)
    identity = f"00000000-0000-4000-8000-{number:012}"
    session = {
        "session_id": identity,
        "namespace": "studies",
        "project": "interviews",
        "provider": "main",
        "api": "OpenAIRealtime",
        "model": MODEL,
        "epoch": 1,
        "state": "closed",
        "opened_at": began,
        "attached_at": began,
        "closed_at": began + timedelta(minutes=30),
        "close_reason": "participant_left",
        "participant_identity": "participant-1",
        "observers": [],
        "posted": "0.0064",
        "reserved": "0",
        "limit": "1",
        "events": [{"name": "first_audio", "at": began + timedelta(milliseconds=100 * number)}],
    }
    cost = {
        "session_id": identity,
        "project_id": "p",
        "provider": "openai_realtime",
        "model": MODEL,
        "audio_in_tokens": 100,
        "audio_out_tokens": 50,
        "text_tokens": 0,
        "ai_cost_usd": "0.0064",
        "transport_cost": "0.03",
        "total_cost_usd": "0.0364",
        "duration_sec": 1800,
        "created_at": began,
        "rate_snapshot": [{"vendor": "openai", "model": MODEL, "effective_from": "2026-01-01T00:00:00Z"}],
    }
    return SessionRow.model_validate({"session": session, "costs": [cost]})


PRESENCE = TransportRow(
    sessions=20,
    talk_sec=20 * 1800,
    peak_sessions=17,
    connections=43,
    participant_seconds=73_000,
    selfhosted_seconds=73_000,
    begun_minutes=1237,
    selfhosted_begun_minutes=1237,
)
"""Twenty sessions of half an hour; three reconnections."""


@pytest.fixture
def asked() -> list[dict[str, list[str]]]:
    return []


@pytest.fixture
def ledger(asked: list[dict[str, list[str]]]) -> Iterator[str]:
    """A server that answers the ledger's reports in its own form, to the right token only."""
    now = datetime.now(UTC)
    answers = {
        "/v1/reports/sessions": SessionReport(rows=tuple(row(number, now) for number in range(1, 21))),
        "/v1/reports/transport": TransportReport(rows=(PRESENCE,)),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            allowed = self.headers["Authorization"] == "Bearer good"
            found = url.path in answers
            body = (
                answers[url.path].model_dump_json().encode()
                if allowed and found
                else b'{"title":"no","status":401,"reason":"Unauthorized"}'
            )
            asked.append(parse_qs(url.query))
            self.send_response(200 if allowed and found else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def talktime(ledger: str, tmp_path: Path) -> Run:
    token = tmp_path / "token"
    token.write_text("good")

    def run(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        settings = {"TALKTIME_LEDGER_URL": ledger, "TALKTIME_TOKEN_FILE": str(token), "TALKTIME_PATIENCE_SEC": "0"}
        return subprocess.run(
            [COMMAND, *arguments], input=stdin, env={**os.environ, **settings, **env}, capture_output=True, text=True
        )

    return run


def test_time_to_first_audio_is_measured_where_sessions_exist(talktime: Run, asked: list[dict[str, list[str]]]) -> None:
    done = talktime("compare", "-m", MODEL, "-m", "gemini-3.8-live", "-p", "studies/interviews", "-o", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    measured, other = told["models"]
    assert (measured["first_audio_median_ms"], measured["first_audio_p95_ms"], measured["first_audio_sessions"]) == (
        1000,
        1900,
        20,
    )
    assert other["first_audio_median_ms"] is None
    assert told["first_audio"] == {"measured": True, "missing": None}
    assert (asked[0]["namespace"], asked[0]["project"]) == (["studies"], ["interviews"])


def test_economics_from_real_participant_minutes_and_the_real_peak(
    talktime: Run, asked: list[dict[str, list[str]]]
) -> None:
    done = talktime("economics", "--from-ledger", "--sessions-per-node", "15", "-o", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["inputs"]["peak"], told["inputs"]["minutes"]) == (17, "30")
    assert "20 sessions, 1,237 participant-minutes, 17 at once" in told["inputs"]["source"]
    (own,) = told["own_nodes"]
    # Peak 17 of 15 a node: two nodes of 200; 73,000 s at 0.0024 an hour were charged.
    assert (own["participant_minutes"], own["nodes"], own["nodes_usd"], own["used_usd"], own["idle_usd"]) == (
        1216,
        2,
        "400.00",
        "0.05",
        "399.95",
    )
    (month,) = told["months"]
    # 1,237 x 0.005, and not 20 sessions x 2 x 30 minutes x 0.005 = 6.00.
    assert (month["sessions"], month["participant_minutes"], month["nodes"]) == (20, 1237, 2)
    assert Decimal(month["managed_published_usd"]) == Decimal("6.18")
    since = datetime.fromisoformat(asked[0]["from"][0])
    assert timedelta(days=29) < datetime.now(UTC) - since < timedelta(days=31)


def test_sessions_are_priced_again_from_a_pipe(talktime: Run) -> None:
    listed = talktime("sessions", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    done = talktime("price", "-", "-o", "json", stdin=listed.stdout)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["cost_usd"] == "0.128000000"
    assert {row["usd"] for row in told["usages"]} == {row["ledger_usd"] for row in told["usages"]} == {"0.006400000"}


def test_a_ledger_that_refuses_is_said_and_only_fatal_where_it_was_asked_for(talktime: Run, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("bad")
    bad = {"TALKTIME_TOKEN_FILE": str(tmp_path / "bad")}
    without = talktime("compare", "-m", MODEL, **bad)
    assert without.returncode == 0, without.stderr
    assert "not measured, the ledger at" in without.stdout
    named = talktime("compare", "-m", MODEL, "-p", "studies/interviews", **bad)
    assert (named.returncode, named.stdout) == (1, "")
    assert "does not accept the token" in named.stderr
    assert "Traceback" not in named.stderr
