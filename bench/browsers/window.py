"""A real Chromium that shows the page, with a voice for its microphone; keeps what the page tells."""

from __future__ import annotations

import asyncio
import json
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web
from talktime_simulator.speech import Voice

from bench.meters.room import running

PAGE = Path(__file__).with_name("page.html")
HELPER = Path(__file__).parents[2] / "clients" / "talktime-resume.mjs"
RATE = 24_000
SENTENCE = "I sort the returned books first, and after that I answer the letters of the readers."
PAUSE_SECONDS = 16
"""The microphone says the sentence again and again, with time for an answer, also for one after a move."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root in a container; it loads nothing but our own page
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    # Our servers are on loopback, whose addresses a page is told by name only.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--allow-loopback-in-peer-connection",
)


class Window:
    """What the page has told, newest last; `leaves`: it is told to hang up."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.leaves = False
        self._news = asyncio.Event()

    def hear(self, event: dict[str, Any]) -> None:
        self.told.append(event)
        self._news.set()

    async def until(
        self, what: str, condition: Callable[[dict[str, Any]], bool], seconds: float, since: float = 0.0
    ) -> dict[str, Any]:
        """The first event at or after `since` (unix seconds) for which that is so. AssertionError when none comes, or
        the page fails before."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            self._news.clear()
            events = [event for event in self.told if event["at"] >= since]
            for event in events:
                assert event["what"] != "failed", f"the page failed: {event['error']}"
                if condition(event):
                    return event
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                raise AssertionError(f"not within {seconds:.0f} s: {what}; told: {events[-5:]}") from None


async def microphone(voice: Voice, file: Path) -> Path:
    """The sentence and a pause, for a browser to say."""
    pcm = await voice.render(SENTENCE)
    with wave.open(str(file), "wb") as sink:
        sink.setnchannels(1)
        sink.setsampwidth(2)
        sink.setframerate(RATE)
        sink.writeframes(pcm + bytes(2 * RATE * PAUSE_SECONDS))
    return file


@asynccontextmanager
async def window(program: str, livekit_client: Path, front: str, sound: Path, home: Path) -> AsyncIterator[Window]:
    """`front`: where the page asks for a token, with its ticket."""
    shown = Window()

    async def told(request: web.Request) -> web.Response:
        shown.hear(json.loads(await request.text()))
        return web.json_response({"leave": shown.leaves})

    def file(path: Path) -> Callable[[web.Request], Any]:
        async def serve(_: web.Request) -> web.FileResponse:
            return web.FileResponse(path)

        return serve

    app = web.Application()
    app.router.add_get("/", file(PAGE))
    app.router.add_get("/livekit-client.mjs", file(livekit_client))
    app.router.add_get("/talktime-resume.mjs", file(HELPER))
    app.router.add_post("/told", told)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = runner.addresses[0]
        url = f"http://127.0.0.1:{address[1]}/?front={quote(front, safe='')}"
        capture = f"--use-file-for-fake-audio-capture={sound}"
        profile = f"--user-data-dir={home / 'profile'}"
        async with running(home / "browser.log", None, program, *FLAGS, capture, profile, url):
            yield shown
    finally:
        await runner.cleanup()
