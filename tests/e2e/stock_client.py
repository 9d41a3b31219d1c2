"""What any LiveKit client does: asks the token endpoint, joins, speaks for a while, and listens. Nothing of ours in it.

argv: token endpoint, seconds to stay. Environment: KEY. Last line: JSON {"room", "loud_seconds", "identities"}.
"""

import asyncio
import json
import math
import os
import sys
import urllib.request

from livekit import rtc

RATE = 48000
FRAME = RATE // 50


def token(endpoint: str, key: str) -> dict[str, str]:
    request = urllib.request.Request(
        endpoint, data=b"{}", headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201, answer.status
        return dict(json.loads(answer.read()))


async def listen(track: rtc.Track, loud: list[int]) -> None:
    async for event in rtc.AudioStream(track):
        samples = memoryview(event.frame.data).cast("B").cast("h")
        if max(samples, default=0) > 1000:
            loud.append(event.frame.samples_per_channel * 1000 // event.frame.sample_rate)


async def speak(source: rtc.AudioSource, seconds: float) -> None:
    """A vowel-like hum of 2 s, then 6 s of silence, again and again: enough for a voice detector."""
    for number in range(int(seconds * 50)):
        silent = number % 400 >= 100
        samples = bytearray()
        for i in range(FRAME):
            at = (number * FRAME + i) / RATE
            wave = sum(math.sin(2 * math.pi * 140 * k * at) / k for k in (1, 2, 3, 4, 5))
            value = 0 if silent else int(7000 * wave * (0.6 + 0.4 * math.sin(2 * math.pi * 4 * at)))
            samples += max(-32768, min(32767, value)).to_bytes(2, "little", signed=True)
        await source.capture_frame(rtc.AudioFrame(bytes(samples), RATE, 1, FRAME))


async def main(endpoint: str, seconds: float) -> None:
    given = token(endpoint, os.environ["KEY"])
    room = rtc.Room()
    loud: list[int] = []
    tasks: list[asyncio.Task[None]] = []

    @room.on("track_subscribed")
    def subscribed(track: rtc.Track, *_: object) -> None:
        tasks.append(asyncio.create_task(listen(track, loud)))

    await room.connect(given["server_url"], given["participant_token"])
    source = rtc.AudioSource(RATE, 1)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    await room.local_participant.publish_track(track, options)
    await speak(source, seconds)
    identities = sorted(room.remote_participants)
    await room.disconnect()
    print(json.dumps({"room": room.name, "loud_seconds": sum(loud) / 1000, "identities": identities}), flush=True)


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
# livekit's native threads still run, and now and then one aborts the process while the interpreter is torn down.
os._exit(0)
