"""The laws under races, crashes and edits, on real PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from talktime_ledger import wire
from talktime_ledger.client import Conflict, Fenced, LedgerClient, NotFound, Refused, SessionClosed
from talktime_ledger.core.limits import LimitState

from .conftest import CONSOLE, GATEWAY, OPERATOR, Stand, agent_of, opening, project_push, usage


async def interview(
    gateway: LedgerClient, agent: LedgerClient, project: str, number: int, overspent: list[str]
) -> bool:
    """One agent that answers whenever its gate allows, until the hard limit. False if it was refused."""
    request = opening(project)
    try:
        await gateway.open_session(request)
    except Refused:
        return False
    grant = (await agent.attach(request.session_id, wire.Attach(epoch=1, worker=f"w{number}"))).grant
    n = 0
    while grant.limit_state is not LimitState.HARD:
        n += 1
        pays = grant.reserved - grant.goodbye >= grant.w
        usages = (usage(f"{number}/{n}", 250),) if pays else ()
        grant = await agent.use(request.session_id, wire.Use(epoch=1, n=n, usages=usages, turns=n))
        if grant.budget.project_available < 0:
            overspent.append(f"session {number}: {grant.budget.project_available}")
        if grant.state is wire.GrantState.FINAL and not pays:
            break
    await agent.close(request.session_id, wire.Close(epoch=1, n=n + 1, reason="hard_limit"))
    return True


async def test_fifty_sessions_on_a_nearly_spent_account_never_overshoot(stand: Stand) -> None:
    await stand.client(OPERATOR).put_project("study", "race", project_push("0.8", "0.2"))
    overspent: list[str] = []
    watching = True

    async def watch() -> None:
        while watching:
            account = await stand.account("race")
            if account["posted"] + account["reserved"] > account["budget"]:
                overspent.append(str(account))
            await asyncio.sleep(0.05)

    watcher = asyncio.create_task(watch())
    patient = {"timeout_sec": 60, "patience_sec": 60}
    gateway, agent = stand.client(GATEWAY, **patient), stand.client(agent_of("race"), **patient)
    admitted = await asyncio.gather(*(interview(gateway, agent, "race", number, overspent) for number in range(50)))
    watching = False
    await watcher
    assert not overspent
    assert 0 < sum(admitted) < 50
    account = await stand.account("race")
    assert (account["reserved"], account["open_sessions"]) == (0, 0)
    await stand.assert_laws()
    # What is left is less than what a new session must have.
    floor = Decimal("0.1")
    while account["budget"] - account["posted"] >= floor:
        assert await interview(gateway, agent, "race", 100 + int(account["posted"] * 1000), overspent)
        account = await stand.account("race")
    with pytest.raises(Refused) as refusal:
        await stand.client(GATEWAY).open_session(opening("race"))
    assert refusal.value.problem is not None
    assert refusal.value.problem.available is not None and refusal.value.problem.needed == floor
    assert (await stand.client(OPERATOR).project("study", "race")).budget.state is wire.BudgetState.HARD


async def start(stand: Stand) -> tuple[uuid.UUID, LedgerClient, wire.Grant]:
    request, agent = opening(), stand.client(agent_of("limit"))
    await stand.client(GATEWAY).open_session(request)
    attachment = await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))
    return request.session_id, agent, attachment.grant


async def until_closed(stand: Stand, session_id: uuid.UUID) -> wire.Session:
    console = stand.client(CONSOLE)
    for _ in range(1200):
        session = await console.session(session_id)
        if session.state == "closed":
            return session
        await asyncio.sleep(0.05)
    raise AssertionError("not swept")


async def swept_again(stand: Stand) -> None:
    """Returns when a whole round of the sweeper has begun and ended since."""
    for _ in range(2):
        (before,) = await stand.sql("SELECT alive_at FROM heartbeat")
        async with asyncio.timeout(60):
            while await stand.sql("SELECT alive_at FROM heartbeat") == [before]:  # noqa: ASYNC110 - the server sweeps
                await asyncio.sleep(0.05)


async def test_a_crashed_agent_is_swept_at_all_it_held_and_a_late_report_replaces_that(stand: Stand) -> None:
    session_id, agent, _ = await start(stand)
    grant = await agent.use(session_id, wire.Use(epoch=1, n=1, usages=(usage("a"),)))
    await stand.backdate(session_id, 310)
    await swept_again(stand)
    assert (await stand.client(CONSOLE).session(session_id)).state == "open", "validity + 60 s is not over"
    await stand.backdate(session_id, 1000)
    session = await until_closed(stand, session_id)
    assert session.close_reason == "swept"
    assert session.posted == Decimal("0.004") + grant.reserved
    assert session.costs is not None and session.costs[0].unmetered_usd == grant.reserved
    account = await stand.account()
    assert (account["reserved"], account["open_sessions"]) == (0, 0)
    await stand.assert_laws()

    with pytest.raises(SessionClosed):
        await agent.use(session_id, wire.Use(epoch=1, n=2, usages=(usage("b"),)))
    revived = await stand.client(CONSOLE).session(session_id)
    assert revived.posted == session.posted, "it may not be done: what it reports is taken out of the assumption"
    assert revived.costs is not None and revived.costs[0].unmetered_usd == grant.reserved - Decimal("0.004")
    late = await agent.close(session_id, wire.Close(epoch=1, n=3, reason="woke up", usages=(usage("b"), usage("c"))))
    assert late.posted == Decimal("0.012")
    assert late.costs[0].unmetered_usd == 0
    await stand.assert_laws()


async def test_a_session_without_an_agent_costs_nothing(stand: Stand) -> None:
    request = opening()
    await stand.client(GATEWAY).open_session(request)
    await stand.backdate(request.session_id, 1000)  # a sweeper that was held up gives its time to the sessions
    session = await until_closed(stand, request.session_id)
    assert (session.close_reason, session.posted, session.reserved) == ("no_agent", 0, 0)
    other = opening()
    await stand.client(GATEWAY).open_session(other)
    closed = await stand.client(GATEWAY).close(other.session_id, wire.Close(epoch=1, reason="no_show"))
    assert closed.posted == 0 and closed.costs[0].total_cost_usd == 0
    await stand.assert_laws()


async def test_nobody_but_its_agent_closes_a_session_that_an_agent_holds(stand: Stand) -> None:
    session_id, agent, _ = await start(stand)
    gateway = stand.client(GATEWAY)
    with pytest.raises(Conflict) as refused:
        await gateway.close(session_id, wire.Close(epoch=1, reason="nobody_joined"))
    assert (refused.value.status, refused.value.reason) == (409, "Conflict")
    assert (await gateway.session(session_id)).state == "open"
    await agent.use(session_id, wire.Use(epoch=1, n=1))
    await gateway.claim(session_id, wire.Claim(epoch=2, reason="no_agent"))
    await gateway.close(session_id, wire.Close(epoch=2, reason="nobody_joined"))
    await stand.assert_laws()


async def test_the_gateway_closing_a_vanished_agent_assumes_all_it_held(stand: Stand) -> None:
    session_id, _, grant = await start(stand)
    await stand.backdate(session_id, 330)  # half of the sweeper's grace: room on both sides
    closed = await stand.client(GATEWAY).close(session_id, wire.Close(epoch=1, reason="agent_vanished"))
    assert closed.posted == grant.reserved == closed.costs[0].unmetered_usd
    again = await stand.client(GATEWAY).close(session_id, wire.Close(epoch=1, reason="room_vanished"))
    assert again.posted == grant.reserved, "only the agent itself says what it really used"
    await stand.assert_laws()


async def test_a_budget_edit_is_live_audited_and_never_blocks_what_is_held(stand: Stand) -> None:
    operator = stand.client(OPERATOR)
    session_id, agent, grant = await start(stand)
    lowered = await operator.put_project("study", "limit", project_push("0.01", "0.01", generation=2))
    assert lowered.budget.available < 0
    assert lowered.budget.state is wire.BudgetState.HARD
    grant = await agent.use(session_id, wire.Use(epoch=1, n=1, usages=(usage("a"),)))
    assert grant.state is wire.GrantState.FINAL, "no new grants, but what is held stays"
    assert grant.reserved > 0
    with pytest.raises(Refused):
        await stand.client(GATEWAY).open_session(opening())
    raised = await operator.put_project("study", "limit", project_push("20", "1", generation=3))
    assert raised.budget.state is wire.BudgetState.OK
    grant = await agent.use(session_id, wire.Use(epoch=1, n=2, usages=(usage("b"),)))
    assert grant.state is wire.GrantState.OK
    assert grant.session_limit == 1
    rows = await stand.sql("SELECT who, what, old_value, new_value FROM budget_audit WHERE what = 'amount' ORDER BY id")
    assert [(row["old_value"], row["new_value"]) for row in rows] == [(None, "10"), ("10", "0.01"), ("0.01", "20")]
    assert rows[0]["who"] == OPERATOR
    await stand.assert_laws()


async def test_a_recreated_project_resumes_its_account_unless_the_generation_is_raised(stand: Stand) -> None:
    operator, gateway = stand.client(OPERATOR), stand.client(GATEWAY)
    session_id, agent, _ = await start(stand)
    await operator.delete_project("study", "limit")
    with pytest.raises(NotFound):
        await gateway.open_session(opening())
    closed = await agent.close(session_id, wire.Close(epoch=1, n=1, reason="done", usages=(usage("a"),)))
    assert closed.posted == Decimal("0.004"), "a live session finishes"
    again = await operator.put_project("study", "limit", project_push())
    assert again.budget.posted == Decimal("0.004")
    fresh = await operator.put_project("study", "limit", project_push(budget={"accountGeneration": 2}))
    assert fresh.budget.posted == 0
    await gateway.open_session(opening())
    await stand.assert_laws()


async def test_a_month_turns_under_a_running_session(stand: Stand) -> None:
    operator = stand.client(OPERATOR)
    await operator.put_project("study", "monthly", project_push("1", "0.5", budget={"period": "Monthly"}))
    request, agent = opening("monthly"), stand.client(agent_of("monthly"))
    await stand.client(GATEWAY).open_session(request)
    grant = (await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))).grant
    # Make what is open belong to last month.
    await stand.sql("UPDATE accounts SET period = '2026-01' WHERE period <> 'total'")
    use = wire.Use(epoch=1, n=1, usages=(usage("a"),))
    grant = await agent.use(request.session_id, use)
    rows = await stand.sql("SELECT period, posted, reserved, open_sessions FROM accounts ORDER BY id")
    old, new = [dict(row) for row in rows if row["period"] != "total"]
    assert (old["period"], old["posted"], old["reserved"], old["open_sessions"]) == ("2026-01", Decimal("0.004"), 0, 0)
    assert (new["posted"], new["reserved"], new["open_sessions"]) == (0, grant.reserved, 1)
    assert grant.posted == Decimal("0.004"), "the session's own cap spans both months"
    await agent.use(request.session_id, wire.Use(epoch=1, n=2, usages=(usage("b"),)))
    await agent.close(request.session_id, wire.Close(epoch=1, n=3, reason="done"))
    status = await operator.project("study", "monthly")
    assert (status.budget.posted, status.budget.reserved) == (Decimal("0.004"), 0)
    await stand.assert_laws()


async def test_project_soft_wraps_up_live_sessions_once_and_is_pushed(stand: Stand) -> None:
    push = project_push("1", "0.5", budget={"softPercent": 10, "onProjectSoft": "WrapUpLive"})
    await stand.client(OPERATOR).put_project("study", "soft", push)
    sessions = []
    for _ in range(2):
        request, agent = opening("soft"), stand.client(agent_of("soft"))
        await stand.client(GATEWAY).open_session(request)
        await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))
        sessions.append((request.session_id, agent))
    stream = aiter(sessions[0][1].push("study", "soft"))
    assert (await anext(stream)).event == "resync"
    for n in range(1, 7):
        await sessions[0][1].use(sessions[0][0], wire.Use(epoch=1, n=n, usages=(usage(f"a{n}", 1000),)))
    async with asyncio.timeout(60):
        assert (await anext(stream)).event == "limits"
    grants = [await sessions[1][1].use(sessions[1][0], wire.Use(epoch=1, n=n)) for n in (1, 2)]
    assert [grant.wrap_up for grant in grants] == [True, False]
    assert grants[0].reason == "ProjectSoft"
    assert (await stand.client(OPERATOR).project("study", "soft")).budget.state is wire.BudgetState.SOFT
    await stand.assert_laws()


async def soft_project(stand: Stand, policy: str, amount: str = "1") -> list[tuple[uuid.UUID, LedgerClient]]:
    """Two sessions of a project that the first brings to its soft limit (10 %)."""
    push = project_push(amount, "0.5", budget={"softPercent": 10, "onProjectSoft": policy})
    await stand.client(OPERATOR).put_project("study", "soft", push)
    made = []
    for _ in range(2):
        request, agent = opening("soft"), stand.client(agent_of("soft"))
        await stand.client(GATEWAY).open_session(request)
        await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))
        made.append((request.session_id, agent))
    for n in range(1, 7):
        await made[0][1].use(made[0][0], wire.Use(epoch=1, n=n, usages=(usage(f"a{n}", 1000),)))
    assert (await stand.client(OPERATOR).project("study", "soft")).budget.state is not wire.BudgetState.OK
    return made


async def test_a_wrap_up_told_at_attach_is_told_anew_until_an_agent_has_said_it(stand: Stand) -> None:
    gateway = stand.client(GATEWAY)
    await soft_project(stand, "WrapUpLive")
    request, agent = opening("soft"), stand.client(agent_of("soft"))
    await gateway.open_session(request)
    attached = [(await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))).grant for _ in range(2)]
    assert [grant.wrap_up for grant in attached] == [True, True], "the first answer may be lost"
    assert all(grant.wrap_up_minutes for grant in attached)
    assert not (await agent.use(request.session_id, wire.Use(epoch=1, n=1))).wrap_up
    await gateway.claim(request.session_id, wire.Claim(epoch=2, reason="gone"))
    successor = (await agent.attach(request.session_id, wire.Attach(epoch=2, worker="w2"))).grant
    assert successor.wrap_up, "the one who heard it died before saying it"
    said = wire.SessionEvent(name="wrap_up_sent", at=datetime.now(UTC))
    assert not (await agent.use(request.session_id, wire.Use(epoch=2, n=2, events=(said,)))).wrap_up
    await gateway.claim(request.session_id, wire.Claim(epoch=3, reason="gone"))
    last = (await agent.attach(request.session_id, wire.Attach(epoch=3, worker="w3"))).grant
    assert (last.state, last.wrap_up) == (wire.GrantState.SOFT, False), "the participant has heard it"
    await stand.assert_laws()


async def test_wrap_up_if_short_lets_talk_those_whom_the_money_carries(stand: Stand) -> None:
    session_id, agent = (await soft_project(stand, "WrapUpIfShort"))[1]
    grant = await agent.use(session_id, wire.Use(epoch=1, n=1))
    assert (grant.state, grant.wrap_up, grant.reason) == (wire.GrantState.OK, False, "")
    # Now the project's rest (0.18) is less than the 0.5 that the two will need: 0.5 / 2 each, one has used 0.12.
    push = project_push("0.3", "0.5", generation=2, budget={"softPercent": 10, "onProjectSoft": "WrapUpIfShort"})
    await stand.client(OPERATOR).put_project("study", "soft", push)
    grants = [await agent.use(session_id, wire.Use(epoch=1, n=n)) for n in (2, 3)]
    assert [(grant.wrap_up, grant.reason) for grant in grants] == [(True, "ProjectSoft"), (False, "ProjectSoft")]
    assert grants[0].wrap_up_minutes is not None
    # The budget was lowered beneath what is held, which grows with the burn: nothing more is granted, nothing taken.
    assert grants[1].reserved <= grants[0].reserved


async def test_notify_ends_nobody(stand: Stand) -> None:
    session_id, agent = (await soft_project(stand, "Notify", "0.3"))[1]
    grant = await agent.use(session_id, wire.Use(epoch=1, n=1))
    assert (grant.state, grant.wrap_up, grant.reason) == (wire.GrantState.OK, False, "")
    await stand.assert_laws()


async def test_the_project_s_hard_limit_comes_before_the_session_s_soft_one(stand: Stand) -> None:
    session_id, agent, grant = await start(stand)
    # 0.09 of 0.1 used: past the session's soft limit, while the project has nothing left for one more response.
    usages = tuple(usage(f"a{index}", 500) for index in range(3))
    first = await agent.use(session_id, wire.Use(epoch=1, n=1, usages=usages))
    await stand.client(OPERATOR).put_project("study", "limit", project_push("0.035", "0.09", generation=2))
    last = await agent.use(session_id, wire.Use(epoch=1, n=2, usages=(usage("b", 1600),)))
    assert last.reserved < grant.w + grant.goodbye
    assert (last.limit_state, last.reason) == (LimitState.HARD, "ProjectHard")
    account = await stand.account()
    assert account["posted"] + account["reserved"] == first.reserved + Decimal("0.03"), (
        "what it held when it was lowered"
    )


async def test_pause_edit_and_deletion_reach_live_sessions_by_push_and_by_the_next_answer(stand: Stand) -> None:
    operator = stand.client(OPERATOR)
    session_id, agent, _ = await start(stand)
    stream = aiter(agent.push("study", "limit"))
    assert (await anext(stream)).event == "resync"
    async with asyncio.timeout(120):
        await operator.put_project("study", "limit", project_push("9", generation=2))
        assert (await anext(stream)).event == "limits"
        await operator.put_project("study", "limit", project_push("9", paused=True, generation=3))
        assert (await anext(stream)).event == "paused"
        grant = await agent.use(session_id, wire.Use(epoch=1, n=1))
        assert (grant.wrap_up, grant.reason, grant.budget.project_amount) == (True, "Paused", 9)
        await operator.put_project("study", "limit", project_push("9", generation=4))
        assert (await anext(stream)).event == "limits"
        await operator.delete_project("study", "limit")
        event = await anext(stream)
        assert (event.event, event.data["reason"]) == ("limits", "Deleted")
    grant = await agent.use(session_id, wire.Use(epoch=1, n=2))
    assert (grant.state, grant.deleted) == (wire.GrantState.OK, True)
    await stand.assert_laws()


async def test_a_session_of_a_deleted_project_is_metered_and_ends_by_its_limit(stand: Stand) -> None:
    """Nobody else may begin, and what the account has bounds who is there already."""
    session_id, agent, _ = await start(stand)
    await stand.client(OPERATOR).delete_project("study", "limit")
    grant = await agent.use(session_id, wire.Use(epoch=1, n=1, usages=(usage("a"),)))
    assert (grant.state, grant.wrap_up, grant.posted) == (wire.GrantState.OK, False, Decimal("0.004"))
    grant = await agent.use(session_id, wire.Use(epoch=1, n=2, usages=(usage("b", 40_000),)))
    assert (grant.reason, grant.wrap_up, grant.posted) == ("SessionSoft", True, Decimal("0.804"))
    await agent.close(session_id, wire.Close(epoch=1, n=3, reason="done"))
    account = await stand.account()
    assert (account["posted"], account["reserved"]) == (Decimal("0.804"), 0)
    await stand.assert_laws()


async def monthly(stand: Stand) -> tuple[uuid.UUID, LedgerClient, wire.Grant]:
    """A session of last month."""
    await stand.client(OPERATOR).put_project("study", "m", project_push("1", "0.5", budget={"period": "Monthly"}))
    request, agent = opening("m"), stand.client(agent_of("m"))
    await stand.client(GATEWAY).open_session(request)
    await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w"))
    bound = usage("lost", 900, unmetered=True)
    grant = await agent.use(request.session_id, wire.Use(epoch=1, n=1, usages=(bound,)))
    await stand.sql("UPDATE accounts SET period = '2026-01' WHERE period <> 'total'")
    return request.session_id, agent, grant


async def months(stand: Stand) -> list[tuple[Decimal, Decimal, int]]:
    """posted, reserved, open sessions of each month."""
    rows = await stand.sql("SELECT posted, reserved, open_sessions FROM accounts WHERE period <> 'total' ORDER BY id")
    return [(row["posted"], row["reserved"], row["open_sessions"]) for row in rows]


async def test_a_month_that_cannot_carry_a_session_leaves_it_what_it_holds(stand: Stand) -> None:
    session_id, agent, grant = await monthly(stand)
    push = project_push("0.01", "0.5", generation=2, budget={"period": "Monthly"})
    await stand.client(OPERATOR).put_project("study", "m", push)
    after = await agent.use(session_id, wire.Use(epoch=1, n=2))
    assert (after.reserved, after.state, after.limit_state) == (grant.reserved, wire.GrantState.FINAL, LimitState.SOFT)
    assert await months(stand) == [(Decimal("0.018"), grant.reserved, 1), (0, 0, 0)]
    spent = await agent.use(session_id, wire.Use(epoch=1, n=3, usages=(usage("a", 1400),)))
    assert (spent.limit_state, spent.reason) == (LimitState.HARD, "ProjectHard")
    await stand.assert_laws()


async def test_what_is_given_back_after_the_turn_goes_to_the_month_that_paid(stand: Stand) -> None:
    session_id, agent, _ = await monthly(stand)
    grant = await agent.use(session_id, wire.Use(epoch=1, n=2))
    assert await months(stand) == [(Decimal("0.018"), 0, 0), (0, grant.reserved, 1)]
    await agent.use(session_id, wire.Use(epoch=1, n=3, usages=(usage("lost", 300),)))
    assert [posted for posted, _, _ in await months(stand)] == [Decimal("0.006"), 0]
    await stand.assert_laws()


async def test_the_late_word_of_a_fenced_agent_stays_in_its_month(stand: Stand) -> None:
    session_id, agent, _ = await monthly(stand)
    await stand.client(GATEWAY).claim(session_id, wire.Claim(epoch=2, reason="gone"))
    await agent.attach(session_id, wire.Attach(epoch=2, worker="w2"))
    assert (await months(stand))[0][1:] == (0, 0), "the successor is on the new month"
    with pytest.raises(Fenced):
        await agent.close(session_id, wire.Close(epoch=1, n=3, reason="agent_died", usages=(usage("late"),)))
    assert [posted for posted, _, _ in await months(stand)] == [Decimal("0.022"), 0]
    await agent.close(session_id, wire.Close(epoch=2, n=4, reason="done"))
    await stand.assert_laws()


async def test_a_resumed_session_of_a_small_limit_gets_its_room_back_with_the_late_word(stand: Stand) -> None:
    await stand.client(OPERATOR).put_project("study", "limit", project_push("10", "0.09", generation=2))
    session_id, agent, grant = await start(stand)
    spent = tuple(usage(f"a{index}", 750) for index in range(3))  # 0.045
    await agent.use(session_id, wire.Use(epoch=1, n=1, usages=spent))
    await stand.client(GATEWAY).claim(session_id, wire.Claim(epoch=2, reason="gone"))
    tight = (await agent.attach(session_id, wire.Attach(epoch=2, worker="w2"))).grant
    assert tight.limit_state is LimitState.HARD and tight.reserved < grant.w + grant.goodbye
    assert tight.reserved == tight.goodbye, "a word of farewell is always held where the limit has it"
    with pytest.raises(Fenced):
        await agent.close(session_id, wire.Close(epoch=1, n=2, reason="agent_died"))
    again = await agent.use(session_id, wire.Use(epoch=2, n=2))
    assert again.reserved >= grant.w + grant.goodbye
    await stand.assert_laws()


async def test_the_outage_reserve_is_held_from_the_start(stand: Stand) -> None:
    plain = await start(stand)
    await stand.client(OPERATOR).put_project("study", "limit", project_push(budget={"outageReserve": "0.2"}))
    reserved = (await start(stand))[2].reserved
    assert reserved == plain[2].reserved + Decimal("0.2")
    await stand.assert_laws()


async def test_without_the_guard_the_race_does_overshoot(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: what the laws are checked with must notice a missing guard."""
    from talktime_ledger.store import accounts

    async def unguarded(connection: object, account_id: int, move: accounts.Move) -> accounts.Account:
        await asyncio.sleep(0.05)
        return await accounts.settle(connection, account_id, move)

    monkeypatch.setattr(accounts, "grant", unguarded)
    await stand.client(OPERATOR).put_project("study", "race", project_push("0.15", "0.15"))
    gateway = stand.client(GATEWAY)
    await asyncio.gather(*(gateway.open_session(opening("race")) for _ in range(12)), return_exceptions=True)
    with pytest.raises(AssertionError):
        await stand.assert_laws()
