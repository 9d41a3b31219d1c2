"""The unmodified livekit Google plugin talks to the simulator, and what it saw is what the truth says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from google.genai import types
from livekit.agents import APIError
from livekit.plugins.google import realtime, tools

from .conftest import INSTRUCTIONS, LONG
from .gemini import MODEL, LiveClient, LiveSimulator, live_simulator, meters

Connect = Callable[..., Any]
MANUAL = types.RealtimeInputConfig(automatic_activity_detection=types.AutomaticActivityDetection(disabled=True))


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSimulator]:
    options = ("--speed", "10", "--first-audio", "0.05", "--playback", "20")
    with live_simulator(tmp_path_factory.mktemp("tls"), *options) as server:
        yield server


@pytest.fixture(scope="session")
def heard(speech: list[bytes]) -> list[bytes]:
    """The spoken answers at 16 kHz."""
    found = []
    for pcm in speech:
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.float64)
        at = np.arange(len(samples) * 2 // 3) * 1.5
        found.append(np.interp(at, np.arange(len(samples)), samples).astype("<i2").tobytes())
    return found


@pytest.fixture
async def connect(simulator: LiveSimulator, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    """`await connect(key=..., tools=..., **model options)` -> LiveClient; the CA comes the way agents get it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(simulator.ca))
    opened: list[LiveClient] = []

    async def open_client(key: str = "anything", given: list[Any] | None = None, **options: Any) -> LiveClient:
        model = realtime.RealtimeModel(
            model=options.pop("model", MODEL),
            api_key=key,
            instructions=INSTRUCTIONS,
            http_options=types.HttpOptions(base_url=simulator.tls_url),
            **options,
        )
        client = LiveClient(model, model.session())
        if given:
            await client.session.update_tools(given)
        client.session.on("metrics_collected", client.metrics.append)
        client.session.on("error", client.errors.append)
        listen(client)
        opened.append(client)
        await client.until(lambda: client.session._active_session is not None or bool(client.errors), "session")
        return client

    yield open_client
    for client in opened:
        with contextlib.suppress(APIError):
            await client.session.aclose()


def listen(client: LiveClient) -> None:
    """Keeps every message the library parsed, on every connection of the plugin's session."""
    connect = client.session._client.aio.live.connect

    @contextlib.asynccontextmanager
    async def connected(**options: Any) -> AsyncIterator[Any]:
        async with connect(**options) as session:
            receive = session._receive

            async def kept() -> types.LiveServerMessage:
                message = await receive()
                client.told.append(message.model_copy(deep=True))
                return message

            session._receive = kept
            client.sessions.append(session.session_id)
            yield session

    client.session._client.aio.live.connect = connected


async def settled(simulator: LiveSimulator, records: int) -> list[dict[str, Any]]:
    for _ in range(3000):
        truth = simulator.lines("/truth")
        if len(truth) >= records:
            return truth
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(simulator.lines('/truth'))} records, {records} wanted")


async def test_a_greeting_and_two_turns_are_told_exactly(
    simulator: LiveSimulator, connect: Connect, heard: list[bytes]
) -> None:
    client = await connect()
    await client.session.generate_reply(instructions="Greet the participant.")
    await client.ended(1)
    for number, pcm in enumerate(heard[:2]):
        client.speak(pcm)
        await client.ended(2 + number)

    truth = await settled(simulator, 3)
    assert [meters(usage) for usage in client.usages()] == [record["meters"] for record in truth]
    assert [record["response_id"] for record in truth] == ["1", "2", "3"]
    assert {record["provider_session"] for record in truth} == set(client.sessions)
    assert all(record["delivered"] and record["status"] == "completed" for record in truth)
    for usage in client.usages():
        # What the real wire does: the total leaves the thoughts out, the details leave 25 to 51 prompt tokens out.
        assert usage.total_token_count == (usage.prompt_token_count or 0) + (usage.response_token_count or 0)
        assert (usage.thoughts_token_count or 0) > 0
        assert 25 <= meters(usage)["unassigned_in"] <= 51
    assert "".join(c.output_transcription.text for c in client.contents if c.output_transcription).count("?") == 3


async def test_the_whole_context_is_billed_again_in_every_turn(
    simulator: LiveSimulator, connect: Connect, heard: list[bytes]
) -> None:
    client = await connect()
    for number, pcm in enumerate(heard):
        client.speak(pcm)
        await client.ended(number + 1)
    first, second, third = (record["meters"] for record in await settled(simulator, 3))
    said = [e["tokens"] for e in simulator.lines("/log") if e["event"] == "input_audio_buffer.committed"]
    assert first["audio_in"] == said[0]
    assert second["audio_in"] == first["audio_in"] + first["audio_out"] + said[1]
    assert third["audio_in"] == second["audio_in"] + second["audio_out"] + said[2]
    assert said[0] == pytest.approx((len(heard[0]) / 32 + 500) / 40, abs=15)


async def test_snapshots_grow_within_a_turn_and_the_last_one_counts(simulator: LiveSimulator, connect: Connect) -> None:
    client = await connect()
    await client.session.generate_reply()
    await client.ended(1)
    counts = [m.usage_metadata.response_token_count or 0 for m in client.told if m.usage_metadata]
    assert len(counts) > 5
    assert counts == sorted(counts)
    (record,) = await settled(simulator, 1)
    assert counts[-1] == record["meters"]["audio_out"] + record["meters"]["text_out"]
    # A meter that adds what livekit reports per message would be far off.
    assert sum(metric.output_tokens for metric in client.metrics) > 2 * counts[-1]


async def test_a_barge_in_interrupts_and_bills_what_was_generated(
    simulator: LiveSimulator, connect: Connect, heard: list[bytes]
) -> None:
    client = await connect()
    client.speak(heard[0])
    await client.ended(1)
    await client.session.generate_reply(instructions=f'Say "{LONG}"')
    await client.until(lambda: any(c.model_turn for c in client.contents[-2:]), "audio")
    client.speak(heard[1])
    await client.ended(3)
    truth = await settled(simulator, 3)
    assert [record["status"] for record in truth] == ["completed", "cancelled", "completed"]
    assert truth[1]["meters"]["audio_out"] > 0
    assert any(content.interrupted for content in client.contents)
    assert [meters(usage) for usage in client.usages()] == [record["meters"] for record in truth]


async def test_manual_activity_answers_once_when_the_client_says_so(
    simulator: LiveSimulator, connect: Connect, heard: list[bytes]
) -> None:
    client = await connect(realtime_input_config=MANUAL)
    client.session.start_user_activity()
    client.speak(heard[0])
    await asyncio.sleep(0.3)
    assert client.contents == []
    await client.session.generate_reply()  # ends the activity
    await client.ended(1)
    await asyncio.sleep(0.2)
    (record,) = await settled(simulator, 1)
    seconds = len(heard[0]) / 2 / 16_000 + 1
    assert record["meters"]["audio_in"] == pytest.approx(25 * seconds, abs=3)
    client.session.start_user_activity()
    assert client.turns == 1


async def test_late_usage_comes_after_the_turn_and_before_the_next_one(
    simulator: LiveSimulator, connect: Connect
) -> None:
    client = await connect()
    simulator.send("POST", "/faults", {"fault": "late_usage", "seconds": 30})
    await client.session.generate_reply()
    await client.ended(1)
    assert not any(message.usage_metadata for message in client.told)
    await client.session.generate_reply()
    await client.ended(2)
    truth = await settled(simulator, 2)
    assert [meters(usage) for usage in client.usages()] == [record["meters"] for record in truth]
    assert all(record["delivered"] for record in truth)


async def test_a_repeated_usage_and_a_late_end_are_one_bill(simulator: LiveSimulator, connect: Connect) -> None:
    client = await connect()
    simulator.send("POST", "/faults", {"fault": "duplicate_done"})
    simulator.send("POST", "/faults", {"fault": "late_done", "seconds": 0.3})
    await client.session.generate_reply()
    await client.ended(1)
    await client.until(lambda: client.told[-1].session_resumption_update is not None, "handle")
    final = [message.usage_metadata for message in client.told if message.usage_metadata][-2:]
    assert final[0] == final[1]
    assert len(await settled(simulator, 1)) == 1


async def test_a_dropped_socket_leaves_an_undelivered_bill_and_the_session_resumes(
    simulator: LiveSimulator, connect: Connect, heard: list[bytes]
) -> None:
    client = await connect()
    client.speak(heard[0])
    await client.ended(1)
    simulator.send("POST", "/faults", {"fault": "drop_socket", "seconds": 0.4})
    await client.session.generate_reply()
    await client.until(lambda: len(client.sessions) == 2, "second connection")
    lost = (await settled(simulator, 2))[1]
    assert (lost["delivered"], lost["response_id"]) == (False, "2")
    assert lost["meters"]["audio_out"] > 0

    await client.session.generate_reply()
    await client.ended(2)
    first, _, resumed = await settled(simulator, 3)
    assert (resumed["provider_session"], resumed["response_id"]) == (client.sessions[1], "1")
    assert resumed["delivered"]
    # The handle restored what was said until the end of the first turn.
    assert resumed["meters"]["audio_in"] == first["meters"]["audio_in"] + first["meters"]["audio_out"]
    created = [e["resumed"] for e in simulator.lines("/log") if e["event"] == "session.created"]
    assert created == [False, True]


async def test_go_away_moves_the_session_to_a_new_connection(simulator: LiveSimulator, connect: Connect) -> None:
    client = await connect()
    simulator.send("POST", "/faults", {"fault": "go_away", "seconds": 0.3})
    await client.session.generate_reply()
    await client.until(lambda: len(client.sessions) == 2, "second connection")
    assert any(message.go_away and message.go_away.time_left == "0.3s" for message in client.told)
    assert len(set(client.sessions)) == 2


async def test_the_output_cap_holds_thoughts_and_speech_together(simulator: LiveSimulator, connect: Connect) -> None:
    client = await connect(max_output_tokens=80)
    await client.session.generate_reply()
    await client.ended(1)
    (record,) = await settled(simulator, 1)
    assert record["status"] == "incomplete"
    assert 60 < sum(record["meters"][name] for name in ("thoughts_out", "text_out", "audio_out")) <= 80


async def test_compression_keeps_the_context_under_its_trigger(
    simulator: LiveSimulator, connect: Connect, heard: list[bytes]
) -> None:
    window = types.ContextWindowCompressionConfig(
        trigger_tokens=600, sliding_window=types.SlidingWindow(target_tokens=300)
    )
    client = await connect(context_window_compression=window)
    for number in range(6):
        client.speak(heard[number % 3])
        await client.ended(number + 1)
    truth = [record["meters"] for record in await settled(simulator, 6)]
    spoken = [e["tokens"] for e in simulator.lines("/log") if e["event"] == "input_audio_buffer.committed"]
    held = [m["text_in"] + m["audio_in"] - now for m, now in zip(truth, spoken, strict=True)]
    assert max(held) <= 600
    assert any(after < before for before, after in pairwise(held))


async def test_a_server_side_tool_is_a_prompt_of_its_own(
    simulator: LiveSimulator, connect: Connect, heard: list[bytes]
) -> None:
    client = await connect(given=[tools.GoogleSearch()])
    client.speak(heard[0])
    await client.ended(1)
    (record,) = await settled(simulator, 1)
    assert record["meters"]["tool_prompt_in"] >= 80
    assert [meters(usage) for usage in client.usages()] == [record["meters"]]


async def test_it_says_the_sentence_in_quotes_and_the_log_marks_it(simulator: LiveSimulator, connect: Connect) -> None:
    client = await connect()
    line = "Thank you for your time, we have covered everything."
    await client.session.generate_reply(instructions=f'Say exactly this closing line: "{line}"')
    await client.ended(1)
    assert "".join(c.output_transcription.text for c in client.contents if c.output_transcription) == line
    (created,) = [event for event in simulator.lines("/log") if event["event"] == "response.create"]
    assert (created["closing"], created["wrap_up"]) == (True, False)


@pytest.mark.parametrize(
    ("key", "model", "code", "words"),
    [
        ("sim-bad-key", MODEL, 1007, "API key not valid"),
        ("sim-quota-key", MODEL, 1011, "exceeded your current quota"),
        ("anything", "gpt-realtime", 1008, "is not found for API version"),
    ],
)
async def test_what_google_refuses_is_refused_its_way(
    connect: Connect, key: str, model: str, code: int, words: str
) -> None:
    client = await connect(key=key, model=model)
    await client.until(lambda: bool(client.errors), "error")
    assert getattr(client.errors[0].error, "code", None) == code
    assert words in str(client.errors[0].error)
    assert client.errors[0].recoverable is False
