"""Turn taking, the token endpoint's waits, and the recording's clock."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest
from talktime_simulator.participants.answers import answer
from talktime_simulator.participants.door import claims_of, retry_after
from talktime_simulator.participants.recording import RATE, Recording
from talktime_simulator.participants.turns import Hearing, Move


def listen(hearing: Hearing, pattern: list[tuple[float, bool]]) -> list[float]:
    """Plays (seconds, loud) in 0.1 s frames from t=0; returns when it wanted to speak."""
    moves, now = [], 0.0
    for seconds, loud in pattern:
        for _ in range(round(seconds * 10)):
            now = round(now + 0.1, 1)
            hearing.hear(now, loud, 0.1)
            if hearing.move(now) is Move.SPEAK:
                moves.append(now)
                hearing.spoke(now)
    return moves


def test_it_speaks_after_the_agent_has_finished() -> None:
    hearing = Hearing()
    assert listen(hearing, [(1, False), (3, True), (2, False)]) == [4.9]
    assert hearing.agent_turns == 1
    assert hearing.agent_seconds == pytest.approx(3)


def test_a_pause_between_two_sentences_is_no_end() -> None:
    assert listen(Hearing(), [(2, True), (0.5, False), (2, True), (1, False)]) == [5.4]


def test_a_click_is_no_turn() -> None:
    assert listen(Hearing(), [(0.2, True), (3, False)]) == []


def test_a_silent_agent_is_spoken_to_again() -> None:
    hearing = Hearing(patience=5)
    assert listen(hearing, [(11, False)]) == [5.0, 10.0]
    assert hearing.unanswered == 2


def test_every_turn_of_a_person_is_another_sentence() -> None:
    assert len({answer(turn, 3) for turn in range(10)}) == 10
    assert answer(0, 0) != answer(0, 1)


def test_retry_after_is_heeded_and_bad_ones_are_survived() -> None:
    assert [retry_after(header) for header in ("3", None, "soon", "0")] == [3.0, 1.0, 1.0, 0.2]


def test_claims_are_read_without_the_key() -> None:
    assert claims_of("x.eyJ2aWRlbyI6IHsicm9vbSI6ICJyMSJ9fQ.y") == {"video": {"room": "r1"}}


def test_a_gap_becomes_silence_so_that_samples_stay_on_the_clock(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "a.wav", started=100.0)
    frame = b"\1\0" * (RATE // 10)
    recording.write(100.1, frame)
    recording.write(102.1, frame)
    recording.write(102.25, frame)
    recording.close()
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getnframes() / RATE == pytest.approx(2.2, abs=0.001)
        pcm = file.readframes(file.getnframes())
    assert pcm[48_000:48_002] == b"\0\0"
    assert pcm[-2:] == b"\1\0"
