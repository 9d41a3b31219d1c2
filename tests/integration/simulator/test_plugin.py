"""The unmodified livekit OpenAI plugin talks to the simulator, and what it saw is what the truth says."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from livekit.agents import llm
from livekit.plugins import openai
from openai.types.realtime.realtime_audio_input_turn_detection import ServerVad
from openai.types.realtime.realtime_truncation_retention_ratio import RealtimeTruncationRetentionRatio, TokenLimits

from .conftest import LONG

Connect = Callable[..., Any]


def meters(usage: dict[str, Any]) -> dict[str, int]:
    """The disjoint meters of a raw usage, worked out the way a meter of ours has to."""
    given, out = usage["input_token_details"], usage["output_token_details"]
    cached = given["cached_tokens_details"]
    return {
        "text_in": given["text_tokens"] - cached["text_tokens"],
        "text_cached_in": cached["text_tokens"],
        "audio_in": given["audio_tokens"] - cached["audio_tokens"],
        "audio_cached_in": cached["audio_tokens"],
        "text_out": out["text_tokens"],
        "audio_out": out["audio_tokens"],
    }


def total(records: list[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(record.get(name, 0) for record in records) for name in sorted({k for r in records for k in r})}


async def test_three_turns_truth_equals_what_the_client_saw(
    simulator: Any, connect: Connect, speech: list[bytes]
) -> None:
    client = await connect()
    for pcm in speech:
        await client.turn(pcm)
    await client.count("conversation.item.input_audio_transcription.completed", 3)

    truth = simulator.lines("/truth")
    responses = [record["meters"] for record in truth if record["kind"] == "response"]
    assert total(responses) == total([meters(usage) for usage in client.usages])
    assert len(responses) == 3
    assert all(count > 0 for count in total(responses).values())
    for event, usage in zip(client.of("response.done"), client.usages, strict=True):
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert event["response"]["status"] == "completed"

    heard = [event["usage"] for event in client.of("conversation.item.input_audio_transcription.completed")]
    written = [record["meters"] for record in truth if record["kind"] == "transcription"]
    assert sum(usage["input_token_details"]["audio_tokens"] for usage in heard) == sum(m["audio_in"] for m in written)
    assert {record["model"] for record in truth} == {"gpt-realtime-2.1-mini", "gpt-4o-mini-transcribe"}
    assert all(record["delivered"] for record in truth)


async def test_user_audio_is_ten_tokens_a_second_of_committed_speech(connect: Connect, speech: list[bytes]) -> None:
    client = await connect()
    client.speak(speech[0])
    await client.count("input_audio_buffer.committed", 1)
    started, stopped = (
        client.of("input_audio_buffer.speech_started")[0],
        client.of("input_audio_buffer.speech_stopped")[0],
    )
    committed_ms = stopped["audio_end_ms"] - started["audio_start_ms"]
    # Padding before (300 ms) and the silence that ended the turn (500 ms) are committed with the speech.
    assert committed_ms == pytest.approx(len(speech[0]) / 48 + 500, abs=400)
    assert started["item_id"] == stopped["item_id"] == client.of("input_audio_buffer.committed")[0]["item_id"]

    await client.session.generate_reply()
    await client.count("response.done", 1)
    assert client.usages[0]["input_token_details"]["audio_tokens"] == -(-committed_ms // 100)


async def test_no_response_by_itself_when_create_response_is_off(connect: Connect, speech: list[bytes]) -> None:
    client = await connect()
    client.speak(speech[0])
    await client.count("input_audio_buffer.committed", 1)
    await asyncio.sleep(0.3)
    assert client.of("response.created") == []


async def test_the_server_answers_by_itself_by_default(connect: Connect, speech: list[bytes]) -> None:
    client = await connect(turn_detection=ServerVad(type="server_vad"))
    client.speak(speech[0])
    await client.count("response.done", 1)
    assert client.of("response.done")[0]["response"]["status"] == "completed"


async def test_the_prefix_of_the_previous_input_is_cached(connect: Connect, speech: list[bytes]) -> None:
    client = await connect()
    for pcm in speech:
        await client.turn(pcm)
    details = [usage["input_token_details"] for usage in client.usages]
    cached = [d["cached_tokens_details"] for d in details]
    assert cached[0]["text_tokens"] == cached[0]["audio_tokens"] == 0
    assert cached[1]["text_tokens"] >= 64
    assert cached[2]["audio_tokens"] >= 64
    assert all(c["text_tokens"] % 64 == c["audio_tokens"] % 64 == 0 for c in cached)
    assert all(d["cached_tokens"] <= d["text_tokens"] + d["audio_tokens"] for d in details)


async def test_the_context_cap_holds_over_a_long_conversation(connect: Connect, speech: list[bytes]) -> None:
    limits = TokenLimits(post_instructions=300)
    client = await connect(
        truncation=RealtimeTruncationRetentionRatio(type="retention_ratio", retention_ratio=0.8, token_limits=limits)
    )
    for number in range(6):
        await client.turn(speech[number % 3])
    instructions = client.usages[0]["input_token_details"]["text_tokens"]
    inputs = [usage["input_tokens"] for usage in client.usages]
    assert max(inputs) <= instructions + 300
    assert sum(inputs) > 3 * instructions


async def test_the_output_cap_ends_a_response_as_incomplete(connect: Connect, speech: list[bytes]) -> None:
    client = await connect()
    client.model.update_options(max_response_output_tokens=40)
    await client.turn(speech[0])
    response = client.of("response.done")[0]["response"]
    assert response["status"] == "incomplete"
    assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert 30 < response["usage"]["output_tokens"] <= 40


async def test_a_cancelled_response_is_billed_for_what_it_generated(
    simulator: Any, connect: Connect, speech: list[bytes]
) -> None:
    client = await connect()
    await client.turn(speech[0])
    heard = len(client.of("response.output_audio.delta"))
    await client.session.generate_reply(instructions=f'Say "{LONG}"')
    await client.count("response.output_audio.delta", heard + 1)
    client.session.interrupt()
    await client.count("response.done", 2)
    response = client.of("response.done")[1]["response"]
    assert response["status"] == "cancelled"
    assert response["status_details"]["reason"] == "client_cancelled"
    said = client.of("response.output_audio_transcript.done")[1]["transcript"]
    assert LONG.startswith(said)
    assert len(said) < len(LONG)
    assert 0 < response["usage"]["output_token_details"]["audio_tokens"] < 20 * 40, "of nearly a minute"
    assert simulator.lines("/truth")[-1]["meters"] == meters(response["usage"])


async def test_speech_interrupts_a_response_when_asked_to(connect: Connect, speech: list[bytes]) -> None:
    client = await connect(turn_detection=ServerVad(type="server_vad", create_response=False, interrupt_response=True))
    await client.session.generate_reply(instructions=f'Say "{LONG}"')
    await client.count("response.output_audio.delta", 1)
    client.speak(speech[0])
    await client.count("response.done", 1)
    assert client.of("response.done")[0]["response"]["status_details"]["reason"] == "turn_detected"


async def test_it_says_the_sentence_in_quotes_and_the_log_marks_it(simulator: Any, connect: Connect) -> None:
    client = await connect()
    line = "Thank you for your time, we have covered everything."
    await client.session.generate_reply(instructions=f'Say exactly this closing line: "{line}"')
    await client.count("response.done", 1)
    assert client.of("response.output_audio_transcript.done")[0]["transcript"] == line

    await client.session.generate_reply(instructions="We are approaching the time limit. Summarize and conclude.")
    await client.count("response.done", 2)
    created = [event for event in simulator.lines("/log") if event["event"] == "response.create"]
    assert [(event["closing"], event["wrap_up"]) for event in created] == [(True, False), (False, True)]
    named = [e for e in simulator.lines("/log?closing=Summarize%20and") if e["event"] == "response.create"]
    assert [event["closing"] for event in named] == [False, True]


async def test_an_out_of_band_response_leaves_the_conversation_alone(connect: Connect, speech: list[bytes]) -> None:
    client = await connect()
    await client.turn(speech[0])
    request = {"conversation": "none", "input": [], "instructions": 'Say: "Goodbye now."', "max_output_tokens": 100}
    client.session.send_event({"type": "response.create", "event_id": "mine", "response": request})
    await client.count("response.done", 2)
    usage = client.usages[1]
    assert (
        usage["input_tokens"] == len('Say: "Goodbye now."') / 4 + 0.25
    )  # its instructions and nothing else, rounded up
    before = len(client.of("conversation.item.added"))
    await client.turn(speech[1])
    assert client.usages[2]["input_token_details"]["cached_tokens_details"]["text_tokens"] >= 64
    assert len(client.of("conversation.item.added")) == before + 2


async def test_the_plugin_can_edit_the_chat_context(connect: Connect) -> None:
    client = await connect()
    context = llm.ChatContext()
    context.add_message(role="user", content="What I said before.")
    context.add_message(role="assistant", content="What you answered.")
    await client.session.update_chat_ctx(context)
    assert len(client.of("conversation.item.added")) == 2
    await client.session.update_chat_ctx(llm.ChatContext([context.items[0]]))
    assert len(client.of("conversation.item.deleted")) == 1
    assert client.of("error") == []


async def test_what_was_not_heard_is_cut_from_the_context(connect: Connect, speech: list[bytes]) -> None:
    client = await connect()
    await client.session.generate_reply()
    await client.count("response.done", 1)
    item = client.of("response.output_item.added")[0]["item"]["id"]
    client.session.truncate(message_id=item, modalities=["audio"], audio_end_ms=1000)
    await client.count("conversation.item.truncated", 1)
    await client.session.generate_reply()
    await client.count("response.done", 2)
    assert client.usages[1]["input_token_details"]["audio_tokens"] == 20
    assert client.of("error") == []


@pytest.mark.parametrize(
    ("key", "code"), [("sim-bad-key", "invalid_api_key"), ("sim-quota-gone", "insufficient_quota")]
)
async def test_fatal_keys_stop_the_plugin(connect: Connect, key: str, code: str) -> None:
    client = await connect(key=key)
    errors: list[Any] = []
    client.session.on("error", errors.append)
    with pytest.raises(llm.RealtimeError):
        await client.session.generate_reply()
    await client.until(lambda: bool(errors), "error")
    assert not errors[-1].recoverable
    assert client.of("error")[0]["error"]["code"] == code


def test_a_rate_limited_key_is_refused_with_429(simulator: Any) -> None:
    request = urllib.request.Request(
        f"{simulator.url}/v1/realtime?model=m", headers={"Authorization": "Bearer sim-429-x"}
    )
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request)
    assert refusal.value.code == 429
    assert refusal.value.headers["Retry-After"]


async def test_faults_duplicate_and_late_done(simulator: Any, connect: Connect) -> None:
    client = await connect()
    simulator.send("POST", "/faults", {"fault": "duplicate_done"})
    simulator.send("POST", "/faults", {"fault": "late_done", "seconds": 3})
    await client.session.generate_reply()
    await client.count("response.output_item.done", 1)
    assert client.of("response.done") == []
    await client.count("response.done", 2)
    first, second = client.of("response.done")
    assert first["response"] == second["response"]
    assert first["event_id"] != second["event_id"]
    assert len(simulator.lines("/truth")) == 1


async def test_a_dropped_socket_leaves_an_undelivered_bill(simulator: Any, connect: Connect) -> None:
    client = await connect()
    simulator.send("POST", "/faults", {"fault": "drop_socket", "seconds": 0.4})
    await client.session.generate_reply()
    await client.until(lambda: len(simulator.lines("/truth")) == 1, "record")
    record = simulator.lines("/truth")[0]
    assert record["delivered"] is False
    assert record["meters"]["audio_out"] > 0
    await client.count("session.created", 2)  # the plugin came back by itself


async def test_a_response_created_late_is_discarded_by_the_plugin_but_billed(simulator: Any, connect: Connect) -> None:
    client = await connect()
    simulator.send("POST", "/faults", {"fault": "late_created", "seconds": 2})
    reply = client.session.generate_reply()
    await asyncio.sleep(0.1)
    reply.cancel()
    await client.count("response.done", 1)
    assert client.of("response.done")[0]["response"]["status"] == "cancelled"
    assert simulator.lines("/truth")[0]["meters"]["text_in"] > 0


async def test_the_plugin_counts_the_same_tokens(connect: Connect, speech: list[bytes]) -> None:
    client = await connect()
    seen: list[Any] = []
    client.session.on("metrics_collected", seen.append)
    await client.turn(speech[0])
    await client.until(lambda: any(getattr(m, "output_tokens", 0) and m.request_id for m in seen), "metrics")
    metric = next(m for m in seen if m.type == "realtime_model_metrics" and m.output_tokens)
    assert metric.total_tokens == client.usages[0]["total_tokens"]
    assert isinstance(client.model, openai.realtime.RealtimeModel)
