"""Where hack/checker.py reads: files, URLs, the ledger's tables, Prometheus, resources. Nothing of Talktime's."""

from __future__ import annotations

import csv
import json
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

POSTED = "talktime_project_posted_usd"

Row = dict[str, Any]


@dataclass(frozen=True)
class Books:
    """What the ledger has written down: rows of session_costs, and of usage_events, of all sessions.

    retired: sessions on accounts of an earlier generation. For chosen sessions also their Projects (namespace/name;
    None: all there are), and what is posted on these Projects' present accounts beside the sessions' AI cost.
    """

    costs: list[Row] | None
    usages: list[Row] | None
    retired: frozenset[str] = frozenset()
    projects: frozenset[str] | None = None
    elsewhere: Decimal = Decimal(0)


# What transport posted at a bound is no token's cost, so the bounds come from the entries.
COSTS = """
SELECT c.session_id, SUM(c.ai_cost_usd) AS ai_cost_usd,
       (SELECT COALESCE(SUM(e.unmetered_usd), 0) FROM entries e WHERE e.session_id = c.session_id AND e.leg = 'ai')
         AS unmetered_usd
FROM session_costs c GROUP BY c.session_id
"""

RETIRED = """
SELECT s.id FROM sessions s JOIN accounts a ON a.id = s.account_id
WHERE a.generation < (SELECT MAX(b.generation) FROM accounts b WHERE b.project_id = a.project_id AND b.kind = 'project')
"""
PROJECTS = """
SELECT DISTINCT p.namespace, p.name FROM projects p JOIN sessions s ON s.project_id = p.id WHERE s.id = ANY($1::uuid[])
"""
ELSEWHERE = """
WITH present AS (
  SELECT DISTINCT ON (project_id) id FROM accounts
  WHERE kind = 'project' AND project_id IN (SELECT project_id FROM sessions WHERE id = ANY($1::uuid[]))
  ORDER BY project_id, generation DESC, created_at DESC
)
SELECT coalesce(sum(e.amount_usd), 0) FROM entries e JOIN present ON present.id = e.account_id
WHERE e.session_id <> ALL($1::uuid[]) OR e.leg = 'transport'
"""


async def from_database(dsn: str, sessions: frozenset[str] | None) -> Books:
    """The tables as they stand; `sessions` None: no choice is made."""
    import asyncpg  # type: ignore[import-untyped]

    connection = await asyncpg.connect(dsn)
    try:
        costs = await connection.fetch(COSTS)
        usages = await connection.fetch("SELECT session_id, key, unmetered FROM usage_events")
        retired = await connection.fetch(RETIRED)
        projects, elsewhere = None, Decimal(0)
        if sessions is not None:
            found = await connection.fetch(PROJECTS, sorted(sessions))
            projects = frozenset(f"{row['namespace']}/{row['name']}" for row in found)
            elsewhere = await connection.fetchval(ELSEWHERE, sorted(sessions))
    finally:
        await connection.close()
    rows = [dict(row) for row in costs], [dict(row) for row in usages]
    return Books(*rows, frozenset(str(row["id"]) for row in retired), projects, elsewhere)


def fetch(source: str) -> str:
    """The text of a file or an http(s) URL."""
    if source.startswith(("http://", "https://")):
        with urllib.request.urlopen(source, timeout=30) as answer:
            return str(answer.read().decode())
    return Path(source).read_text()


def rows_of(source: str) -> list[Row]:
    """Rows from a JSON list, JSON lines or CSV file."""
    text = fetch(source)
    if source.endswith(".csv"):
        return list(csv.DictReader(text.splitlines()))
    if text.lstrip().startswith("["):
        return list(json.loads(text, parse_float=Decimal))
    return [json.loads(line, parse_float=Decimal) for line in text.splitlines() if line.strip()]


def posted_of(source: str, projects: frozenset[str] | None) -> Decimal:
    """status.budget.posted summed over `kubectl get project(s) -o json`, over `projects` alone when given."""
    document = json.loads(fetch(source))
    items = document.get("items", [document])
    chosen = [item for item in items if projects is None or name_of(item) in projects]
    return sum((decimal(item["status"]["budget"]["posted"]) for item in chosen), Decimal(0))


def name_of(project: Row) -> str:
    return f"{project['metadata']['namespace']}/{project['metadata']['name']}"


def posted_queries(projects: Iterable[str] | None) -> list[str]:
    """PromQL of what Projects have posted; None: one query for all."""
    if projects is None:
        return [f"sum({POSTED})"]
    named = [name.split("/") for name in sorted(projects)]
    return [f'sum({POSTED}{{namespace="{namespace}",project="{name}"}})' for namespace, name in named]


def query_prometheus(url: str, query: str) -> Decimal:
    """Sum of an instant query's samples."""
    answer = json.loads(fetch(f"{url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
    samples = answer["data"]["result"]
    if not samples:
        raise SystemExit(f"Prometheus has no data for {query}")
    return sum((Decimal(sample["value"][1]) for sample in samples), Decimal(0))


def decimal(value: Any) -> Decimal:
    return Decimal(str(value)) if value not in (None, "") else Decimal(0)


def truthy(value: Any) -> bool:
    return value in (True, "true", "True", "t", "1", 1)
