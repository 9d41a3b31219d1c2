"""What an edit of a Project's money rules does to its accounts, its live sessions and its audit."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from talktime_ledger import wire
from talktime_ledger.client import LedgerClient, Refused
from talktime_ledger.core.limits import LimitState
from talktime_ledger.store import accounts
from talktime_ledger.store.accounts import Account, Move
from talktime_ledger.store.database import Connection

from .conftest import GATEWAY, OPERATOR, Stand, agent_of, opening, project_push, usage


async def attached(stand: Stand, project: str, **more: Any) -> tuple[wire.SessionOpen, LedgerClient, wire.Grant]:
    """A session with its agent."""
    request, agent = opening(project, **more), stand.client(agent_of(project))
    await stand.client(GATEWAY).open_session(request)
    told = await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))
    return request, agent, told.grant


async def audited(stand: Stand, what: str) -> list[tuple[str | None, str | None]]:
    """Old and new values of a rule of `study/edited`, in order."""
    rows = await stand.sql(
        """SELECT old_value, new_value FROM budget_audit a JOIN projects p ON p.id = a.project_id
           WHERE p.name = 'edited' AND what = $1 ORDER BY a.id""",
        what,
    )
    return [(row["old_value"], row["new_value"]) for row in rows]


async def test_the_soft_latch_follows_the_percentage(stand: Stand) -> None:
    operator = stand.client(OPERATOR)

    async def percent(value: int, generation: int) -> wire.ProjectStatus:
        budget = {"softPercent": value, "onProjectSoft": "WrapUpLive"}
        return await operator.put_project(
            "study", "edited", project_push("1", "0.5", generation=generation, budget=budget)
        )

    await percent(10, 1)
    request, agent, _ = await attached(stand, "edited")
    for n in range(1, 7):
        grant = await agent.use(request.session_id, wire.Use(epoch=1, n=n, usages=(usage(f"a{n}", 1000),)))
    assert (grant.state, grant.reason) == (wire.GrantState.SOFT, "ProjectSoft")
    since = (await stand.account("edited"))["soft_at"]
    await percent(11, 2)
    assert (await stand.account("edited"))["soft_at"] == since, "still reached: the same latch"
    assert (await percent(90, 3)).budget.state is wire.BudgetState.OK
    assert (await stand.account("edited"))["soft_at"] is None
    assert (await agent.use(request.session_id, wire.Use(epoch=1, n=7))).state is wire.GrantState.OK
    assert (await percent(12, 4)).budget.state is wire.BudgetState.SOFT
    assert (await stand.account("edited"))["soft_at"] is not None, "reached by the edit: nobody need spend for it"
    assert (await agent.use(request.session_id, wire.Use(epoch=1, n=8))).reason == "ProjectSoft"
    await stand.assert_laws()


async def test_the_session_s_soft_percentage_is_pushed_and_audited(stand: Stand) -> None:
    operator = stand.client(OPERATOR)
    await operator.put_project("study", "edited", project_push())
    request, agent, _ = await attached(stand, "edited")
    stream = aiter(agent.push("study", "edited"))
    assert (await anext(stream)).event == "resync"
    push = project_push(generation=2, budget={"session": {"limit": "1", "softPercent": 1}})
    await operator.put_project("study", "edited", push)
    async with asyncio.timeout(60):
        assert (await anext(stream)).event == "limits"
    grant = await agent.use(request.session_id, wire.Use(epoch=1, n=1, usages=(usage("a", 1000),)))
    assert grant.reason == "SessionSoft"
    assert await audited(stand, "session.softPercent") == [(None, "1")]


async def test_deletion_and_return_are_audited_once_each(stand: Stand) -> None:
    operator = stand.client(OPERATOR)
    await operator.put_project("study", "edited", project_push())
    for _ in range(2):
        await operator.delete_project("study", "edited")
    await operator.put_project("study", "edited", project_push(generation=2))
    assert await audited(stand, "deleted") == [(None, "false"), ("false", "true"), ("true", "false")]
    (row,) = await stand.sql("SELECT who FROM budget_audit WHERE what = 'deleted' AND new_value = 'true'")
    assert row["who"] == OPERATOR
    await operator.delete_project("study", "never-heard-of")


async def test_a_participant_s_limit_that_is_taken_away_binds_no_live_session_and_binds_again_when_it_is_back(
    stand: Stand,
) -> None:
    operator = stand.client(OPERATOR)
    capped = {"participant": {"limit": "0.06"}}
    await operator.put_project("study", "edited", project_push(budget=capped))
    request, agent, _ = await attached(stand, "edited", participant_key="p")
    spent = tuple(usage(f"a{index}", 1000) for index in range(2))
    grant = await agent.use(request.session_id, wire.Use(epoch=1, n=1, usages=spent))
    assert (grant.limit_state, grant.reason) == (LimitState.HARD, "ParticipantHard")
    await operator.put_project("study", "edited", project_push(generation=2))
    grant = await agent.use(request.session_id, wire.Use(epoch=1, n=2))
    assert (grant.state, grant.limit_state) == (wire.GrantState.OK, LimitState.OK)
    assert grant.reserved >= grant.w + grant.goodbye
    grant = await agent.use(request.session_id, wire.Use(epoch=1, n=3, usages=(usage("b", 1000),)))
    assert grant.posted == Decimal("0.06") and grant.reserved >= grant.w + grant.goodbye
    await stand.assert_laws()
    await operator.put_project("study", "edited", project_push(generation=3, budget=capped))
    again = await agent.use(request.session_id, wire.Use(epoch=1, n=4))
    assert (again.state, again.reserved) == (wire.GrantState.FINAL, grant.reserved), "what is held stays"
    await agent.close(request.session_id, wire.Close(epoch=1, n=5, reason="done"))
    await stand.assert_laws()


async def test_a_push_that_was_held_up_does_not_undo_a_newer_one(stand: Stand) -> None:
    operator = stand.client(OPERATOR)
    await operator.put_project("study", "edited", project_push("5", generation=3))
    late = await operator.put_project("study", "edited", project_push("20", generation=2))
    assert (late.budget.amount, late.generation) == (Decimal(5), 3)
    assert await audited(stand, "amount") == [(None, "5")]
    same = await operator.put_project("study", "edited", project_push("5", generation=3, paused=True))
    assert same.paused, "an annotation does not raise the generation"
    recreated = project_push("7", generation=1).model_copy(update={"uid": "uid-2"})
    assert (await operator.put_project("study", "edited", recreated)).budget.amount == Decimal(7)


async def test_a_participant_s_limit_that_admits_nobody_is_not_feasible(stand: Stand) -> None:
    push = project_push(budget={"participant": {"limit": "0.01"}})
    status = await stand.client(OPERATOR).put_project("study", "edited", push)
    assert (status.feasible.ok, status.feasible.reason) == (False, "ParticipantLimitTooLow")
    assert "budget.participant.limit 0.01" in status.feasible.message
    with pytest.raises(Refused) as refusal:
        await stand.client(GATEWAY).open_session(opening("edited", participant_key="p"))
    assert refusal.value.problem is not None and refusal.value.problem.reason is wire.ProblemReason.PARTICIPANT_LIMIT


async def test_many_that_come_at_once_do_not_pass_the_floor_together(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 0.5 to spend, each holds 0.035 at first: the third would find less than 0.45.
    budget = {"session": {"limit": "0.2", "admitFloor": "0.45"}}
    await stand.client(OPERATOR).put_project("study", "edited", project_push("0.5", budget=budget))
    true_grant = accounts.grant

    async def late(connection: Connection, account_id: int, move: Move) -> Account | None:
        """All have read the balance before the first of them takes anything."""
        await asyncio.sleep(0.2)
        return await true_grant(connection, account_id, move)

    monkeypatch.setattr(accounts, "grant", late)
    gateway = stand.client(GATEWAY)
    results = await asyncio.gather(*(gateway.open_session(opening("edited")) for _ in range(6)), return_exceptions=True)
    refusals = [one for one in results if isinstance(one, BaseException)]
    assert all(isinstance(one, Refused) for one in refusals), refusals
    account = await stand.account("edited")
    admitted = len(results) - len(refusals)
    held = account["reserved"] / admitted
    assert account["budget"] - (admitted - 1) * held >= Decimal("0.45"), "the last one in had the floor before it"
    assert account["budget"] - account["reserved"] < Decimal("0.45"), "and nobody was refused who had it"
