"""Disjoint meters from raw OpenAI events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_ledger.core.meters import INPUTS, OUTPUTS, Meter
from talktime_ledger.core.usage import (
    UsageError,
    UsageKind,
    UsageMissing,
    UsageStatus,
    usage_from_openai_response_done,
    usage_from_openai_transcription,
)

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def done(usage: Any, **response: Any) -> Any:
    body = {"id": "resp_1", "status": "completed", "usage": usage, **response}
    return usage_from_openai_response_done(
        {"type": "response.done", "response": body},
        provider_session="sess_1",
        provider="main",
        model="gpt-realtime-mini",
        occurred_at=AT,
    )


def test_cached_tokens_are_taken_out_of_the_input() -> None:
    usage = done(
        {
            "input_tokens": 270,
            "output_tokens": 120,
            "input_token_details": {
                "text_tokens": 100,
                "audio_tokens": 170,
                "cached_tokens": 130,
                "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 70},
            },
            "output_token_details": {"text_tokens": 20, "audio_tokens": 100},
        }
    )
    assert usage.key == "sess_1/resp_1"
    assert usage.meters == {
        Meter.TEXT_IN: 40,
        Meter.TEXT_CACHED_IN: 60,
        Meter.AUDIO_IN: 100,
        Meter.AUDIO_CACHED_IN: 70,
        Meter.TEXT_OUT: 20,
        Meter.AUDIO_OUT: 100,
    }


def test_cached_tokens_without_a_split_take_the_smaller_discount() -> None:
    details = {"text_tokens": 10, "audio_tokens": 50, "cached_tokens": 30}
    meters = done({"input_tokens": 60, "output_tokens": 0, "input_token_details": details}).meters
    assert meters == {Meter.TEXT_CACHED_IN: 10, Meter.AUDIO_IN: 30, Meter.AUDIO_CACHED_IN: 20}


def test_what_the_details_do_not_explain_is_kept() -> None:
    meters = done(
        {
            "input_tokens": 50,
            "output_tokens": 40,
            "input_token_details": {"text_tokens": 10, "audio_tokens": 15},
            "output_token_details": {"text_tokens": 5, "audio_tokens": 25},
        }
    ).meters
    assert meters[Meter.UNASSIGNED_IN] == 25
    assert meters[Meter.THOUGHTS_OUT] == 10


def test_output_without_a_split_is_speech() -> None:
    assert done({"input_tokens": 0, "output_tokens": 7}).meters == {Meter.AUDIO_OUT: 7}


@pytest.mark.parametrize("status", ["cancelled", "failed", "incomplete"])
def test_what_did_not_complete_is_billed_too(status: str) -> None:
    usage = done({"output_tokens": 3}, status=status)
    assert usage.status is UsageStatus(status)
    assert usage.meters == {Meter.AUDIO_OUT: 3}


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -1},
        {"input_tokens": True},
        {"input_tokens": 1.5},
        {"input_tokens": "12"},
        {"input_tokens": 5, "input_token_details": {"text_tokens": 6}},
        {"input_tokens": 5, "input_token_details": []},
        {"input_tokens": 5, "input_token_details": {"text_tokens": 5, "cached_tokens": 9}},
        {"output_tokens": 1, "output_token_details": {"audio_tokens": 2}},
        [],
    ],
)
def test_malformed_usage_names_the_field(usage: Any) -> None:
    with pytest.raises(UsageError):
        done(usage)


def test_no_usage_is_its_own_error() -> None:
    with pytest.raises(UsageMissing):
        done(None)
    with pytest.raises(UsageError):
        done({"input_tokens": 1}, id="")
    with pytest.raises(UsageError):
        done({"input_tokens": 1}, status="exploded")


COUNT = st.integers(0, 10**6)


@given(text=COUNT, audio=COUNT, gap=COUNT, cached=st.tuples(COUNT, COUNT), out=st.tuples(COUNT, COUNT, COUNT))
def test_every_token_is_in_exactly_one_meter(
    text: int, audio: int, gap: int, cached: tuple[int, int], out: tuple[int, int, int]
) -> None:
    cached_text, cached_audio = min(cached[0], text), min(cached[1], audio)
    meters = done(
        {
            "input_tokens": text + audio + gap,
            "output_tokens": sum(out),
            "input_token_details": {
                "text_tokens": text,
                "audio_tokens": audio,
                "cached_tokens": cached_text + cached_audio,
                "cached_tokens_details": {"text_tokens": cached_text, "audio_tokens": cached_audio},
            },
            "output_token_details": {"text_tokens": out[0], "audio_tokens": out[1]},
        }
    ).meters
    assert sum(meters.get(meter, 0) for meter in INPUTS) == text + audio + gap
    assert sum(meters.get(meter, 0) for meter in OUTPUTS) == sum(out)
    assert all(count > 0 for count in meters.values())


def transcribed(usage: Any, **event: Any) -> Any:
    return usage_from_openai_transcription(
        {"item_id": "item_1", "content_index": 0, "usage": usage, **event},
        provider="main",
        model="gpt-4o-mini-transcribe",
        occurred_at=AT,
    )


def test_transcription_is_usage_of_its_own_model() -> None:
    usage = transcribed(
        {
            "type": "tokens",
            "input_tokens": 34,
            "output_tokens": 8,
            "input_token_details": {"audio_tokens": 30, "text_tokens": 1},
        }
    )
    assert (usage.key, usage.kind) == ("item_1/0", UsageKind.TRANSCRIPTION)
    assert usage.meters == {Meter.AUDIO_IN: 30, Meter.TEXT_IN: 1, Meter.UNASSIGNED_IN: 3, Meter.TEXT_OUT: 8}


def test_transcription_by_duration_rounds_up() -> None:
    assert transcribed({"type": "duration", "seconds": 3.2}).meters == {Meter.ACTIVE_SECONDS: 4}


@pytest.mark.parametrize("usage", [{"type": "duration", "seconds": -1}, {"type": "duration"}, {"output_tokens": -2}, 7])
def test_malformed_transcription(usage: Any) -> None:
    with pytest.raises(UsageError):
        transcribed(usage)
    with pytest.raises(UsageMissing):
        transcribed(None)
    with pytest.raises(UsageError):
        transcribed({}, item_id=None)
