"""The checker reads the ledger's real schema, from a database that the real migrations made."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from talktime_ledger.migrate import migrate

ROOT = Path(__file__).resolve().parents[3]
RATES = ROOT / "examples" / "rate-cards"
SESSION = str(uuid.uuid4())
RESPONSE = {
    "provider_session": "sess_1", "model": "gpt-realtime-2.1-mini", "kind": "response", "conversation": "auto",
    "meters": {
        "text_in": 100, "text_cached_in": 64, "audio_in": 30, "audio_cached_in": 64, "text_out": 20, "audio_out": 100,
    },
    "status": "completed", "delivered": True, "at": "2026-11-22T10:00:00.000Z",
}  # fmt: skip
TRUTH = [
    {**RESPONSE, "response_id": "resp_1"},
    {**RESPONSE, "response_id": "resp_2"},
    {
        **RESPONSE, "item_id": "item_1", "model": "gpt-4o-mini-transcribe", "kind": "transcription",
        "meters": {"audio_in": 30, "text_in": 0, "text_out": 10},
    },
]  # fmt: skip


def checker() -> Any:
    spec = importlib.util.spec_from_file_location("checker", ROOT / "hack" / "checker.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["checker"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dsn(postgres_dsn: str) -> str:
    """A migrated database that holds TRUTH as one session's usage events and costs."""
    name = f"checker_{uuid.uuid4().hex[:8]}"
    url = f"{postgres_dsn.rsplit('/', 1)[0]}/{name}"
    total = sum((checker().price(record, checker().load_rates([RATES])) for record in TRUTH), Decimal(0))

    async def run(where: str, *statements: tuple[Any, ...]) -> None:
        connection = await asyncpg.connect(where)
        for statement, *values in statements:
            await connection.execute(statement, *values)
        await connection.close()

    asyncio.run(run(postgres_dsn, (f'CREATE DATABASE "{name}"',)))
    migrate(url)
    usages = [
        (
            "INSERT INTO usage_events (session_id, key, kind, model, meters, occurred_at, status, cost_usd, epoch)"
            " VALUES ($1, $2, $3, $4, $5, NOW(), 'completed', 0, 1)",
            SESSION, checker().key_of(record), record["kind"], record["model"], json.dumps(record["meters"]),
        )
        for record in TRUTH
    ]  # fmt: skip
    costs = (
        "INSERT INTO session_costs (session_id, project_id, provider, model, ai_cost_usd, total_cost_usd)"
        " VALUES ($1, $1, 'openai_realtime', 'gpt-realtime-2.1-mini', $2, $2)",
        SESSION,
        total,
    )
    # The rows that these refer to say nothing to the checker.
    asyncio.run(run(url, ("SET session_replication_role = replica",), *usages, costs))
    return url


def run_checker(dsn: str, truth: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "hack" / "checker.py"), "--truth", str(truth), "--rates", str(RATES)]
    return subprocess.run([*command, "--dsn", dsn, *options], capture_output=True, text=True, check=False)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    file = tmp_path / "truth.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in TRUTH))
    return file


def test_the_books_of_a_real_ledger_are_read(dsn: str, truth: Path) -> None:
    result = run_checker(dsn, truth)
    assert result.returncode == 0, result.stdout + result.stderr
    assert SESSION in result.stdout


def test_one_changed_rate_fails(dsn: str, truth: Path) -> None:
    assert run_checker(dsn, truth, "--set-rate", "gpt-realtime-2.1-mini:audio_out=21").returncode == 1


def test_a_billed_response_that_the_ledger_does_not_know_fails(dsn: str, truth: Path) -> None:
    with truth.open("a") as file:
        file.write(json.dumps({**RESPONSE, "response_id": "resp_3"}) + "\n")
    result = run_checker(dsn, truth)
    assert result.returncode == 1
    assert "billed, not counted: response sess_1/resp_3" in result.stdout
