"""A lost agent's session stays open, counts what it used once, and waits for the next one; what was said is sealed."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from talktime_ledger import wire
from talktime_ledger.client import Fenced, SessionClosed, Unauthorized
from talktime_ledger.server.sealing import Sealer
from talktime_ledger.server.steady import GAP_SEC, Steady
from talktime_ledger.wire.resume import Checkpoint, ContextItem, Lost

from .conftest import (
    GATEWAY,
    OPERATOR,
    Issuer,
    Stand,
    agent_of,
    opening,
    project_push,
    settings_for,
    standing,
    usage,
)

KEY = base64.b64encode(bytes(range(32))).decode()
SAID = (ContextItem(role="assistant", text="What do you do?"), ContextItem(role="user", text="I repair bicycles."))


@pytest.fixture
async def resuming(database_url: str, issuer: Issuer) -> AsyncIterator[Stand]:
    """A ledger with a key for conversations, quick to call a pod silent."""
    async with standing(settings_for(database_url, issuer, context_keys=KEY, lost_after_sec=0.5), issuer) as made:
        yield made


async def opened(stand: Stand, worker: str = "pod-1/job") -> tuple[Any, Any, uuid.UUID]:
    gateway, agent = stand.client(GATEWAY), stand.client(agent_of("limit"))
    session_id = uuid.uuid4()
    await gateway.open_session(opening(session_id=session_id))
    await agent.attach(session_id, wire.Attach(epoch=1, worker=worker))
    return gateway, agent, session_id


def bound(key: str, usd: str) -> wire.Unmetered:
    return wire.Unmetered(key=key, usd=Decimal(usd))


async def test_a_lost_agent_is_settled_to_the_token_and_the_session_goes_on(resuming: Stand) -> None:
    gateway, agent, session_id = await opened(resuming)
    told = Lost(epoch=1, n=1, usages=(usage("s/1"),), unmetered=(bound("s/2", "0.01"),), reason="agent_died", turns=3)
    for _ in range(2):  # the answer to the first may have been lost
        after = await agent.lose(session_id, told)
        assert (after.state, after.lost, after.losses, after.posted, after.turns) == (
            "open", True, 1, Decimal("0.014"), 3,
        )  # fmt: skip
        await resuming.assert_laws()
    assert [s.session_id for s in await gateway.lost_sessions()] == [str(session_id)]

    with pytest.raises(Fenced):
        await agent.attach(session_id, wire.Attach(epoch=1, worker="pod-1/job"))
    claimed = await gateway.claim(session_id, wire.Claim(epoch=2, reason="agent_lost"))
    assert (claimed.losses, claimed.posted) == (1, Decimal("0.014")), "nothing more is assumed of it"
    assert await gateway.lost_sessions() == ()
    attached = await agent.attach(session_id, wire.Attach(epoch=2, worker="pod-2/job"))
    assert not attached.session.lost
    grant = await agent.use(session_id, wire.Use(epoch=2, n=attached.grant.n + 1, usages=(usage("t/1"),)))
    assert grant.posted == Decimal("0.018")
    await resuming.assert_laws()
    closed = await agent.close(session_id, wire.Close(epoch=2, n=grant.n + 1, reason="participant_left"))
    assert closed.posted == Decimal("0.018")
    await resuming.assert_laws()


async def test_a_request_of_a_dead_agent_that_comes_late_is_counted_and_revives_nobody(resuming: Stand) -> None:
    gateway, agent, session_id = await opened(resuming)
    await agent.lose(session_id, Lost(epoch=1, n=2, usages=(usage("s/1"),), reason="agent_died"))
    held = (await gateway.session(session_id)).reserved
    late = wire.Use(epoch=1, n=1, usages=(usage("s/1"), usage("s/2")))
    for _ in range(2):
        with pytest.raises(Fenced):
            await agent.use(session_id, late)
        after = await gateway.session(session_id)
        assert (after.lost, after.posted) == (True, Decimal("0.008"))
        assert after.reserved == held - Decimal("0.004"), "paid by what the dead one held"
        assert [s.session_id for s in await gateway.lost_sessions()] == [str(session_id)]
        await resuming.assert_laws()


async def test_its_last_word_after_the_claim_takes_the_place_of_what_was_assumed(resuming: Stand) -> None:
    gateway, agent, session_id = await opened(resuming)
    claimed = await gateway.claim(session_id, wire.Claim(epoch=2, reason="agent_lost"))
    assert claimed.posted > Decimal("0.004")
    assert claimed.losses == 1
    with pytest.raises(Fenced):
        await agent.lose(session_id, Lost(epoch=1, n=1, usages=(usage("s/1"),), reason="agent_died"))
    after = await gateway.session(session_id)
    assert (after.state, after.posted, after.losses) == ("open", Decimal("0.004"), 1)
    await resuming.assert_laws()


@pytest.fixture
async def patient(database_url: str, issuer: Issuer) -> AsyncIterator[Stand]:
    """A pod may be silent for as long as we may be deaf unnoticed: what stops us for longer proves nothing."""
    async with standing(settings_for(database_url, issuer, lost_after_sec=GAP_SEC), issuer) as made:
        yield made


async def test_only_a_pod_that_fell_silent_is_lost(patient: Stand) -> None:
    gateway, agent, session_id = await opened(patient, "pod-1/job")
    _, _, unheard = await opened(patient, "pod-2/job")
    _, _, alive = await opened(patient, "pod-3/job")
    await agent.beat("study", "limit", "pod-1")
    async with asyncio.timeout(120):
        while not (found := await gateway.lost_sessions()):
            await agent.beat("study", "limit", "pod-3")
            await asyncio.sleep(0.1)
    assert [session.session_id for session in found] == [str(session_id)]
    assert str(unheard) not in {str(alive), str(session_id)}
    with pytest.raises(Unauthorized):
        await agent.beat("study", "other", "pod-1")


async def test_what_was_said_is_sealed_given_to_the_next_agent_and_gone_at_the_end(resuming: Stand) -> None:
    gateway, agent, session_id = await opened(resuming)
    assert await agent.put_context(session_id, Checkpoint(epoch=1, items=SAID[:1]))
    assert await agent.put_context(session_id, Checkpoint(epoch=1, items=SAID))
    (row,) = await resuming.sql("SELECT sealed FROM session_contexts")
    assert b"bicycles" not in row["sealed"]
    await agent.lose(session_id, Lost(epoch=1, reason="agent_died"))
    await gateway.claim(session_id, wire.Claim(epoch=2, reason="agent_lost"))
    assert (await agent.context(session_id)).items == SAID
    with pytest.raises(Fenced):
        await agent.put_context(session_id, Checkpoint(epoch=1, items=()))
    with pytest.raises(Unauthorized):
        await resuming.client(agent_of("other")).context(session_id)
    await agent.attach(session_id, wire.Attach(epoch=2, worker="pod-2/job"))
    await agent.close(session_id, wire.Close(epoch=2, n=9, reason="participant_left"))
    assert await resuming.sql("SELECT 1 FROM session_contexts") == []
    with pytest.raises(SessionClosed):
        await agent.put_context(session_id, Checkpoint(epoch=2, items=SAID))


async def test_a_swept_session_forgets_too(resuming: Stand) -> None:
    _, agent, session_id = await opened(resuming)
    assert await agent.put_context(session_id, Checkpoint(epoch=1, items=SAID))
    await resuming.backdate(session_id, 1000)
    async with asyncio.timeout(60):
        while await resuming.sql("SELECT 1 FROM session_contexts"):  # noqa: ASYNC110 - the server sweeps
            await asyncio.sleep(0.05)
    assert (await agent.session(session_id)).close_reason == "swept"


async def test_a_project_that_does_not_want_it_keeps_nothing(resuming: Stand) -> None:
    push = project_push()
    spec = push.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    spec["agent"]["resume"] = {"context": False}
    await resuming.client(OPERATOR).put_project(
        "study", "limit", wire.ProjectPush.model_validate({**push.model_dump(mode="json"), "spec": spec})
    )
    _, agent, session_id = await opened(resuming)
    assert not await agent.put_context(session_id, Checkpoint(epoch=1, items=SAID))
    assert await resuming.sql("SELECT 1 FROM session_contexts") == []


async def test_without_a_key_nothing_is_kept(stand: Stand) -> None:
    _, agent, session_id = await opened(stand)
    assert not await agent.put_context(session_id, Checkpoint(epoch=1, items=SAID))
    assert (await agent.context(session_id)).items == ()


def test_a_seal_is_bound_to_its_session_and_old_keys_still_open() -> None:
    old, both = Sealer.of(KEY), Sealer.of(f"{base64.b64encode(b'n' * 32).decode()}, {KEY}")
    one, other = uuid.uuid4(), uuid.uuid4()
    sealed = old.seal(one, b"said")
    assert both.open(one, sealed) == b"said"
    assert old.open(other, sealed) is None
    assert old.open(one, both.seal(one, b"said")) is None
    with pytest.raises(ValueError, match="5 bytes"):
        Sealer.of(base64.b64encode(b"short").decode())


def test_silence_counts_only_while_we_listened_without_a_break() -> None:
    steady = Steady()
    assert steady.seconds(0) == 0
    for at in range(11):
        steady.tick(at)
    assert steady.seconds(10) == 10
    assert steady.seconds(10 + GAP_SEC + 1) == 0
    steady.tick(20)
    assert steady.seconds(20) == 0
    steady.tick(21)
    steady.broken()
    assert steady.seconds(21) == 0
