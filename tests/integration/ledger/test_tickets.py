"""A ticket is used up by the session it opens: once, together with the reservation, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from talktime_ledger import wire
from talktime_ledger.client import Conflict, LedgerClient, LedgerError, NotFound, Refused

from .conftest import GATEWAY, OPERATOR, Stand, agent_of, opening, project_push

SECRET = hashlib.sha256(b"secret").hexdigest()


async def invited(stand: Stand, sha256: str = SECRET, seconds: int = 3600, **more: Any) -> LedgerClient:
    """The gateway's client, after it made a ticket for `study/limit`."""
    gateway = stand.client(GATEWAY)
    expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
    issue = wire.TicketIssue(namespace="study", project="limit", sha256=sha256, expires_at=expires_at, **more)
    await gateway.issue_ticket(issue)
    return gateway


async def test_of_many_who_come_with_one_ticket_exactly_one_gets_a_session(stand: Stand) -> None:
    gateway = await invited(stand, participant_key="p-1")
    requests = [opening(ticket_sha256=SECRET) for _ in range(8)]
    raced = await asyncio.gather(*(gateway.open_session(one) for one in requests), return_exceptions=True)
    (session,) = [one for one in raced if isinstance(one, wire.Session)]
    assert sum(isinstance(one, Conflict) and one.reason == "Used" for one in raced) == 7
    assert [row["participant_key"] for row in await stand.sql("SELECT participant_key FROM sessions")] == ["p-1"]
    again = next(one for one in requests if str(one.session_id) == session.session_id)
    assert (await gateway.open_session(again)).session_id == session.session_id, "a repeat of the same request"
    assert (await stand.account())["open_sessions"] == 1
    await stand.assert_laws()


@pytest.mark.parametrize(
    ("push", "reason"),
    [
        (project_push(paused=True, generation=2), "Paused"),
        (project_push("0.01", "0.01", generation=2), "BudgetNotFeasible"),
        (project_push(model="gpt-unknown", generation=2), "PriceUnknown"),
        (project_push(budget={"session": {"limit": "1", "admitFloor": "11"}}, generation=2), "BudgetExhausted"),
    ],
)
async def test_a_refusal_does_not_use_the_ticket_up(stand: Stand, push: wire.ProjectPush, reason: str) -> None:
    gateway, operator = await invited(stand), stand.client(OPERATOR)
    await operator.put_project("study", "limit", push)
    with pytest.raises(Refused) as refused:
        await gateway.open_session(opening(ticket_sha256=SECRET))
    assert refused.value.reason == reason
    await operator.put_project("study", "limit", project_push(generation=3))
    assert (await gateway.open_session(opening(ticket_sha256=SECRET))).state == "open"


async def test_unknown_foreign_and_expired_tickets_open_nothing(stand: Stand) -> None:
    gateway = await invited(stand)
    await stand.client(OPERATOR).put_project("study", "other", project_push())
    for request in (opening(ticket_sha256="b" * 64), opening("other", ticket_sha256=SECRET)):
        with pytest.raises(NotFound) as unknown:
            await gateway.open_session(request)
        assert unknown.value.reason == "TicketUnknown"
    await invited(stand, "c" * 64, seconds=-1)
    with pytest.raises(Conflict) as expired:
        await gateway.open_session(opening(ticket_sha256="c" * 64))
    assert (expired.value.status, expired.value.reason) == (410, "Expired")
    assert await stand.sql("SELECT 1 FROM sessions") == []
    assert (await gateway.open_session(opening(ticket_sha256=SECRET))).state == "open", "another's try cost nothing"


async def test_without_a_room_the_ticket_is_given_back_with_the_money(stand: Stand) -> None:
    gateway = await invited(stand)
    first = await gateway.open_session(opening(ticket_sha256=SECRET))
    await gateway.close(first.session_id, wire.Close(epoch=1, reason="room_failed"))
    assert (await stand.account())["reserved"] == 0
    second = await gateway.open_session(opening(ticket_sha256=SECRET))
    await gateway.close(first.session_id, wire.Close(epoch=1, reason="room_failed"))
    with pytest.raises(Conflict):
        await gateway.open_session(opening(ticket_sha256=SECRET))
    assert (await gateway.session(second.session_id)).state == "open", "a late repeat frees nobody else's ticket"
    await stand.assert_laws()


@pytest.mark.parametrize(("by_agent", "reason"), [(False, "nobody_joined"), (True, "room_failed"), (True, "done")])
async def test_any_other_end_leaves_it_used(stand: Stand, by_agent: bool, reason: str) -> None:
    gateway = await invited(stand)
    session = await gateway.open_session(opening(ticket_sha256=SECRET))
    closer = gateway
    if by_agent:
        closer = stand.client(agent_of("limit"))
        await closer.attach(session.session_id, wire.Attach(epoch=1, worker="w"))
    await closer.close(session.session_id, wire.Close(epoch=1, n=1, reason=reason))
    with pytest.raises(Conflict) as used:
        await gateway.open_session(opening(ticket_sha256=SECRET))
    assert used.value.reason == "Used"


async def test_room_failures_and_openings_at_once_neither_lose_nor_double_a_ticket(stand: Stand) -> None:
    gateway = await invited(stand)

    async def tries() -> int:
        opened = 0
        for _ in range(6):
            try:
                session = await gateway.open_session(opening(ticket_sha256=SECRET))
            except LedgerError as error:
                assert error.reason == "Used"
                continue
            opened += 1
            held = await stand.sql("SELECT COUNT(*) AS n FROM sessions WHERE state = 'open'")
            assert held[0]["n"] == 1
            await gateway.close(session.session_id, wire.Close(epoch=1, reason="room_failed"))
        return opened

    assert sum(await asyncio.gather(*(tries() for _ in range(4)))) > 0
    assert (await gateway.open_session(opening(ticket_sha256=SECRET))).state == "open"
    await stand.assert_laws()
