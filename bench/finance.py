"""Finance's questions to a big ledger: the settlement of one day's bill, and a Project's cost by day and provider.

Usage: python -m bench.finance [--sessions 3000000] [--days 365] [--projects 50]      (about 10 minutes, 10 GB of disk)
Real PostgreSQL of its own (no fsync); closed sessions with two usages each, made by SQL, spread over the days. Bars: a
day's settlement under 10 s, the Project's cost from the roll-up under 50 ms. The bill is 0.7 % above what we counted in
one meter, and the books must equal it to the micro-dollar afterwards. The last line is `RESULT {json}`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from talktime_ledger.cards import snapshot_wire
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.rates import RateBook, RateSnapshot
from talktime_ledger.desk.invoicing import settle_bill
from talktime_ledger.store import database, rollups
from talktime_ledger.store.database import Connection
from talktime_ledger.wire.invoices import InvoicePush

from bench import bars
from bench.enforcers.database import TEMPLATE, postgres

MODEL = "gpt-realtime-mini"
RATES = RateSnapshot(
    "bench",
    "openai",
    MODEL,
    datetime(2026, 1, 1, tzinfo=UTC),
    {Meter.AUDIO_IN: Decimal(10), Meter.AUDIO_OUT: Decimal(20)},
)
BARS = {"settlement_s": "< 10", "settlement_difference_usd": "== 0", "cost_query_ms": "< 50"}

FILL = """
INSERT INTO projects (namespace, name, uid, generation, spec, instructions)
  SELECT 'bench', 'p' || n, 'u' || n, 1, $1, '' FROM generate_series(1, $2::int) n;
INSERT INTO accounts (project_id, kind, period, generation, budget, ceiling)
  SELECT id, 'project', 'total', 1, 9e8, 9e8 FROM projects;
INSERT INTO price_snapshots (id, card, vendor, model, effective_from, body)
  VALUES ('s', 'bench', 'openai', $3, '2026-01-01', $4);
CREATE TEMP TABLE made AS
  SELECT gen_random_uuid() AS id, p.id AS project_id, a.id AS account_id,
         $5::timestamptz + make_interval(secs => n::float8 * $6::float8 * 86400 / $7::float8) AS at,
         500 + (n * 7919) % 4000 AS heard, 300 + (n * 104729) % 3000 AS spoken
  FROM generate_series(0, $7::bigint - 1) n
  JOIN (SELECT id, row_number() OVER (ORDER BY name) - 1 AS at FROM projects) p ON p.at = n % $2::int
  JOIN accounts a ON a.project_id = p.id;
INSERT INTO sessions (id, project_id, account_id, provider, api, vendor, model, state, participant_identity, config,
                      rates, limit_usd, soft_percent, w_usd, goodbye_usd, posted, valid_until, opened_at, closed_at,
                      close_reason, duration_sec, closed_tx)
  SELECT id, project_id, account_id, 'main', 'OpenAIRealtime', 'openai', $3, 'closed', 'p', '{}', '[]', 5, 80, 0.1,
         0.01, heard * 10e-6 + spoken * 20e-6, at, at, at, 'participant_left', 900,
         pg_current_xact_id()::text::bigint FROM made;
INSERT INTO entries (account_id, project_id, session_id, kind, usage_kind, leg, model, meters, amount_usd, occurred_at,
                     snapshot_id)
  SELECT account_id, project_id, id, 'usage', 'response', 'ai', $3, jsonb_build_object('audio_in', heard),
         heard * 10e-6, at, 's' FROM made
  UNION ALL
  SELECT account_id, project_id, id, 'usage', 'response', 'ai', $3, jsonb_build_object('audio_out', spoken),
         spoken * 20e-6, at, 's' FROM made;
INSERT INTO session_costs (session_id, project_id, provider, model, audio_in_tokens, audio_out_tokens, ai_cost_usd,
                           total_cost_usd, duration_sec, created_at)
  SELECT id, project_id, 'openai_realtime', $3, heard, spoken, heard * 10e-6 + spoken * 20e-6,
         heard * 10e-6 + spoken * 20e-6, 900, at FROM made;
UPDATE accounts a SET posted = s.posted FROM (SELECT account_id, SUM(posted) AS posted FROM sessions GROUP BY 1) s
  WHERE s.account_id = a.id;
DROP TABLE made;
"""


async def fill(connection: Connection, sessions: int, days: int, projects: int, begin: datetime) -> None:
    """Closed sessions with two usages each, evenly over the days and Projects."""
    spec = {
        "budget": {"amount": "900000000", "session": {"limit": "5"}},
        "providers": [
            {"name": "main", "api": "OpenAIRealtime", "model": MODEL, "secretRef": {"name": "k", "key": "k"}}
        ],
        "agent": {"instructions": "x"},
        "media": {"poolRef": {"name": "eu"}},
    }
    body = snapshot_wire(RATES).model_dump(mode="json")
    values = [spec, projects, MODEL, body, begin, float(days), sessions]
    async with connection.transaction():
        for statement in FILL.split(";\n"):
            if not statement.strip():
                continue
            used = sorted({int(part) for part in _numbers(statement)})
            for new, old in enumerate(used, 1):
                statement = statement.replace(f"${old}", f"@{new}")
            await connection.execute(statement.replace("@", "$"), *(values[old - 1] for old in used), timeout=1800)
    # What autovacuum has done long before a real ledger is this big.
    await connection.execute("VACUUM ANALYZE", timeout=600)


def _numbers(statement: str) -> list[str]:
    return re.findall(r"\$(\d)", statement)


async def bill_of(connection: Connection, day: date) -> InvoicePush:
    """The day's bill: what was counted, and 0.7 % more of what was spoken."""
    row = await connection.fetchrow(
        """SELECT SUM((meters->>'audio_in')::bigint)::bigint AS heard,
                  SUM((meters->>'audio_out')::bigint)::bigint AS spoken
           FROM entries WHERE occurred_at >= $1 AND occurred_at < $1 + interval '1 day'""",
        datetime(day.year, day.month, day.day, tzinfo=UTC),
    )
    spoken = Decimal(row["spoken"]) + row["spoken"] * 7 // 1000
    lines = [
        {"item": f"{MODEL}, audio input", "quantity": row["heard"], "amount": Decimal(row["heard"]) * 10 / 1_000_000},
        {"item": f"{MODEL}, audio output", "quantity": spoken, "amount": spoken * 20 / 1_000_000},
    ]
    return InvoicePush.model_validate(
        {
            "vendor": "openai",
            "source": "bench",
            "digest": "0" * 64,
            "final": True,
            "lines": [{"day": day, **line} for line in lines],
        }
    )


async def measure(dsn: str, sessions: int, days: int, projects: int) -> dict[str, Any]:
    """The figures of one ledger of this size."""
    connection = await database.connect(dsn)
    pool = await database.connect_pool(dsn, 2)
    begin = datetime(2026, 11, 1, tzinfo=UTC) - timedelta(days=days)
    began = time.monotonic()
    await fill(connection, sessions, days, projects, begin)
    filled = time.monotonic()
    print(f"finance: {sessions} sessions made in {filled - began:.0f} s", file=sys.stderr, flush=True)
    async with connection.transaction():
        await rollups.roll_up(connection)
    rolled = time.monotonic()
    day = (begin + timedelta(days=days // 2)).date()
    push = await bill_of(connection, day)
    billed = sum((line.amount or Decimal(0) for line in push.lines), Decimal(0))
    settling = time.monotonic()
    async with pool.acquire() as pooled, pooled.transaction():
        report = await settle_bill(pooled, push, RateBook(), "bench")
    settled = time.monotonic()
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    booked = await connection.fetchval(
        "SELECT SUM(amount_usd) FROM entries WHERE occurred_at >= $1 AND occurred_at < $1 + interval '1 day'",
        midnight,
        timeout=60,
    )
    async with connection.transaction():
        await rollups.roll_up(connection)
    times: list[float] = []
    rows: Sequence[Any] = ()
    for number in range(20):
        asked = time.monotonic()
        async with pool.acquire() as pooled, database.snapshot(pooled):
            rows = await rollups.spend(pooled, ["day", "provider"], "bench", f"p{1 + number % projects}", None, None)
        times.append((time.monotonic() - asked) * 1000)
    total = await connection.fetchval(
        "SELECT SUM(total_cost_usd) FROM session_costs WHERE project_id = (SELECT id FROM projects WHERE name = $1)",
        f"p{1 + 19 % projects}",
        timeout=60,
    )
    assert sum(row["total_cost_usd"] for row in rows) == total, "the report is not the sum of its sessions"
    await pool.close()
    await connection.close()
    return {
        "sessions": sessions,
        "sessions_of_the_day": report.groups[0].sessions,
        "settlement_s": round(settled - settling, 2),
        "settlement_difference_usd": f"{booked - billed:f}",
        "estimate_percent": str(report.estimate_percent),
        "cost_query_ms": round(statistics.median(times), 1),
        "cost_query_max_ms": round(max(times), 1),
        "cost_query_rows": len(rows),
        "first_roll_up_s": round(rolled - filled, 1),
        "made_s": round(filled - began),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=3_000_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--projects", type=int, default=50)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="talktime-finance-"))
    try:
        with postgres(home) as dsn:
            figures = asyncio.run(measure(f"{dsn}/{TEMPLATE}", options.sessions, options.days, options.projects))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    missed = bars.missed(figures, BARS)
    print("".join(f"{name:28} {value}\n" for name, value in figures.items()), end="")
    print(f"RESULT {json.dumps(figures)}")
    if missed:
        print(f"finance: missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
