"""A small sample of `make bench-overshoot`, and a test of it: with the guard removed it reports an overshoot."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from talktime_ledger.store import accounts, renewals
from talktime_ledger.store.accounts import Account, Move
from talktime_ledger.store.database import Connection

from bench import overshoot
from bench.enforcers import database, ours
from bench.enforcers.worker import Job, Result, run

SESSIONS = 100


async def sample(
    dsn: str, order: int, sessions: int = SESSIONS, *, http: bool = False, without: str | None = None
) -> Result:
    """`without`: a constraint of the accounts."""
    job = Job(order, seed=1 + order, sessions=sessions, http=http, kills=1)
    url = await database.make(dsn, f"sample_{order}")
    if without is not None:
        await database.execute(url, f"ALTER TABLE accounts DROP CONSTRAINT {without}")
    return await run(job, url)


async def test_reservations_hold_where_looking_does_not(bench_postgres: str) -> None:
    found = [await sample(bench_postgres, 0), await sample(bench_postgres, 1)]
    told = overshoot.figures(found, 1.0)
    assert overshoot.missed(told, [text for one in found for text in one.ours.counted.problems]) == [], told
    assert told["snapshot_overshoot_usd"] > 0
    assert told["refused"] and told["crashes"] and told["repeats"] and told["ended_by_budget"]
    assert told["unmetered_usd"] > 0


async def test_through_a_server_that_is_killed(bench_postgres: str) -> None:
    result = await sample(bench_postgres, 2, 60, http=True)
    assert overshoot.missed(overshoot.figures([result], 1.0), result.ours.counted.problems) == []
    assert result.server_kills == 1
    assert result.peers["snapshot"] > 0


def unguarded(statement: str) -> str:
    """The hot way's statement without its two guards."""
    found = re.subn(r"AND \(NOT \$\d+::boolean OR posted \+ reserved [^)]*<= budget\)", "", statement)
    assert found[1] == 2
    return found[0]


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_the_guard_the_bench_reports_an_overshoot(
    bench_postgres: str, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    true_grant = accounts.grant

    async def grant(connection: Connection, account_id: int, move: Move) -> Account | None:
        """Unguarded: reads, thinks, writes. `settle` lifts the ceiling of the CHECK as it goes."""
        await connection.execute("SELECT pg_sleep(0.005)")
        return await (true_grant if guarded else accounts.settle)(connection, account_id, move)

    monkeypatch.setattr(accounts, "grant", grant)
    if not guarded:
        monkeypatch.setattr(renewals, "_WRITE", unguarded(renewals._WRITE))
    # Half a minute at once: as many transactions side by side as there are connections.
    monkeypatch.setattr(ours, "SLICE_SEC", 30.0)
    # The table's own check, the last line of defence, would now and then end the run before there is what to count.
    result = await sample(bench_postgres, 3 + guarded, without=None if guarded else "never_over_budget")
    told = overshoot.missed(overshoot.figures([result], 1.0), ())
    assert (result.ours.overshoot > Decimal("0.01")) is not guarded
    assert ("overshoot" in told) is not guarded
