"""Guests of interviews, in the network of a node, as a program: told what to do on stdin, tells what happens on stdout.

argv: token endpoint. Environment: KEY. Commands, one JSON object per line: {"do": "come", "who": "a"},
{"do": "leave"} (all) or {"do": "leave", "who": ["a"]}.
Each event is a line {"at": unix seconds, "who", "what", ...}: `token` session server_url; `joined` server_url; `agents`
count names (in the room now); `heard` (an agent's words begin); `turn` number (the guest's own turns, begun);
`reconnecting`, `reconnected`; `back` (into the same LiveKit, as the front door said), `moved` (to another one), both
with server_url session; `refused` status; `ended`; `leaving` (told to hang up), `left`.

They go on elsewhere by the client helper that platforms get (clients/talktime_resume.py), and do nothing else for it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import numpy as np
from livekit import rtc
from talktime_simulator.participants.answers import answer
from talktime_simulator.participants.turns import SPEECH_LEVEL, Hearing, Move
from talktime_simulator.participants.voice_track import Microphone
from talktime_simulator.speech import Voice

HELPER = Path(__file__).parents[2] / "clients" / "talktime_resume.py"
RATE, FRAME_MS = 24_000, 100
SILENCE_SECONDS = 0.7
"""Words after so much silence are a new beginning."""
QUIET_FIRST_SECONDS, QUIET_ELSEWHERE_SECONDS, QUIET_HERE_SECONDS = 40.0, 15.0, 1.0
ATTEMPTS = 10
AGENT = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT


def helper() -> ModuleType:
    """The client helper: one file, not a package."""
    spec = importlib.util.spec_from_file_location("talktime_resume", HELPER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


RESUME = helper()


class Guest:
    """One guest in one interview."""

    def __init__(self, who: str, url: str, key: str) -> None:
        self._who = who
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self._voice = Voice("en-gb+m3", 200)
        self._microphone = Microphone()
        self._hearing = Hearing()
        self._turns = 0
        self._loud_at = 0.0
        self._server = ""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._entering: asyncio.Future[None] | None = None
        self._keeper = RESUME.Keeper(self._new_room, url, self._headers, on_moved=self._moved)

    def tell(self, what: str, **more: Any) -> None:
        print(json.dumps({"at": time.time(), "who": self._who, "what": what, **more}), flush=True)

    async def come(self) -> None:
        """Asks for an interview, joins it and talks from then on."""
        entry = await self._ask()
        if entry is None:
            return
        url, token = entry["server_url"], entry["participant_token"]
        self.tell("token", session=RESUME.room_of(token), server_url=url)
        self._entering = asyncio.ensure_future(self._keeper.connect(url, token))
        await self._entering
        self._server = str(self._keeper.room._server_url)
        self.tell("joined", server_url=self._server)
        await self._settle(self._keeper.room, QUIET_FIRST_SECONDS)
        await self._keeper.ended
        self.tell("ended")

    async def _ask(self) -> dict[str, str] | None:
        """A front door that dies while it is asked is asked again, as any platform's backend would."""
        for _ in range(ATTEMPTS):
            try:
                async with (
                    aiohttp.ClientSession() as http,
                    http.post(self._url, json={}, headers=self._headers) as given,
                ):
                    if given.status == 201:
                        return dict(await given.json())
                    self.tell("refused", status=given.status, text=(await given.text())[:300])
                    return None
            except aiohttp.ClientError:
                await asyncio.sleep(0.5)
        self.tell("refused", status=0)
        return None

    async def leave(self) -> None:
        if self._entering is not None:
            # Who hangs up before they were in a room shall not enter it afterwards.
            self._entering.cancel()
        await self._unsettle()
        await self._keeper.stop()
        self.tell("left", turns=self._turns, agent_turns=self._hearing.agent_turns)

    # -- the connection ------------------------------------------------------------------------------------------------

    def _new_room(self) -> rtc.Room:
        room = rtc.Room()
        room.on("participant_connected", lambda *_: self._count(room))
        room.on("participant_disconnected", lambda *_: self._count(room))
        room.on("track_subscribed", lambda track, *_: self._listen_to(room, track))
        room.on("reconnecting", lambda *_: self.tell("reconnecting"))
        room.on("reconnected", lambda *_: self.tell("reconnected"))
        return room

    def _count(self, room: rtc.Room) -> None:
        # A room that was left still tells what its server says late.
        if self._keeper.room is room:
            names = sorted(one.identity for one in room.remote_participants.values() if one.kind == AGENT)
            self.tell("agents", count=len(names), names=names)

    async def _moved(self, room: rtc.Room) -> None:
        before, self._server = self._server, str(room._server_url)
        elsewhere = before != self._server
        self.tell("moved" if elsewhere else "back", server_url=self._server, session=room.name)
        await self._unsettle()
        # A new agent speaks first; the same one may be waiting for us.
        await self._settle(room, QUIET_ELSEWHERE_SECONDS if elsewhere else QUIET_HERE_SECONDS)

    async def _settle(self, room: rtc.Room, quiet: float) -> None:
        """`quiet`: seconds without a word until the guest says something."""
        self._count(room)
        self._microphone, self._hearing = Microphone(), Hearing()
        self._hearing.waiting_since = time.time() + quiet - self._hearing.patience
        await self._microphone.publish(room)
        self._keep(self._converse())

    async def _unsettle(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._microphone.aclose()

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the talk ------------------------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        while True:
            await asyncio.sleep(FRAME_MS / 1000)
            if self._hearing.move(time.time()) is Move.SPEAK:
                self._turns += 1
                self.tell("turn", number=self._turns)
                await self._microphone.say(await self._voice.render(answer(self._turns, 1)))
                self._hearing.spoke(time.time())

    def _listen_to(self, room: rtc.Room, track: rtc.Track) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            # Not among the tasks of one stay: a track may come before the stay has begun.
            self._listening = asyncio.ensure_future(self._listen(room, track))

    async def _listen(self, room: rtc.Room, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=FRAME_MS)
        try:
            async for event in stream:
                if self._keeper.room is not room:
                    continue
                samples = np.frombuffer(event.frame.data, dtype=np.int16)
                loud = float(np.linalg.norm(samples.astype(np.float32))) >= SPEECH_LEVEL * len(samples) ** 0.5
                now = time.time()
                self._hearing.hear(now, loud, len(samples) / RATE)
                if loud and now - self._loud_at > SILENCE_SECONDS:
                    self.tell("heard")
                self._loud_at = now if loud else self._loud_at
        finally:
            await stream.aclose()


async def main(url: str, key: str) -> None:
    """Until stdin ends."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    guests: dict[str, Guest] = {}
    coming: set[asyncio.Future[None]] = set()

    def came(who: str, done: asyncio.Future[None]) -> None:
        coming.discard(done)
        if not done.cancelled() and (error := done.exception()) is not None:
            guests[who].tell("failed", error=f"{type(error).__name__}: {error}")

    while line := await lines.readline():
        order = json.loads(line)
        if order["do"] == "come":
            guest = guests[order["who"]] = Guest(order["who"], url, key)
            task = asyncio.ensure_future(guest.come())
            coming.add(task)
            task.add_done_callback(partial(came, order["who"]))
        else:
            leaving = [guests.pop(who) for who in order.get("who") or list(guests)]
            for one in leaving:
                one.tell("leaving")
            await asyncio.gather(*(one.leave() for one in leaving), return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], os.environ["KEY"]))
