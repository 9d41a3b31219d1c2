"""What the live sessions of a Project will still need is known without reading all that ever ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from talktime_ledger.store.sessions import EXPECTED_REMAINDER, expected_remainder

from bench.ledger_load.latched import add_closed, latch_soft

from .conftest import Stand
from .test_renewals import interviews, plain

ENDED = 5_000


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def plan_of(connection: asyncpg.Connection, project: Any) -> list[dict[str, Any]]:
    """The nodes of the plan that an old connection of the ledger uses, whichever Project asks, as it went."""
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE asked(uuid) AS {EXPECTED_REMAINDER}")
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked('{project}')")
    return list(nodes(json.loads(text)[0]["Plan"]))


@pytest.fixture
async def ended(stand: Stand) -> Stand:
    """Two live sessions of a Project, and thousands that ended."""
    await interviews(stand, 2)
    await add_closed(stand.database_url, "limit", ENDED)
    return stand


async def test_of_thousands_that_ended_the_last_fifty_are_read(ended: Stand) -> None:
    connection = await asyncpg.connect(ended.database_url)
    try:
        project = await connection.fetchval("SELECT id FROM projects")
        found = await plan_of(connection, project)
    finally:
        await connection.close()
    [recent] = [node for node in found if node.get("Index Name") == "sessions_recent"]
    assert recent["Actual Rows"] == 50
    assert not [node for node in found if node["Node Type"] in ("Seq Scan", "Sort")]


async def test_it_is_their_mean_for_each_live_one_less_what_that_one_has_spent(ended: Stand) -> None:
    connection = await asyncpg.connect(ended.database_url)
    try:
        project = await connection.fetchval("SELECT id FROM projects")
        need, held = await expected_remainder(connection, project)
        paid = await connection.fetch(
            "SELECT posted FROM sessions WHERE state = 'closed' AND posted > 0 ORDER BY closed_at DESC LIMIT 50"
        )
        [total] = await connection.fetch("SELECT SUM(reserved) AS held, SUM(posted) AS posted FROM sessions")
    finally:
        await connection.close()
    assert held == total["held"]
    assert need == pytest.approx(2 * sum((row["posted"] for row in paid), Decimal(0)) / 50)


async def test_a_renewal_in_a_latched_project_with_thousands_behind_it_is_granted(ended: Stand) -> None:
    agent, ids = await interviews(ended, 1)
    await latch_soft(ended.database_url, "limit")
    grant = await agent.use(ids[0], plain())
    assert grant.posted == Decimal("0.004")
