"""The books of `make chaos` (hack/chaos) read the ledger's real tables: what was metered, assumed, held, and whose."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from talktime_ledger import wire

from hack.chaos.books import ACCOUNTS, SESSIONS, Books, compare
from hack.demo.evidence import as_json, parsed

from .conftest import GATEWAY, MINI, MODEL, Stand, agent_of, opening, usage

RATES = {MODEL: [(datetime(2025, 1, 1, tzinfo=UTC), {name: {"usdPerMillion": usd} for name, usd in MINI.items()})]}


def billed(connection: str, response: str, audio_out: int) -> dict[str, Any]:
    """The simulator's truth of one response."""
    return {
        "provider_session": connection,
        "response_id": response,
        "model": MODEL,
        "kind": "response",
        "meters": {"audio_out": audio_out},
        "at": "2026-11-22T12:00:00Z",
        "delivered": True,
    }


async def books(stand: Stand, truth: list[dict[str, Any]]) -> Books:
    def rows(query: str) -> list[dict[str, Any]]:
        command = ["psql", stand.database_url, "-AtX", "-v", "ON_ERROR_STOP=1", "-c", as_json(query)]
        return parsed(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    sessions, accounts = await asyncio.gather(asyncio.to_thread(rows, SESSIONS), asyncio.to_thread(rows, ACCOUNTS))
    return compare(truth, RATES, sessions, accounts)


async def test_a_lost_agents_books_are_right_and_a_lost_cent_would_show(stand: Stand) -> None:
    agent, request = stand.client(agent_of("limit")), opening()
    await stand.client(GATEWAY).open_session(request)
    await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w1"))
    await agent.use(request.session_id, wire.Use(epoch=1, n=1, usages=(usage("sess_1/a"),), turns=1))
    truth = [billed("sess_1", "a", 200), billed("sess_1", "b", 50)]
    live = await books(stand, truth)
    assert live.open == [str(request.session_id)]
    assert live.reserved_usd > 0
    assert any("still open" in line for line in live.wrong())

    bound = wire.Unmetered(key="sess_1/b", usd=Decimal("0.02"))
    await agent.close(request.session_id, wire.Close(epoch=1, n=2, reason="agent_died", unmetered=(bound,)))
    over = await books(stand, truth)
    [one] = over.sessions
    assert over.wrong() == []
    assert over.reserved_usd == 0
    assert (one.close_reason, one.project, one.uncounted) == ("agent_died", "study/limit", ("sess_1/b",))
    assert (one.counted_usd, one.unmetered_usd) == (Decimal("0.004"), Decimal("0.02"))
    assert (one.truth_usd, one.ai_usd) == (Decimal("0.005"), Decimal("0.024"))

    more = await books(stand, [*truth, billed("sess_1", "c", 2000)])
    assert any("billed and never posted" in line for line in more.wrong())
