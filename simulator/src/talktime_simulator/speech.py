"""Speech as PCM16 mono 24 kHz: espeak-ng where it is installed, else a bundled generator of speech-like sound."""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import shutil
import tempfile
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 24_000
LOUDNESS = 0.1
"""RMS of full scale (-20 dBFS) of every rendered sentence."""

log = logging.getLogger(__name__)


class Voice:
    """Renders sentences once; rendered ones come from memory or from `cache` (a directory)."""

    def __init__(self, name: str = "en-us+f3", words_per_minute: int = 165, cache: Path | None = None) -> None:
        self._name = name
        self._speed = words_per_minute
        self._program = shutil.which("espeak-ng")
        self._cache = cache or Path(tempfile.gettempdir()) / "talktime-speech"
        self._rendered: dict[str, bytes] = {}
        self._turn = asyncio.Lock()
        if self._program is None:
            log.warning("espeak-ng is not installed: speech is a generated tone")

    async def render(self, text: str) -> bytes:
        """PCM of `text`; never silent, never empty."""
        known = self._rendered.get(text)
        if known is not None:
            return known
        async with self._turn:
            if text not in self._rendered:
                self._rendered[text] = await self._from_cache_or_new(text)
        return self._rendered[text]

    async def _from_cache_or_new(self, text: str) -> bytes:
        key = hashlib.sha256(f"{self._program}|{self._name}|{self._speed}|{text}".encode()).hexdigest()
        file = self._cache / f"{key}.pcm"
        try:
            return await asyncio.to_thread(file.read_bytes)
        except OSError:
            pcm = await self._new(text)
        try:
            await asyncio.to_thread(_write, file, pcm)
        except OSError as error:
            log.debug("speech is not kept: %s", error)
        return pcm

    async def _new(self, text: str) -> bytes:
        if self._program is None:
            return tone_speech(text, self._speed)
        process = await asyncio.create_subprocess_exec(
            self._program, "-v", self._name, "-s", str(self._speed), "--stdout", "--stdin",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate(text.encode())
        if process.returncode or len(out) <= 44:
            log.error("espeak-ng failed (%s): %s", process.returncode, err.decode(errors="replace").strip())
            return tone_speech(text, self._speed)
        return await asyncio.to_thread(pcm_of_wav, out)


def pcm_of_wav(data: bytes) -> bytes:
    """A 16-bit mono WAV stream (sizes in the header may be wrong, it came through a pipe) at our rate and loudness."""
    with wave.open(io.BytesIO(data)) as source:
        rate = source.getframerate()
    body = data[data.index(b"data") + 8 :]
    samples = np.frombuffer(body[: len(body) // 2 * 2], dtype="<i2").astype(np.float64) / 32768
    wanted = np.arange(int(len(samples) * SAMPLE_RATE / rate)) * (rate / SAMPLE_RATE)
    return _level(np.interp(wanted, np.arange(len(samples)), samples))


def tone_speech(text: str, words_per_minute: int = 165) -> bytes:
    """Sound with the rhythm of speech (a syllable is a swelling harmonic tone), as long as `text` takes to say."""
    words = text.split() or ["hm"]
    syllable = 60 / words_per_minute / 2
    pieces: list[NDArray[np.float64]] = []
    for number, word in enumerate(words):
        for part in range(max(1, min(4, round(len(word) / 3)))):
            length = int(SAMPLE_RATE * syllable * 0.8)
            time = np.arange(length) / SAMPLE_RATE
            pitch = 120 + 25 * ((number * 7 + part * 3) % 5)
            tone = sum((np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3, 5, 8)), np.zeros(length))
            pieces.append(tone * np.sin(np.pi * np.arange(length) / length))
        pieces.append(np.zeros(int(SAMPLE_RATE * (0.25 if word[-1] in ".?!" else 0.05))))
    return _level(np.concatenate(pieces))


def _level(samples: NDArray[np.float64]) -> bytes:
    power = float(np.sqrt(np.mean(samples * samples))) or 1.0
    return bytes((np.clip(samples * (LOUDNESS / power), -0.99, 0.99) * 32767).astype("<i2").tobytes())


def _write(file: Path, pcm: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{id(pcm)}.part")
    part.write_bytes(pcm)
    part.replace(file)
