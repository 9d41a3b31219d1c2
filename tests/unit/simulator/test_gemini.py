"""Gemini Live's rules of counting, its setup, its context."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_simulator.gemini.context import Compression, Context, Resumables, Turn, compressed, total
from talktime_simulator.gemini.serving import refused
from talktime_simulator.gemini.setup import RefusedError, camel, setup_of
from talktime_simulator.gemini.tokens import (
    AUDIO_MS_PER_TOKEN,
    LiveUsage,
    audio_tokens,
    thought_tokens,
    unassigned_tokens,
)
from talktime_simulator.tokens import Tokens
from talktime_simulator.utterance import Utterance

counts = st.integers(min_value=0, max_value=100_000)
tokens = st.builds(Tokens, counts, counts)
usages = st.builds(LiveUsage, tokens, counts, counts, tokens, counts)
turns = st.lists(
    st.builds(Turn, st.booleans(), st.builds(Tokens, st.integers(0, 50), st.integers(0, 400))), max_size=30
)


@pytest.mark.parametrize(("milliseconds", "expected"), [(0, 0), (1, 1), (40, 1), (1000, 25), (60_000, 1500)])
def test_audio_is_25_tokens_a_second(milliseconds: float, expected: int) -> None:
    assert audio_tokens(milliseconds) == expected


@given(usages)
def test_the_wire_tells_every_meter_and_its_total_leaves_the_thoughts_out(usage: LiveUsage) -> None:
    wire, meters = usage.wire(), usage.meters()
    inputs = sum(meters.get(name, 0) for name in ("text_in", "audio_in", "unassigned_in"))
    outputs = sum(meters.get(name, 0) for name in ("text_out", "audio_out"))
    assert wire["promptTokenCount"] == inputs
    assert wire.get("responseTokenCount", 0) == outputs
    assert wire.get("thoughtsTokenCount", 0) == meters.get("thoughts_out", 0)
    assert wire.get("toolUsePromptTokenCount", 0) == meters.get("tool_prompt_in", 0)
    assert wire["totalTokenCount"] == inputs + outputs + meters.get("tool_prompt_in", 0)
    assigned = sum(detail["tokenCount"] for detail in wire["promptTokensDetails"])
    assert wire["promptTokenCount"] - assigned == usage.unassigned
    assert all(meters.values())


@given(st.integers(min_value=1, max_value=10_000))
def test_what_no_modality_gets_is_25_to_51_tokens(generation: int) -> None:
    assert 25 <= unassigned_tokens(generation) <= 51
    assert thought_tokens(generation) > 0


@pytest.mark.parametrize(("transcribed", "text"), [(True, 3), (False, 0)])
def test_speech_is_25_tokens_a_second_and_its_transcript_only_when_asked_for(transcribed: bool, text: int) -> None:
    answer = Utterance("eleven char", bytes(48 * 2000), AUDIO_MS_PER_TOKEN, transcribed)
    assert answer.tokens(answer.steps) == Tokens(text=text, audio=50)


@given(turns, st.integers(1, 2000), st.integers(1, 2000))
def test_compression_keeps_a_suffix_that_begins_with_the_user(given_turns: list[Turn], one: int, other: int) -> None:
    rule = Compression(trigger=max(one, other), target=min(one, other))
    before, head = tuple(given_turns), Tokens(text=20)
    after = compressed(before, head, rule)
    assert after == before[len(before) - len(after) :]
    if (head + total(before)).total <= rule.trigger:
        assert after == before
    elif after:
        assert after[0].user
        assert (head + total(after)).total <= rule.target


def test_the_prompt_is_everything_said_so_far_again() -> None:
    context, head = Context(), Tokens(text=100)
    context.hear(Tokens(audio=50))
    assert context.prompt(head, None) == Tokens(text=100, audio=50)
    context.answered(Tokens(audio=75))
    context.recall(Tokens(text=8))
    context.hear(Tokens(audio=10))
    assert context.prompt(head, None) == Tokens(text=108, audio=135)


def test_a_handle_stands_for_the_context_of_its_moment() -> None:
    known, context = Resumables(), Context()
    context.hear(Tokens(audio=50))
    context.prompt(Tokens(), None)
    known.keep("handle", context.saved())
    context.answered(Tokens(audio=75))
    for _ in range(2):
        again = known.get("handle")
        assert again is not None
        again.hear(Tokens(audio=1))
        assert again.prompt(Tokens(), None) == Tokens(audio=51)
    assert known.get("unknown") is None


SETUP: dict[str, Any] = {
    "model": "models/gemini-3.8-live",
    "generation_config": {"max_output_tokens": 500, "response_modalities": ["AUDIO"]},
    "system_instruction": {"parts": [{"text": "Ask one "}, {"text": "question."}]},
    "output_audio_transcription": {},
    "realtime_input_config": {"automatic_activity_detection": {"silence_duration_ms": 700}},
    "context_window_compression": {"trigger_tokens": "8000", "sliding_window": {}},
    "session_resumption": {},
}


def test_a_setup_in_either_spelling_is_understood() -> None:
    setup = setup_of(camel(SETUP), "v1beta")
    assert setup == setup_of(camel(camel(SETUP)), "v1")
    assert (setup.model, setup.instructions, setup.output_cap) == ("gemini-3.8-live", "Ask one question.", 500)
    assert setup.compression == Compression(8000, 4000)
    assert setup.automatic is not None
    assert setup.automatic.silence_duration_ms == 700
    assert (setup.output_transcription, setup.input_transcription, setup.resumable) == (True, False, True)
    assert setup.head == Tokens(text=5)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model": "models/gpt-realtime"}, 1008),
        ({"model": None}, 1008),
        ({"generationConfig": {"maxOutputTokens": 0}}, 1007),
        ({"generationConfig": {"maxOutputTokens": "many"}}, 1007),
        ({"generationConfig": []}, None),
        ({"generationConfig": [1]}, 1007),
        ({"contextWindowCompression": {"triggerTokens": 5, "slidingWindow": {"targetTokens": 6}}}, 1007),
        ({"contextWindowCompression": {"triggerTokens": 200_000}}, 1007),
        ({"realtimeInputConfig": {"automaticActivityDetection": {"disabled": True}}}, None),
    ],
)
def test_a_setup_that_google_would_not_take_is_refused(change: dict[str, Any], code: int | None) -> None:
    body = {**camel(SETUP), **change}
    if code is None:
        assert setup_of(body, "v1").model == "gemini-3.8-live"
        return
    with pytest.raises(RefusedError) as refusal:
        setup_of(body, "v1")
    assert refusal.value.code == code


@pytest.mark.parametrize(("key", "code"), [("", 1008), ("sim-bad-1", 1007), ("sim-quota-1", 1011), ("AIza", None)])
def test_keys_that_are_not_let_in(key: str, code: int | None) -> None:
    refusal = refused(key)
    assert (refusal[0] if refusal else None) == code
