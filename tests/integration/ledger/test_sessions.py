"""One session over real HTTP and PostgreSQL: open, attach, use, close; repeats change nothing."""

from __future__ import annotations

import asyncio
import uuid
from decimal import Decimal

import pytest
from talktime_ledger import wire
from talktime_ledger.client import Fenced, LedgerClient, NotFound, Refused, SessionClosed, Unauthorized
from talktime_ledger.core.limits import LimitState

from .conftest import CONSOLE, GATEWAY, OPERATOR, Stand, agent_of, opening, project_push, usage


async def attached(stand: Stand, project: str = "limit") -> tuple[uuid.UUID, LedgerClient, wire.Attachment]:
    request = opening(project)
    await stand.client(GATEWAY).open_session(request)
    agent = stand.client(agent_of(project))
    attachment = await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w1"))
    return request.session_id, agent, attachment


async def test_a_session_from_open_to_close(stand: Stand) -> None:
    session_id, agent, attachment = await attached(stand)
    grant = attachment.grant
    assert attachment.config.instructions == "Be kind."
    assert [rates.model for rates in attachment.rates] == ["gpt-realtime-mini", "gpt-4o-mini-transcribe"]
    assert grant.reserved >= grant.goodbye + grant.w > 0
    assert grant.state is wire.GrantState.OK

    heard = usage("t/0", meters={"audio_in": 50, "text_out": 12}, model="gpt-4o-mini-transcribe", kind="transcription")
    spoken = usage(
        "s/r1", meters={"audio_in": 100, "audio_cached_in": 40, "text_in": 30, "text_out": 20, "audio_out": 200}
    )
    grant = await agent.use(session_id, wire.Use(epoch=1, n=1, usages=(heard, spoken), turns=1))
    transcription = Decimal("0.00021")  # 50 x 3 + 12 x 5 per million
    response = Decimal("0.005078")  # 100 x 10 + 40 x 0.3 + 30 x 0.6 + 20 x 2.4 + 200 x 20 per million
    assert grant.posted == transcription + response
    await stand.assert_laws()

    live = await stand.client(CONSOLE).session(session_id)
    assert live.costs is not None and live.costs[0].ai_cost_usd == grant.posted, "costs are there in mid-session too"

    closed = await agent.close(session_id, wire.Close(epoch=1, n=2, reason="done", turns=2, duration_sec=61.4))
    [row] = closed.costs
    assert (row.provider, row.model) == ("openai_realtime", "gpt-realtime-mini")
    assert (row.audio_in_tokens, row.audio_in_cached_tokens, row.audio_out_tokens) == (140, 40, 200)
    assert (row.text_tokens, row.transcription_audio_tokens, row.transcription_text_tokens) == (50, 50, 12)
    assert (row.ai_cost_usd, row.transcription_cost_usd) == (transcription + response, transcription)
    assert (row.duration_sec, row.turns, row.state) == (61, 2, "estimated")
    assert {snapshot["model"] for snapshot in row.rate_snapshot} == {"gpt-realtime-mini", "gpt-4o-mini-transcribe"}
    account = await stand.account()
    assert (account["reserved"], account["open_sessions"]) == (0, 0)
    await stand.assert_laws()


async def test_repeats_change_nothing(stand: Stand) -> None:
    request = opening()
    gateway, agent = stand.client(GATEWAY), stand.client(agent_of("limit"))
    first = await gateway.open_session(request)
    assert await gateway.open_session(request) == first
    await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w1"))
    await agent.attach(request.session_id, wire.Attach(epoch=1, worker="w1"))
    use = wire.Use(epoch=1, n=1, usages=(usage("s/r1"),))
    answers = [await agent.use(request.session_id, use) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    at_once = wire.Use(epoch=1, n=2, usages=(usage("s/r1"), usage("s/r2")))
    raced = await asyncio.gather(*(agent.use(request.session_id, at_once) for _ in range(8)))
    assert all(answer == raced[0] for answer in raced)
    assert raced[0].posted == Decimal("0.008")
    close = wire.Close(epoch=1, n=3, reason="done", usages=(usage("s/r2"), usage("s/r3")))
    results = await asyncio.gather(*(agent.close(request.session_id, close) for _ in range(4)))
    assert {result.posted for result in results} == {Decimal("0.012")}
    await stand.assert_laws()


async def test_reordered_requests_lose_no_usage(stand: Stand) -> None:
    session_id, agent, _ = await attached(stand)
    newer = await agent.use(session_id, wire.Use(epoch=1, n=2, usages=(usage("s/r2"),)))
    older = await agent.use(session_id, wire.Use(epoch=1, n=1, usages=(usage("s/r1"),)))
    assert older.n == newer.n
    assert older.posted == Decimal("0.008")
    assert older.reserved == newer.reserved - Decimal("0.004"), "what it reports is not held any more"
    grant = await agent.use(session_id, wire.Use(epoch=1, n=3))
    assert grant.posted == Decimal("0.008")
    await stand.assert_laws()


async def test_a_different_body_under_one_key_is_a_correction(stand: Stand) -> None:
    session_id, agent, _ = await attached(stand)
    early = usage("gen/1", 100)
    late = usage("gen/1", 300)
    await agent.use(session_id, wire.Use(epoch=1, n=1, usages=(early,)))
    grant = await agent.use(session_id, wire.Use(epoch=1, n=2, usages=(late,)))
    assert grant.posted == Decimal("0.006")
    grant = await agent.use(session_id, wire.Use(epoch=1, n=3, usages=(early,)))
    assert grant.posted == Decimal("0.006"), "an older snapshot does not come back"
    kinds = [row["kind"] for row in await stand.sql("SELECT kind FROM entries ORDER BY id")]
    assert kinds == ["usage", "correction"]
    await stand.assert_laws()


async def test_what_was_never_told_is_posted_at_its_bound_and_corrected_later(stand: Stand) -> None:
    session_id, agent, _ = await attached(stand)
    bound = wire.Unmetered(key="s/r9", usd=Decimal("0.02"))
    closed = await agent.close(session_id, wire.Close(epoch=1, n=1, reason="done", unmetered=(bound,)))
    assert (closed.posted, closed.costs[0].unmetered_usd) == (Decimal("0.02"), Decimal("0.02"))
    closed = await agent.close(session_id, wire.Close(epoch=1, n=1, reason="done", usages=(usage("s/r9"),)))
    assert (closed.posted, closed.costs[0].unmetered_usd) == (Decimal("0.004"), Decimal(0))
    await stand.assert_laws()


async def test_soft_once_then_final_then_hard(stand: Stand) -> None:
    await stand.client(OPERATOR).put_project("study", "small", project_push("1", "0.10"))
    session_id, agent, attachment = await attached(stand, "small")
    grant, wrap_ups, states = attachment.grant, 0, []
    n = 0
    while grant.limit_state is not LimitState.HARD:
        n += 1
        assert n < 100
        # The agent's own gate: a response only if what is held pays for it.
        usages = (usage(f"s/r{n}"),) if grant.reserved - grant.goodbye >= grant.w else ()
        grant = await agent.use(session_id, wire.Use(epoch=1, n=n, usages=usages))
        wrap_ups += grant.wrap_up
        states.append(grant.limit_state)
        if grant.wrap_up:
            assert grant.wrap_up_minutes is not None and 1 <= grant.wrap_up_minutes <= 10
        await stand.assert_laws()
    assert wrap_ups == 1
    assert LimitState.SOFT in states
    assert grant.state is wire.GrantState.FINAL
    assert grant.session_limit - grant.posted < grant.w + grant.goodbye
    assert grant.reserved >= grant.goodbye, "the goodbye is still held"
    session = await stand.client(CONSOLE).session(session_id)
    assert session.soft_at is not None and session.hard_at is not None


async def test_refusals_say_why(stand: Stand) -> None:
    operator, gateway = stand.client(OPERATOR), stand.client(GATEWAY)
    with pytest.raises(NotFound):
        await gateway.open_session(opening("nowhere"))
    cases = {
        "poor": (
            project_push("0.2", "0.2", budget={"session": {"limit": "0.2", "admitFloor": "0.3"}}),
            "BudgetExhausted",
        ),
        "paused": (project_push(paused=True), "Paused"),
        "priceless": (project_push(model="gpt-unknown"), "PriceUnknown"),
        "narrow": (project_push("1", "0.05"), "BudgetNotFeasible"),
    }
    for name, (push, reason) in cases.items():
        await operator.put_project("study", name, push)
        with pytest.raises(Refused) as refusal:
            await gateway.open_session(opening(name))
        assert refusal.value.reason == reason
        status = await operator.project("study", name)
        assert status.sessions.refused == {reason: 1}
    status = await operator.project("study", "priceless")
    assert not status.prices[0].known and "gpt-unknown" in status.prices[0].reason
    status = await operator.project("study", "narrow")
    assert not status.feasible.ok and "lower caps." in status.feasible.message


async def test_the_participant_cap_spans_sessions(stand: Stand) -> None:
    push = project_push("5", "0.2", budget={"participant": {"limit": "0.12"}})
    await stand.client(OPERATOR).put_project("study", "panel", push)
    gateway, agent = stand.client(GATEWAY), stand.client(agent_of("panel"))
    first = opening("panel", participant_key="p-7")
    await gateway.open_session(first)
    await agent.attach(first.session_id, wire.Attach(epoch=1, worker="w"))
    await agent.use(first.session_id, wire.Use(epoch=1, n=1, usages=(usage("a", 1500),)))
    await stand.assert_laws()
    await agent.close(first.session_id, wire.Close(epoch=1, n=2, reason="done", usages=(usage("b", 3500),)))
    with pytest.raises(Refused) as refusal:
        await gateway.open_session(opening("panel", participant_key="p-7"))
    assert refusal.value.reason == "ParticipantLimit"
    await gateway.open_session(opening("panel", participant_key="p-8"))
    await stand.assert_laws()


async def test_an_agent_touches_its_own_project_only(stand: Stand) -> None:
    session_id, _, _ = await attached(stand)
    await stand.client(OPERATOR).put_project("study", "other", project_push())
    stranger = stand.client(agent_of("other"), patience_sec=0)
    attempts = [
        lambda: stranger.session(session_id),
        lambda: stranger.attach(session_id, wire.Attach(epoch=1, worker="x")),
        lambda: stranger.use(session_id, wire.Use(epoch=1, n=1, usages=(usage("x"),))),
        lambda: stranger.close(session_id, wire.Close(epoch=1, n=1, reason="x")),
        lambda: stranger.clip("study", "limit", "a" * 64),
        lambda: stranger.put_clip("study", "limit", "a" * 64, b"00"),
        lambda: stranger.report_provider("study", "limit", wire.ProviderReport(provider="main", ok=True)),
        lambda: stranger.put_project("study", "limit", project_push("1000")),
        lambda: stranger.open_session(opening()),
        lambda: stranger.directory(),
        lambda: stranger.spend(),
        lambda: anext(aiter(stranger.push("study", "other2"))),
    ]
    for attempt in attempts[:-1]:
        with pytest.raises(Unauthorized):
            await attempt()
    assert [one.session_id for one in await stranger.sessions()] == []
    assert (await stand.account())["posted"] == 0


async def test_tokens_that_are_not_ours_are_refused(stand: Stand) -> None:
    subject = agent_of("limit")
    tokens = [
        "",
        "not-a-jwt",
        stand.issuer.token(subject, aud=["kubernetes"]),
        stand.issuer.token(subject, iss="https://elsewhere"),
        stand.issuer.token(subject, exp=1),
        stand.issuer.token("system:serviceaccount:study:default"),
        stand.issuer.token("system:serviceaccount:elsewhere:talktime-operator"),
        stand.issuer.token(subject)[:-4] + "AAAA",
    ]
    for token in tokens:
        async with LedgerClient(stand.url, token=token, token_path=None, patience_sec=0) as client:
            with pytest.raises(Unauthorized):
                await client.sessions()


async def test_a_fenced_agent_is_told_and_its_usage_still_counts(stand: Stand) -> None:
    session_id, agent, attachment = await attached(stand)
    use = wire.Use(epoch=1, n=1, usages=(usage("a/1"),), in_flight=attachment.grant.w)
    held = (await agent.use(session_id, use)).reserved
    gateway = stand.client(GATEWAY)
    session = await gateway.claim(session_id, wire.Claim(epoch=2, reason="agent gone"))
    assert session.epoch == 2
    assert session.posted == Decimal("0.004") + held, "all it held is assumed"
    await stand.assert_laws()

    with pytest.raises(Fenced):
        await agent.use(session_id, wire.Use(epoch=1, n=2, usages=(usage("a/2"),)))
    await stand.assert_laws()
    assert (await gateway.session(session_id)).posted == session.posted, "it comes out of the assumption"
    with pytest.raises(Fenced):
        await agent.close(session_id, wire.Close(epoch=1, n=3, reason="fenced", usages=(usage("a/2"),)))
    await stand.assert_laws()
    assert (await gateway.session(session_id)).posted == Decimal("0.008"), "its last word replaces the assumption"

    with pytest.raises(Fenced):
        await agent.attach(session_id, wire.Attach(epoch=1, worker="w1"))
    second = await agent.attach(session_id, wire.Attach(epoch=2, worker="w2"))
    with pytest.raises(Fenced):
        await agent.attach(session_id, wire.Attach(epoch=2, worker="w3"))
    assert second.grant.n == 1
    grant = await agent.use(session_id, wire.Use(epoch=2, n=2, usages=(usage("b/1"),)))
    assert grant.posted == Decimal("0.012")
    await agent.close(session_id, wire.Close(epoch=2, n=3, reason="done"))
    with pytest.raises(SessionClosed):
        await agent.use(session_id, wire.Use(epoch=2, n=4))
    assert (await stand.account())["reserved"] == 0
    await stand.assert_laws()
