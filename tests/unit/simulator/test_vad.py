"""Voice activity from PCM energy, on the audio's own clock."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from talktime_simulator.speech import tone_speech
from talktime_simulator.vad import EnergyVad, SpeechStarted, SpeechStopped, TurnDetection


def tone(ms: int, dbfs: float = -20) -> bytes:
    time = np.arange(24 * ms)
    return bytes((np.sin(time / 20) * 32768 * 10 ** (dbfs / 20) * 2**0.5).astype("<i2").tobytes())


def silence(ms: int) -> bytes:
    return bytes(48 * ms)


def test_a_turn_is_told_with_padding_and_with_the_silence_that_ended_it() -> None:
    vad = EnergyVad(TurnDetection())
    events = vad.feed(silence(1000) + tone(2000) + silence(1000))
    assert events == [SpeechStarted(700), SpeechStopped(700, 3500)]


def test_padding_never_reaches_back_into_the_last_turn() -> None:
    vad = EnergyVad(TurnDetection(prefix_padding_ms=300, silence_duration_ms=200))
    events = vad.feed(tone(1000) + silence(200) + tone(1000) + silence(200))
    assert events == [SpeechStarted(0), SpeechStopped(0, 1200), SpeechStarted(1200), SpeechStopped(1200, 2400)]


def test_a_click_and_a_murmur_are_no_speech() -> None:
    assert EnergyVad(TurnDetection()).feed(tone(40) + silence(1000) + tone(1000, dbfs=-55) + silence(1000)) == []


def test_the_threshold_moves_the_level() -> None:
    quiet = tone(500, dbfs=-45) + silence(1000)
    assert EnergyVad(TurnDetection(threshold=0.5)).feed(quiet) == []
    assert len(EnergyVad(TurnDetection(threshold=0.2)).feed(quiet)) == 2


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=40))
def test_how_the_audio_is_cut_does_not_matter(cuts: list[int]) -> None:
    audio = silence(400) + tone(600) + silence(800)
    whole = EnergyVad(TurnDetection()).feed(audio)
    vad, pieces, at = EnergyVad(TurnDetection()), [], 0
    for length in [*cuts, len(audio)]:
        pieces += vad.feed(audio[at : at + length])
        at += length
    assert pieces == whole


def test_the_bundled_speech_is_heard_as_speech() -> None:
    text = "Nobody installed a speech synthesizer here, and still there is something to hear."
    events = EnergyVad(TurnDetection()).feed(tone_speech(text) + silence(1000))
    assert isinstance(events[0], SpeechStarted)
    assert isinstance(events[-1], SpeechStopped)
    assert 2000 < events[-1].audio_end_ms < 12_000


def test_without_detection_only_the_clock_moves() -> None:
    vad = EnergyVad(TurnDetection())
    assert vad.feed(tone(1000), detect=False) == []
    assert vad.buffered_ms == 1000
