"""The checker reads the ledger's real schema, from a database that the real migrations made."""

from __future__ import annotations

import asyncio
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

from hack import checker, checker_sources

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


@pytest.fixture(scope="module")
def dsn(postgres_dsn: str) -> str:
    """A migrated database that holds TRUTH as one session's usage events and costs."""
    name = f"checker_{uuid.uuid4().hex[:8]}"
    url = f"{postgres_dsn.rsplit('/', 1)[0]}/{name}"
    total = sum((checker.price(record, checker.load_rates([RATES])) for record in TRUTH), Decimal(0))

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
            SESSION, checker.key_of(record), record["kind"], record["model"], json.dumps(record["meters"]),
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
    command = [sys.executable, "-m", "hack.checker", "--truth", str(truth), "--rates", str(RATES)]
    return subprocess.run([*command, "--dsn", dsn, *options], capture_output=True, text=True, check=False, cwd=ROOT)


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


def test_of_chosen_sessions_the_books_tell_projects_and_what_else_their_accounts_hold(dsn: str) -> None:
    """Two generations of one Project, each with a session, and a session of another Project."""
    project, other, ours, raised, elder, stranger = (uuid.uuid4() for _ in range(6))
    statements: list[tuple[Any, ...]] = [("SET session_replication_role = replica",)]
    for each, name in ((project, "interviews"), (other, "patients")):
        statements.append(
            (
                "INSERT INTO projects (id, namespace, name, uid, generation, spec, instructions)"
                " VALUES ($1, 'demo', $2, $2, 1, '{}', '')",
                each,
                name,
            )
        )
    for account, owner, generation in ((901, project, 1), (902, project, 2), (903, other, 1)):
        statements.append(
            (
                "INSERT INTO accounts (id, project_id, kind, period, generation, budget, ceiling)"
                " OVERRIDING SYSTEM VALUE VALUES ($1, $2, 'project', 'total', $3, 10, 10)",
                account,
                owner,
                generation,
            )
        )
    for session, owner, account in (
        (ours, project, 902), (raised, project, 902), (elder, project, 901), (stranger, other, 903),
    ):  # fmt: skip
        statements.append(
            (
                "INSERT INTO sessions (id, project_id, account_id, provider, api, vendor, model, participant_identity,"
                " config, rates, limit_usd, soft_percent, w_usd, goodbye_usd, valid_until)"
                " VALUES ($1, $2, $3, 'a', 'OpenAIRealtime', 'openai', 'm', 'p', '{}', '{}', 1, 80, 0, 0, NOW())",
                session,
                owner,
                account,
            )
        )
        for leg, amount in (("ai", Decimal("0.5")), ("transport", Decimal("0.03"))):
            statements.append(
                (
                    "INSERT INTO entries (account_id, project_id, session_id, kind, usage_kind, leg, model, meters,"
                    " amount_usd, occurred_at) VALUES ($1, $2, $3, 'usage', 'response', $4, 'm', '{}', $5, NOW())",
                    account,
                    owner,
                    session,
                    leg,
                    amount,
                )
            )

    async def filled() -> checker_sources.Books:
        connection = await asyncpg.connect(dsn)
        for statement, *values in statements:
            await connection.execute(statement, *values)
        await connection.close()
        return await checker_sources.from_database(dsn, frozenset({str(ours)}))

    books = asyncio.run(filled())
    assert books.projects == {"demo/interviews"}
    assert books.retired == {str(elder)}
    # The other session of this account, and the transport of both.
    assert books.elsewhere == Decimal("0.56")
