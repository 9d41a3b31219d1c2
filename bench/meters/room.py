"""Sessions over WebRTC: livekit-server, the agent worker as its own process, synthetic participants in real time.

At most three at once, under the lock that all real sessions of this machine take turns by.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from livekit import api
from talktime_ledger.resources.project import agent_name
from talktime_ledger.wire import SessionOpen
from talktime_simulator.participants.door import Entry, claims_of
from talktime_simulator.participants.person import Person, Plan
from talktime_simulator.speech import Voice

from bench.enforcers.database import free_port
from bench.meters import study
from bench.meters.plans import Vendor
from bench.meters.stage import Books, Simulator, simulator
from bench.meters.truth import Outcome, Rates, compare

LOCK = Path(tempfile.gettempdir()) / "talktime-real-sessions.lock"
AT_ONCE = 3
# A job holds its place until its process is gone, which livekit-server hears up to 2.5 s later; a worker with as many
# places as sessions would be full for the session that follows at once, and open-source LiveKit does not ask again.
PLACES = 2 * AT_ONCE
REDISPATCH_SECONDS = 15.0
PROJECT = "webrtc"
AGENT = agent_name(study.NAMESPACE, PROJECT)
KEY, SECRET = "bench", "a-secret-of-thirty-two-characters-or-more"
START_SECONDS = 180.0
CLOSE_SECONDS = 60.0
SERVER = Path(__file__).resolve().parents[2] / ".state" / "bin" / "livekit-server"
TURNS = 3


@contextmanager
def only_ours() -> Iterator[None]:
    """Waits until nobody else on this machine holds real sessions."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, slots=True)
class Rooms:
    """The SFU and what talks to its API. `udp`: its media port; `metrics`: address of its own metrics."""

    url: str
    livekit: api.LiveKitAPI
    process: asyncio.subprocess.Process
    udp: int
    metrics: str

    async def make(self, session_id: str) -> None:
        """The gateway's part: the room, with the agent's dispatch in it."""
        dispatch = api.RoomAgentDispatch(agent_name=AGENT, metadata=_told(session_id))
        await self.livekit.room.create_room(
            api.CreateRoomRequest(name=session_id, empty_timeout=60, departure_timeout=60, agents=[dispatch])
        )

    async def staffed(self, session_id: str, attached: Callable[[], Awaitable[bool]]) -> None:
        """The gateway's part, too: asks again for an agent until one has come."""
        while True:
            await asyncio.sleep(REDISPATCH_SECONDS)
            if await attached():
                return
            print(f"WebRTC: {session_id} is dispatched again", file=sys.stderr, flush=True)
            for one in await self.livekit.agent_dispatch.list_dispatch(session_id):
                await self.livekit.agent_dispatch.delete_dispatch(one.id, session_id)
            request = api.CreateAgentDispatchRequest(agent_name=AGENT, room=session_id, metadata=_told(session_id))
            await self.livekit.agent_dispatch.create_dispatch(request)

    def entry(self, session_id: str) -> Entry:
        """The participant's token."""
        grants = api.VideoGrants(
            room_join=True, room=session_id, can_publish=True, can_subscribe=True, can_publish_data=False
        )
        token = api.AccessToken(KEY, SECRET).with_identity("participant-1").with_grants(grants).to_jwt()
        return Entry(self.url, token, claims_of(token), 0.0)


async def held(book: Books, home: Path, per_vendor: int, rates: Rates) -> tuple[list[dict[str, Any]], Outcome]:
    """Their truth and how the books compare with it."""
    vendors: tuple[Vendor, ...] = ("openai", "google")
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(simulator(home, PROJECT))
        await book.operator.put_project(study.NAMESPACE, PROJECT, study.push(provider.endpoints))
        rooms = await stack.enter_async_context(livekit(home))
        await stack.enter_async_context(worker(book, provider, rooms, home))
        print("WebRTC: waiting for the machine's other real sessions", file=sys.stderr, flush=True)
        await asyncio.to_thread(stack.enter_context, only_ours())
        print("WebRTC: begins", file=sys.stderr, flush=True)
        turn, voice = asyncio.Semaphore(AT_ONCE), Voice("en-gb+m3", 150, home / "speech")

        async def one(number: int, vendor: Vendor) -> str:
            async with turn:
                return await _session(book, rooms, home, Person(number, _plan(home), voice), vendor)

        ended = await asyncio.gather(
            *(one(n, vendor) for n in range(per_vendor) for vendor in vendors), return_exceptions=True
        )
        failed = [text for text in ended if isinstance(text, BaseException)]
        sessions = [text for text in ended if isinstance(text, str)]
        if failed:
            print((home / "worker.log").read_text(encoding="utf-8")[-6000:], file=sys.stderr)
        idle = await provider.idle()
        assert idle, "WebRTC: a provider's socket stays open"
        truth = await provider.truth()
        outcome = compare(truth, await book.kept(sessions), rates, died=False)
        outcome.problems += [f"WebRTC: {error}" for error in failed]
        return truth, outcome


def _told(session_id: str) -> str:
    return json.dumps({"session": session_id, "epoch": 1})


def _plan(home: Path) -> Plan:
    return Plan(turns=TURNS, min_seconds=20, stay=False, max_seconds=150, first_audio_seconds=60, out=home)


async def _session(book: Books, rooms: Rooms, home: Path, person: Person, vendor: Vendor) -> str:
    session_id = str(uuid4())
    await book.gateway.open_session(
        SessionOpen.model_validate(
            {
                "session_id": session_id,
                "namespace": study.NAMESPACE,
                "project": PROJECT,
                "provider": study.provider_name(vendor, brief=False),
                "observers": [f"observer-{number}" for number in range(1, 9)],
            }
        )
    )
    await rooms.make(session_id)

    async def attached() -> bool:
        return (await book.gateway.session(session_id)).attached_at is not None

    staffing = asyncio.create_task(rooms.staffed(session_id, attached))
    try:
        await person.take_part(rooms.entry(session_id))
    finally:
        staffing.cancel()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            while (await book.gateway.session(session_id)).state == "open":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.3)
    except TimeoutError as error:
        told = await book.gateway.session(session_id)
        raise AssertionError(
            f"{vendor} {session_id} is still open: attached {told.attached_at}, {person.turns} turns"
        ) from error
    assert person.turns >= TURNS, f"{vendor} over WebRTC: {person.turns} turns"
    print(f"{vendor} over WebRTC: {person.turns} turns", file=sys.stderr, flush=True)
    return session_id


@asynccontextmanager
async def livekit(home: Path, name: str = "livekit") -> AsyncIterator[Rooms]:
    """A livekit-server on loopback; `name` of its log."""
    port, udp, metrics = free_port(), free_port(), free_port()
    config = {
        "port": port,
        "prometheus_port": metrics,
        "bind_addresses": ["127.0.0.1"],
        "keys": {KEY: SECRET},
        "rtc": {
            "udp_port": udp,
            "tcp_port": 0,
            "node_ip": "127.0.0.1",
            "ips": {"includes": ["127.0.0.1/32"]},
            "use_external_ip": False,
            "enable_loopback_candidate": True,
        },
        "logging": {"level": "warn"},
    }
    program = shutil.which("livekit-server") or str(SERVER)
    url = f"http://127.0.0.1:{port}"
    async with (
        running(home / f"{name}.log", os.environ, program, "--config-body", json.dumps(config)) as process,
        api.LiveKitAPI(url, KEY, SECRET) as rooms,
    ):
        await answers(url, process, home / f"{name}.log")
        yield Rooms(url, rooms, process, udp, f"http://127.0.0.1:{metrics}/metrics")


@asynccontextmanager
async def worker(
    book: Books, provider: Simulator, rooms: Rooms, home: Path, name: str = "worker"
) -> AsyncIterator[None]:
    """`python -m talktime_agent start`, as in a pod of that name."""
    token = home / "agent.token"
    token.write_text(book.agent_token(PROJECT), encoding="utf-8")
    port, log = free_port(), home / f"{name}.log"
    names = [study.provider_name(vendor, brief=False) for vendor in study.MODEL]
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "TALKTIME_PROJECT": f"{study.NAMESPACE}/{PROJECT}",
        "TALKTIME_LEDGER_URL": book.url,
        "TALKTIME_TOKEN_FILE": str(token),
        "TALKTIME_AGENT_NAME": AGENT,
        "TALKTIME_POD": name,
        "TALKTIME_SESSIONS_PER_REPLICA": str(PLACES),
        "TALKTIME_PROVIDER_NAMES": ",".join(names),
        **{f"TALKTIME_PROVIDER_KEY_{index}": "sim-key" for index in range(len(names))},
        "TALKTIME_SPOOL_DIR": str(home / f"{name}-spool"),
        "TALKTIME_HTTP_HOST": "127.0.0.1",
        "TALKTIME_HTTP_PORT": str(port),
        "TALKTIME_METRICS_PORT": str(free_port()),
        "TALKTIME_REJOIN_GRACE": "2",
        "LIVEKIT_URL": rooms.url,
        "LIVEKIT_API_KEY": KEY,
        "LIVEKIT_API_SECRET": SECRET,
        "SSL_CERT_FILE": str(provider.ca),
    }
    async with running(log, environment, sys.executable, "-m", "talktime_agent", "start") as process:
        await answers(f"http://127.0.0.1:{port}/worker", process, log)
        async with asyncio.timeout(START_SECONDS):
            while not re.search("registered worker", log.read_text(encoding="utf-8")):  # noqa: ASYNC110 - its log
                await asyncio.sleep(0.2)
        yield


@asynccontextmanager
async def running(log: Path, environment: Any, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program whose words go to `log`; it ends with the block."""
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=file, stderr=file)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(30):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def answers(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    """Until it answers 2xx. AssertionError with its log when it ends, TimeoutError when it never does."""
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(trust_env=False) as http:
        while True:
            assert process.returncode is None, f"{url} does not start:\n{log.read_text()[-2000:]}"  # noqa: ASYNC240
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(url)).status_code < 300:
                    return
            await asyncio.sleep(0.2)
