"""Speech that is never silent, with a synthesizer or without."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest
from talktime_simulator.speech import LOUDNESS, SAMPLE_RATE, Voice, tone_speech

TEXT = "Could you tell me a little about yourself?"


def loudness(pcm: bytes) -> float:
    return float(np.sqrt(np.mean((np.frombuffer(pcm, "<i2") / 32768) ** 2)))


@pytest.mark.parametrize("installed", [True, False])
async def test_a_sentence_takes_its_time_and_is_loud_enough(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:
        monkeypatch.setattr(shutil, "which", lambda _: None)
    pcm = await Voice(cache=tmp_path).render(TEXT)
    assert 1.5 < len(pcm) / 2 / SAMPLE_RATE < 6
    assert loudness(pcm) == pytest.approx(LOUDNESS, rel=0.2)


def test_a_sentence_is_rendered_once_and_kept(tmp_path: Path) -> None:
    first = asyncio.run(Voice(cache=tmp_path).render(TEXT))
    (kept,) = tmp_path.glob("*.pcm")
    assert kept.read_bytes() == first
    kept.write_bytes(b"kept")
    assert asyncio.run(Voice(cache=tmp_path).render(TEXT)) == b"kept"


async def test_a_read_only_disk_is_no_reason_to_be_silent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert await Voice(cache=tmp_path / "file" / "below").render(TEXT)


@pytest.mark.parametrize("text", ["", "?", "a" * 300])
def test_any_text_makes_a_sound(text: str) -> None:
    assert loudness(tone_speech(text)) > 0.05
