"""Renewals that wait together are committed together, and nobody can tell from the answers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

import asyncpg
from talktime_ledger import wire
from talktime_ledger.client import Fenced, LedgerClient, SessionClosed, Unauthorized

from .conftest import GATEWAY, OPERATOR, Stand, agent_of, opening, project_push, usage

COST = Decimal("0.004")


async def interviews(
    stand: Stand, count: int, project: str = "limit", **more: str
) -> tuple[LedgerClient, list[uuid.UUID]]:
    """Attached sessions and their agent."""
    agent, ids = stand.client(agent_of(project), timeout_sec=60), []  # a second request would be another one that waits
    for index in range(count):
        request = opening(project, **more)
        await stand.client(GATEWAY).open_session(request)
        await agent.attach(request.session_id, wire.Attach(epoch=1, worker=f"w{index}"))
        ids.append(request.session_id)
    return agent, ids


@asynccontextmanager
async def held_up(stand: Stand) -> AsyncIterator[asyncpg.Connection]:
    """While it lasts no balance moves: the first that asks waits in its transaction, the rest wait together."""
    connection = await asyncpg.connect(stand.database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT id FROM accounts FOR UPDATE")
            yield connection
    finally:
        await connection.close()


async def waiting(stand: Stand, count: int = 1) -> None:
    """Returns when that many of the ledger's transactions wait for a lock."""
    for _ in range(3000):
        rows = await stand.sql(
            """SELECT COUNT(*) AS n FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'"""
        )
        if rows[0]["n"] >= count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nothing waits")


async def queued(stand: Stand, count: int) -> None:
    """Returns when that many requests wait behind the one that is held up."""
    waiting = stand.app.state.ledger.renewals._waiting
    async with asyncio.timeout(60):
        while sum(map(len, waiting.values())) < count:  # noqa: ASYNC110 - the server is in this loop
            await asyncio.sleep(0.01)


async def together(
    stand: Stand, first: Awaitable[object], rest: Sequence[Awaitable[object]], meanwhile: str = "SELECT 1"
) -> list[object]:
    """What the calls answered or raised: the first is held up, the rest arrive while it is."""
    async with held_up(stand) as connection:
        tasks = [asyncio.ensure_future(first)]
        await waiting(stand)
        tasks += [asyncio.ensure_future(one) for one in rest]
        await queued(stand, len(rest))
        await connection.execute(meanwhile)
    return await asyncio.gather(*tasks, return_exceptions=True)


def plain(n: int = 1) -> wire.Use:
    return wire.Use(epoch=1, n=n, usages=(usage(f"r/{n}"),), turns=n)


async def test_what_waits_together_is_one_commit_and_answers_as_if_each_came_alone(stand: Stand) -> None:
    agent, ids = await interviews(stand, 8)
    grants = await together(stand, agent.use(ids[0], plain()), [agent.use(one, plain()) for one in ids[1:]])
    assert all(isinstance(grant, wire.Grant) for grant in grants), grants
    told = [grant for grant in grants if isinstance(grant, wire.Grant)]
    assert [grant.posted for grant in told] == [COST] * 8
    assert len({grant.reserved for grant in told}) == 1
    # Each was worked out on what the one before had left.
    assert sorted(grant.budget.project_posted for grant in told) == [COST * k for k in range(1, 9)]
    (row,) = await stand.sql("SELECT COUNT(*) AS entries, COUNT(DISTINCT xmin::text) AS commits FROM entries")
    assert (row["entries"], row["commits"]) == (8, 2), "the one that was held up, and the seven that waited"
    await stand.assert_laws()
    # The stored answers are those that were told: a lost reply is asked for again.
    again = [await agent.use(one, plain()) for one in ids]
    assert [grant.model_dump(exclude={"budget"}) for grant in again] == [
        grant.model_dump(exclude={"budget"}) for grant in told
    ]
    (row,) = await stand.sql("SELECT COUNT(*) AS entries FROM entries")
    assert row["entries"] == 8
    await stand.assert_laws()


async def test_one_that_is_not_plain_does_not_keep_the_others_from_theirs(stand: Stand) -> None:
    agent, ids = await interviews(stand, 7)
    gateway = stand.client(GATEWAY)
    await agent.use(ids[1], plain())
    await gateway.claim(ids[2], wire.Claim(epoch=2, reason="gone"))
    await agent.close(ids[3], wire.Close(epoch=1, n=1, reason="done"))
    twice = wire.Use(epoch=1, n=1, usages=(usage("same"), usage("same")))
    known = wire.Use(epoch=1, n=2, usages=(usage("r/1"), usage("new")))
    answers = await together(
        stand,
        agent.use(ids[0], plain()),
        [
            agent.use(ids[1], known),
            agent.use(ids[2], plain()),
            agent.use(ids[3], plain()),
            agent.use(ids[4], twice),
            agent.use(ids[5], plain()),
            agent.use(ids[5], plain()),
            agent.use(ids[6], plain()),
        ],
    )
    first, repeated, fenced, closed, doubled, one, same, last = answers
    assert isinstance(fenced, Fenced) and isinstance(closed, SessionClosed)
    assert isinstance(repeated, wire.Grant) and repeated.posted == 2 * COST, "a known key is counted once"
    assert isinstance(doubled, wire.Grant) and doubled.posted == COST
    assert isinstance(one, wire.Grant) and isinstance(same, wire.Grant) and one.reserved == same.reserved
    for grant in (first, one, same, last):
        assert isinstance(grant, wire.Grant) and grant.posted == COST
    await stand.assert_laws()


async def test_money_that_went_meanwhile_is_not_granted_to_any_of_them(stand: Stand) -> None:
    agent, ids = await interviews(stand, 5)
    lowered = "UPDATE accounts SET budget = posted + reserved WHERE kind = 'project'"
    grants = await together(stand, agent.use(ids[0], plain()), [agent.use(one, plain()) for one in ids[1:]], lowered)
    for grant in grants:
        assert isinstance(grant, wire.Grant), grant
        assert grant.state is wire.GrantState.FINAL and grant.posted == COST
    await stand.assert_laws()


async def test_participants_caps_hold_among_sessions_renewed_together(stand: Stand) -> None:
    limited = project_push("10", "1", budget={"participant": {"limit": "0.4"}})
    await stand.client(OPERATOR).put_project("study", "panel", limited)
    agent, ids = await interviews(stand, 2, "panel", participant_key="p-1")
    other, more = await interviews(stand, 2, "panel", participant_key="p-2")
    for n in range(1, 8):
        use = wire.Use(epoch=1, n=n, usages=(usage(f"r/{n}", 500),), turns=n)
        calls = [client.use(one, use) for client, group in ((agent, ids), (other, more)) for one in group]
        grants = await together(stand, calls[0], calls[1:])
        assert all(isinstance(grant, wire.Grant) for grant in grants), grants
        await stand.assert_laws()
    rows = await stand.sql("SELECT posted, reserved, budget FROM accounts WHERE kind = 'participant'")
    assert len(rows) == 2 and all(row["posted"] == 14 * Decimal("0.01") for row in rows)


async def test_the_soft_limit_is_told_to_live_agents_when_a_shared_commit_reaches_it(stand: Stand) -> None:
    push = project_push("1", "0.5", budget={"softPercent": 2, "onProjectSoft": "WrapUpLive"})
    await stand.client(OPERATOR).put_project("study", "soft", push)
    agent, ids = await interviews(stand, 6, "soft")
    stream = aiter(agent.push("study", "soft"))
    assert (await anext(stream)).event == "resync"
    grants = await together(stand, agent.use(ids[0], plain()), [agent.use(one, plain()) for one in ids[1:]])
    # 2 % of 1 USD: the fifth reaches it, in the commit of the last five.
    assert sorted(getattr(grant, "reason", "") == "ProjectSoft" for grant in grants) == [False] * 4 + [True] * 2
    async with asyncio.timeout(60):
        assert (await anext(stream)).event == "limits"
    await stand.assert_laws()


async def test_a_stranger_among_those_that_wait_is_refused_and_charges_nobody(stand: Stand) -> None:
    _, ids = await interviews(stand, 1)
    await stand.client(OPERATOR).put_project("study", "other", project_push())
    stranger, theirs = await interviews(stand, 2, "other")
    answers = await together(
        stand, stranger.use(theirs[0], plain()), [stranger.use(ids[0], plain()), stranger.use(theirs[1], plain())]
    )
    assert isinstance(answers[1], Unauthorized) and isinstance(answers[2], wire.Grant)
    assert (await stand.account())["posted"] == 0
    await stand.assert_laws()
