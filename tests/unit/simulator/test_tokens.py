"""Token clocks and what a response is billed."""

from __future__ import annotations

import pytest
from talktime_simulator.tokens import (
    Tokens,
    TranscriptionUsage,
    Usage,
    assistant_audio_tokens,
    text_tokens,
    user_audio_tokens,
)


@pytest.mark.parametrize(("ms", "tokens"), [(0, 0), (1, 1), (100, 1), (101, 2), (1000, 10), (60_000, 600)])
def test_user_audio_is_ten_tokens_a_second(ms: float, tokens: int) -> None:
    assert user_audio_tokens(ms) == tokens


@pytest.mark.parametrize(("ms", "tokens"), [(0, 0), (50, 1), (1000, 20), (1001, 21), (60_000, 1200)])
def test_assistant_audio_is_twenty_tokens_a_second(ms: float, tokens: int) -> None:
    assert assistant_audio_tokens(ms) == tokens


def test_text_is_four_characters_a_token() -> None:
    assert [text_tokens(text) for text in ("", "a", "abcd", "abcde")] == [0, 1, 1, 2]


def test_wire_details_include_the_cached_part_and_meters_do_not() -> None:
    usage = Usage(prompt=Tokens(200, 300), cached=Tokens(128, 192), output=Tokens(10, 90))
    wire = usage.wire()
    assert wire["input_token_details"]["text_tokens"] == 200
    assert wire["input_token_details"]["cached_tokens"] == 320
    assert (wire["input_tokens"], wire["output_tokens"], wire["total_tokens"]) == (500, 100, 600)
    assert usage.meters() == {
        "text_in": 72,
        "text_cached_in": 128,
        "audio_in": 108,
        "audio_cached_in": 192,
        "text_out": 10,
        "audio_out": 90,
    }
    assert sum(usage.meters().values()) == wire["total_tokens"]


def test_transcription_is_billed_by_tokens_and_whisper_by_the_second() -> None:
    tokens = TranscriptionUsage.of("gpt-4o-mini-transcribe", 4000, "", "twelve chars")
    assert tokens.meters() == {"audio_in": 40, "text_in": 0, "text_out": 3}
    assert tokens.wire()["total_tokens"] == 43
    whisper = TranscriptionUsage.of("whisper-1", 4000, "", "anything")
    assert whisper.meters() == {"active_seconds": 4.0}
    assert whisper.wire() == {"type": "duration", "seconds": 4.0}
