"""The participant's microphone: one published track that carries speech or silence, always."""

from __future__ import annotations

import asyncio

from livekit import rtc

RATE = 24_000
FRAME_SAMPLES = RATE // 10
FRAME_BYTES = FRAME_SAMPLES * 2
SILENCE = bytes(FRAME_BYTES)


class Microphone:
    """Sends 100 ms frames without a break: a provider can only hear the end of a turn in the silence after it."""

    def __init__(self) -> None:
        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=400)
        self._pending = b""
        self._spoken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def publish(self, room: rtc.Room) -> None:
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)
        self._task = asyncio.create_task(self._send())

    async def say(self, pcm: bytes) -> None:
        """Returns when `pcm` has left the queue."""
        self._spoken.clear()
        self._pending = pcm
        await self._spoken.wait()

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._source.aclose()

    async def _send(self) -> None:
        while True:
            speech, self._pending = self._pending[:FRAME_BYTES], self._pending[FRAME_BYTES:]
            data = speech + bytes(FRAME_BYTES - len(speech)) if speech else SILENCE
            await self._source.capture_frame(rtc.AudioFrame(data, RATE, 1, FRAME_SAMPLES))
            if not self._pending and not self._spoken.is_set():
                self._spoken.set()
