"""The goodbye as a clip: rendered once per model, voice and text, kept by the ledger, played when the money is spent.

s16le, 24 kHz, mono. A clip costs nothing at the moment it is needed and plays even when the provider is gone.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import hashlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable

from livekit import rtc
from livekit.agents import llm
from talktime_ledger.client import LedgerError

from talktime_agent.ports import LedgerPort

logger = logging.getLogger("talktime.agent.clip")

RATE = 24_000
BYTES_PER_SECOND = RATE * 2
# The goodbye ends at most this long after its first audio.
MOST_SECONDS = 5.0
FADE_SECONDS = 0.15
LEAST_SECONDS = 0.5
# Quieter than this is not speech (about -46 dBFS).
LEAST_RMS = 160
RENDER_SECONDS = 30.0
FRAME_SECONDS = 0.05


def clip_key(model: str, voice: str, text: str) -> str:
    """Name of a clip at the ledger: the same words in the same voice are rendered once."""
    return hashlib.sha256("\n".join((model, voice, text)).encode()).hexdigest()


def closing_prompt(text: str) -> str:
    """Asks a model to say the closing line and nothing else. Under `CLOSING_PROMPT_BYTES` beside the line itself."""
    line = text.replace('"', "'")
    return f'Say exactly the following sentence, word for word, calmly and kindly, and nothing else: "{line}"'


def usable(pcm: bytes) -> bool:
    """Whether this can be played as a goodbye: long enough, and not silence."""
    if len(pcm) < LEAST_SECONDS * BYTES_PER_SECOND:
        return False
    samples = _samples(pcm)
    return math.sqrt(sum(sample * sample for sample in samples[::8]) / len(samples[::8])) >= LEAST_RMS


def shortened(pcm: bytes, most_seconds: float = MOST_SECONDS) -> bytes:
    """At most so long; what is cut fades out."""
    most = int(most_seconds * RATE)
    samples = _samples(pcm)
    if len(samples) <= most:
        return samples.tobytes()
    samples = samples[:most]
    fade = int(FADE_SECONDS * RATE)
    for index in range(fade):
        samples[most - fade + index] = samples[most - fade + index] * (fade - index) // fade
    return samples.tobytes()


async def frames(pcm: bytes) -> AsyncIterator[rtc.AudioFrame]:
    """The clip as audio frames."""
    step = int(RATE * FRAME_SECONDS) * 2
    for start in range(0, len(pcm), step):
        part = pcm[start : start + step]
        yield rtc.AudioFrame(data=part, sample_rate=RATE, num_channels=1, samples_per_channel=len(part) // 2)


async def obtain(
    ledger: LedgerPort, namespace: str, name: str, key: str, render: Callable[[], Awaitable[bytes | None]]
) -> bytes | None:
    """The clip: the ledger's, else rendered now and kept there. None when neither can be had."""
    try:
        kept = await ledger.clip(namespace, name, key)
    except LedgerError as error:
        logger.warning("the closing clip could not be fetched", extra={"why": str(error)})
        kept = None
    if kept is not None and usable(kept):
        return kept
    rendered = await render()
    if rendered is None or not usable(rendered):
        return None
    try:
        await ledger.put_clip(namespace, name, key, rendered)
    except LedgerError as error:
        logger.warning("the closing clip could not be kept", extra={"why": str(error)})
    return rendered


async def render(model: llm.RealtimeModel, prompt: str, quiet: Callable[[float], Awaitable[bool]]) -> bytes | None:
    """Renders by one capped response on a connection of its own; its usage goes through the model's listener.

    ``quiet(seconds)`` waits until that response's usage has come. None when the provider did not deliver.
    """
    session = model.session()
    audio = bytearray()
    try:
        async with asyncio.timeout(RENDER_SECONDS):
            generation = await session.generate_reply(instructions=prompt)
            async for message in generation.message_stream:
                async for frame in message.audio_stream:
                    audio += bytes(frame.data)
    except (TimeoutError, llm.RealtimeError) as error:
        logger.warning("the closing clip was not rendered", extra={"why": str(error)})
        return None
    finally:
        await quiet(10.0)
        # A session that the provider has refused says so once more when it is closed.
        with contextlib.suppress(Exception):
            await session.aclose()
        await model.aclose()
    return bytes(audio)


def _samples(pcm: bytes) -> array.array[int]:
    samples = array.array("h")
    samples.frombytes(pcm[: len(pcm) // 2 * 2])
    return samples
