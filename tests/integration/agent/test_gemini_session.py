"""The agent's budget on the unmodified Google plugin, over TLS, against the simulator's Gemini: ours is the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from livekit.agents import Agent, AgentSession
from talktime_agent import clip
from talktime_agent.apis import meter_of, rendering, turn_detection
from talktime_agent.context import chat_context, tokens_of
from talktime_agent.gate import session_instructions
from talktime_agent.goodbye import _RenderGate
from talktime_agent.interview import Interview
from talktime_agent.limits import wrap_up_text
from talktime_agent.settings import AgentSettings
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.pricing import price
from talktime_ledger.core.resume_texts import resume_text
from talktime_ledger.core.usage import UsageKind
from talktime_ledger.wire.resume import ContextItem

from tests.integration.agent.gemini_desk import TALK, GeminiDesk, Speaker, talking
from tests.integration.simulator.gemini import LiveSimulator, live_simulator


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSimulator]:
    options = ("--speed", "10", "--first-audio", "0.05", "--playback", "20")
    with live_simulator(tmp_path_factory.mktemp("tls"), *options) as running:
        yield running


@pytest.fixture
def simulator(server: LiveSimulator, monkeypatch: pytest.MonkeyPatch) -> LiveSimulator:
    """An empty bill, and its CA trusted the way agents trust one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(server.ca))
    for what in ("/truth", "/faults"):
        server.send("DELETE", what)
    return server


def difference(desk: GeminiDesk, simulator: LiveSimulator) -> dict[str, int]:
    """Ledger minus truth by meter, of all that was delivered; keys must be the truth's."""
    rows = [row for row in simulator.lines("/truth") if row["delivered"]]
    true = {f"{row['provider_session']}/{row['response_id']}": row["meters"] for row in rows}
    ours = {key: {str(m): n for m, n in usage.meters.items()} for key, usage in desk.usages.items()}
    assert set(ours) == set(true)
    names = {str(meter) for meter in Meter}
    sums = {
        name: sum(row.get(name, 0) for row in ours.values()) - sum(row.get(name, 0) for row in true.values())
        for name in names
    }
    return {name: count for name, count in sums.items() if count}


async def test_a_greeting_and_turns_are_billed_to_the_token(simulator: LiveSimulator, tmp_path: Path) -> None:
    desk = GeminiDesk(Decimal(2))
    async with talking(desk, simulator.tls_url, tmp_path) as talk:
        await talk.session.generate_reply(instructions="Greet the participant.")
        await talk.until_answered(1)
        for _ in range(3):
            await talk.turn()
    assert len(desk.usages) == 4
    assert difference(desk, simulator) == {}
    assert {Meter.THOUGHTS_OUT, Meter.UNASSIGNED_IN, Meter.AUDIO_IN} <= {
        meter for usage in desk.usages.values() for meter in usage.meters
    }
    assert desk.closed is not None
    assert (desk.closed.unmetered, desk.closed.turns) == ((), 3)


async def test_faults_lose_nothing(simulator: LiveSimulator, tmp_path: Path) -> None:
    desk = GeminiDesk(Decimal(2))
    async with talking(desk, simulator.tls_url, tmp_path) as talk:
        for fault, seconds in (("late_usage", 1.0), ("duplicate_done", 0), ("late_done", 0.3), ("late_usage", 0.2)):
            simulator.send("POST", "/faults", {"fault": fault, "seconds": seconds})
            await talk.turn()
        await talk.turn()
    assert len(desk.usages) == 5
    assert difference(desk, simulator) == {}
    assert desk.closed is not None
    assert desk.closed.unmetered == ()


async def test_a_connection_that_is_told_to_go_finishes_its_answer(simulator: LiveSimulator, tmp_path: Path) -> None:
    desk = GeminiDesk(Decimal(2))
    async with talking(desk, simulator.tls_url, tmp_path) as talk:
        # Told 8 s after its first answer, with 8 s left, in the middle of whatever is being said then.
        simulator.send("POST", "/faults", {"fault": "go_away", "seconds": 8})
        for _ in range(60):
            await talk.turn(patience_sec=15)
            if len(talk.connections) == 2:
                break
    assert difference(desk, simulator) == {}
    assert len({key.partition("/")[0] for key in desk.usages}) == 2
    resumed = [row["resumed"] for row in simulator.lines("/log") if row["event"] == "session.created"]
    assert resumed == [False, True]
    assert desk.closed is not None
    assert desk.closed.unmetered == ()


async def test_a_lost_connection_is_inside_its_bound(simulator: LiveSimulator, tmp_path: Path) -> None:
    desk = GeminiDesk(Decimal(2))
    async with talking(desk, simulator.tls_url, tmp_path) as talk:
        await talk.turn()
        simulator.send("POST", "/faults", {"fault": "drop_socket", "seconds": 0.2})
        await talk.until_heard()
        talk.say()
        async with asyncio.timeout(120):
            while all(row["delivered"] for row in simulator.lines("/truth")):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        while len(talk.connections) == 1:
            await talk.turn(patience_sec=15)
    assert difference(desk, simulator) == {}
    lost = [row for row in simulator.lines("/truth") if not row["delivered"]]
    assert len(lost) == 1
    assert desk.closed is not None
    bounds = {item.key: item.usd for item in desk.closed.unmetered}
    for row in lost:
        cost = price({Meter(name): count for name, count in row["meters"].items()}, TALK)
        assert cost <= bounds.pop(f"{row['provider_session']}/{row['response_id']}")
    assert bounds == {}


async def test_the_limit_holds_though_gemini_answers_by_itself(simulator: LiveSimulator, tmp_path: Path) -> None:
    desk = GeminiDesk(Decimal("0.06"))
    cap, goodbye = desk.bounds()
    async with talking(desk, simulator.tls_url, tmp_path) as talk:
        for _ in range(40):
            if talk.budget.ended.done():
                break
            await talk.turn()
        assert talk.budget.ended.result() == "budget"
        answers = len(simulator.lines("/truth"))
        # Whoever goes on talking is not heard: no audio, no answer, no cost.
        talk.say()
        assert not talk.budget.admits()
    assert len(simulator.lines("/truth")) == answers
    assert difference(desk, simulator) == {}
    assert desk.posted <= desk.limit - goodbye
    assert desk.most <= desk.limit
    # It ends because two worst cases and the goodbye do not fit any more, not long before.
    assert desk.posted > desk.limit - goodbye - 2 * cap - cap


async def test_livekits_session_greets_hears_and_wraps_up_on_one_connection(
    simulator: LiveSimulator, tmp_path: Path
) -> None:
    desk = GeminiDesk(Decimal(2))
    async with talking(desk, simulator.tls_url, tmp_path, connected=False) as talk:
        budget = talk.budget
        session: AgentSession[None] = AgentSession(
            llm=budget.model,
            vad=None,
            turn_handling={"turn_detection": turn_detection(budget.session.api)},
            user_away_timeout=None,
        )
        agent = Agent(instructions=session_instructions(budget.config))
        await session.start(agent, record=False)
        talk.adopt(agent.realtime_llm_session)
        session.generate_reply(instructions=str(budget.config.greeting))
        await talk.until_answered(1)
        await talk.turn()
        session.generate_reply(instructions=wrap_up_text(budget.config.wrapUp, 2))
        await talk.until_answered(3)
        await budget.usage_in()
        await session.aclose()
    log = simulator.lines("/log")
    assert [row["event"] for row in log].count("session.created") == 1
    assert sum(row["wrap_up"] for row in log if row["event"] == "response.create") == 1
    assert difference(desk, simulator) == {}
    assert desk.closed is not None
    assert desk.closed.unmetered == ()


async def test_the_agent_after_a_loss_is_given_what_was_said_and_it_is_billed_within_its_bound(
    simulator: LiveSimulator, tmp_path: Path
) -> None:
    desk = GeminiDesk(Decimal(2))
    words = ("What do you do all day?", "I repair church organs, mostly in villages.", "What was the last one like?")
    said = [ContextItem(role="user" if number % 2 else "assistant", text=text) for number, text in enumerate(words)]
    async with talking(desk, simulator.tls_url, tmp_path, connected=False, before=said) as talk:
        budget = talk.budget
        assert budget._meter.context_tokens == sum(tokens_of(item) for item in said), "W knows before it is billed"
        session: AgentSession[None] = AgentSession(
            llm=budget.model,
            vad=None,
            turn_handling={"turn_detection": turn_detection(budget.session.api)},
            user_away_timeout=None,
        )
        instructions = session_instructions(budget.config)
        agent = Agent(instructions=instructions, chat_ctx=chat_context(budget.before))
        await session.start(agent, record=False)
        talk.adopt(agent.realtime_llm_session)
        held = budget.till.worst_case()
        session.generate_reply(instructions=resume_text("en"))
        await talk.until_answered(1)
        await budget.usage_in()
        await session.aclose()
    log = simulator.lines("/log")
    given = [row for row in log if row["event"] == "client_content"]
    assert (given[0]["turns"], given[0]["turn_complete"]) == (3, False)
    first = next(row for row in log if row["event"] == "response.create")
    assert log.index(given[0]) < log.index(first)
    assert all(text in first["instructions_extra"] for text in (*words, resume_text("en")))
    assert [row["event"] for row in log].count("session.created") == 1
    assert difference(desk, simulator) == {}
    [billed] = desk.usages.values()
    assert price(billed.meters, TALK) <= held


async def test_the_goodbye_is_rendered_once_out_of_c(simulator: LiveSimulator, tmp_path: Path) -> None:
    desk = GeminiDesk(Decimal(2))
    _, goodbye = desk.bounds()
    async with talking(desk, simulator.tls_url, tmp_path, connected=False) as talk:
        budget = talk.budget
        till, bounds = budget.till, budget.bounds
        meter = meter_of(budget.session, budget.config, UsageKind.CLOSING_RENDER)
        gate = _RenderGate(till, bounds, budget.clock)
        assert gate.admits()

        def heard(event: dict[str, object]) -> None:
            if facts := meter.feed(event, budget.clock.wall()):
                till.apply(facts, aside=True)
                budget.changed()

        async def quiet(seconds: float) -> bool:
            async with asyncio.timeout(seconds):
                while meter.open_responses:  # noqa: ASYNC110 - the provider's socket
                    await asyncio.sleep(0.05)
            return True

        model = rendering(budget.session, budget.config, budget.key, gate, heard, bounds.goodbye_output_tokens)  # type: ignore[arg-type]
        pcm = await clip.render(model, clip.closing_prompt(budget.config.closing), quiet)
        assert pcm is not None
        assert clip.usable(pcm)
    (usage,) = desk.usages.values()
    assert usage.kind is UsageKind.CLOSING_RENDER
    assert 0 < price(usage.meters, TALK) <= goodbye
    assert difference(desk, simulator) == {}
    assert [row["status"] for row in simulator.lines("/truth")] == ["completed"]


async def test_an_interview_wraps_up_once_says_goodbye_and_stays_under_its_limit(
    simulator: LiveSimulator, tmp_path: Path
) -> None:
    """The interview itself, but for the room: a loudspeaker and a microphone in memory."""
    desk = GeminiDesk(Decimal("0.12"))
    deleted: list[str] = []

    async def delete_room(request: Any) -> None:
        deleted.append(request.room)

    ctx: Any = SimpleNamespace(
        room=SimpleNamespace(isconnected=lambda: True),
        api=SimpleNamespace(room=SimpleNamespace(delete_room=delete_room)),
    )
    settings = AgentSettings.model_validate(
        {
            "project": "research/study", "ledger_url": "http://ledger.test", "agent_name": "a",
            "livekit_url": "ws://livekit.test", "livekit_api_key": "k", "livekit_api_secret": "s",
        }
    )  # fmt: skip
    speaker = Speaker()
    async with talking(desk, simulator.tls_url, tmp_path, connected=False) as talk:
        budget = talk.budget
        interview = Interview(ctx, settings, budget)
        session = interview._session
        session.on("agent_state_changed", interview._on_agent_state)
        session.output.audio = speaker
        budget._answer, budget._on_grant, budget._on_change = interview._answer, interview._on_grant, interview._review
        await session.start(interview._agent, record=False)
        talk.adopt(interview._agent.realtime_llm_session)
        budget.keep(interview._watch())
        interview._came()
        budget.turns.respond()
        await talk.until_answered(1)
        await interview._goodbye.prepare()
        for _ in range(60):
            if budget.ended.done():
                break
            await talk.turn()
            await asyncio.sleep(0.2)
            # A pause, as between people, as long as it takes: the wrap-up is given in one.
            async with asyncio.timeout(60):
                while interview._wrap_up and not (interview._wrapped_up or budget.ended.done()):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                while interview._wrap_up and budget.busy and not budget.ended.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        reason = budget.ended.result()
        spoken = len(speaker.played)
        await interview._finish(reason)
    assert reason == "budget"
    log = [row for row in simulator.lines("/log") if row["event"] == "response.create"]
    assert [sum(row[what] for row in log) for what in ("wrap_up", "closing")] == [1, 1]
    expected = ("soft_limit", "wrap_up_sent", "hard_limit", "closing_started", "closing_finished", "left")
    assert [name for name in desk.events if name in expected] == list(expected)
    # The clip, and nothing else, is heard after the hard limit; the rendering is the only thing C has paid for.
    assert len(speaker.played) == spoken + 1
    assert 1.0 < speaker.played[-1] <= clip.MOST_SECONDS
    assert [usage.kind for usage in desk.usages.values()].count(UsageKind.CLOSING_RENDER) == 1
    assert deleted == ["s1"]
    assert difference(desk, simulator) == {}
    assert desk.closed is not None
    assert desk.closed.unmetered == ()
    assert desk.most <= desk.limit
