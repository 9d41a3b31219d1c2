"""Gateway, real ledger, real livekit-server, agent workers, simulator: agents are killed, their sessions go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml
from livekit import api
from talktime_ledger.client import LedgerClient
from talktime_ledger.core.resume_texts import resume_text
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.wire import PoolPush, ProjectPush
from talktime_ledger.wire.resume import MOST_LOSSES
from talktime_simulator.participants.door import Entry, claims_of
from talktime_simulator.participants.person import Person, Plan
from talktime_simulator.speech import Voice

from .conftest import API_KEY, API_SECRET, RealLedger, free_port, stop
from .test_with_ledger import CARDS, SERVER_KEY, push

pytestmark = pytest.mark.real_session

LANGUAGE = "de"


@dataclass
class Worker:
    """An agent worker in a process group of its own, as a pod would be."""

    process: subprocess.Popen[bytes]
    log: Path

    def jobs(self, session: str) -> set[int]:
        """The processes of the session's jobs here, dead ones among them."""
        lines = [line for line in self.log.read_text().splitlines() if session in line and '"pid": ' in line]
        return {int(line.split('"pid": ')[1].split(",")[0].rstrip("}")) for line in lines}

    def vanish(self) -> None:
        """The pod's end without a word."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@dataclass
class Study:
    """A Project with its provider and as many workers as a test wants."""

    home: Path
    node: Any
    ledger: RealLedger
    simulator: str
    workers: list[Worker] = field(default_factory=list)

    def hire(self, url: str | None = None) -> Worker:
        """One more worker, registered with LiveKit (the pool's own, or another)."""
        number = len(self.workers)
        log = self.home / f"worker-{number}.log"
        environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "TALKTIME_PROJECT": "it/resume",
            "TALKTIME_LEDGER_URL": self.ledger.url,
            "TALKTIME_TOKEN_FILE": str(self.ledger.token_file("system:serviceaccount:it:talktime-agent-resume")),
            "TALKTIME_AGENT_NAME": "tt-it.resume",
            "TALKTIME_POD": f"pod-{number}-{os.getpid()}",
            "TALKTIME_SESSIONS_PER_REPLICA": "3",
            "TALKTIME_IDLE_PROCESSES": "1",
            "TALKTIME_PROVIDER_NAMES": "main",
            "TALKTIME_PROVIDER_KEY_0": "sim-key",
            "TALKTIME_SPOOL_DIR": str(self.home / f"spool-{number}"),
            "TALKTIME_HTTP_HOST": "127.0.0.1",
            "TALKTIME_HTTP_PORT": str(free_port()),
            "TALKTIME_METRICS_PORT": str(free_port()),
            "TALKTIME_REJOIN_GRACE": "2",
            "LIVEKIT_URL": url or self.node.url,
            "LIVEKIT_API_KEY": API_KEY,
            "LIVEKIT_API_SECRET": API_SECRET,
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "talktime_agent", "start"],
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        worker = Worker(process, log)
        self.workers.append(worker)
        deadline = time.monotonic() + 180
        while "registered worker" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        return worker

    def of(self, session: str) -> Worker:
        """Who serves it; for one that has had one agent."""
        return next(worker for worker in self.workers if worker.process.poll() is None and worker.jobs(session))

    def jobs(self, session: str) -> set[int]:
        """Of every worker."""
        return {job for worker in self.workers for job in worker.jobs(session)}

    def seen(self, what: str) -> list[dict[str, Any]]:
        """The simulator's /log or /truth."""
        with urllib.request.urlopen(f"{self.simulator}/{what}", timeout=10) as answer:
            return [json.loads(line) for line in answer.read().decode().splitlines()]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, node: Any, real_ledger: RealLedger) -> Iterator[Study]:
    home = tmp_path_factory.mktemp("study")
    port = free_port()
    with (home / "simulator.log").open("wb") as out:
        simulator = subprocess.Popen(
            [sys.executable, "-m", "talktime_simulator", "serve", "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=out,
        )
    result = Study(home, node, real_ledger, f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{result.simulator}/healthz", timeout=1):
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield result
    finally:
        for worker in result.workers:
            worker.vanish()
        stop(simulator)


@pytest.fixture
async def sql(postgres_dsn: str, real_ledger: RealLedger) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_dsn.rsplit("/", 1)[0] + "/gateway")
    yield connection
    await connection.close()


@pytest.fixture
async def front(study: Study, gateway: Any, real_ledger: RealLedger) -> AsyncIterator[httpx.AsyncClient]:
    """The gateway's door to a Project whose provider is the simulator."""
    async with real_ledger.client("operator") as operator:
        for name in ("gpt-realtime-2.1-mini", "gpt-4o-mini-transcribe", "livekit-self-hosted", "livekit-cloud"):
            card = yaml.safe_load((CARDS / f"{name}.yaml").read_text())
            await operator.put_rate_card(name, RateCardSpec.model_validate(card["spec"]))
        url = study.node.url
        await operator.put_pool("talktime", "eu", PoolPush(publicURL=url, internalURL=url, health="good"))
        told = json.loads(push("10").model_dump_json(by_alias=True, exclude_none=True))
        told["spec"]["budget"]["session"]["limit"] = "2"
        told["spec"]["providers"][0]["endpoint"] = f"{study.simulator}/v1"
        told["spec"]["agent"] |= {"language": LANGUAGE, "greeting": "Greet the participant, ask the first question."}
        await operator.put_project("it", "resume", ProjectPush.model_validate(told))
    async with gateway(client=real_ledger.client("gateway"), census_interval_sec=2) as http:
        yield http


@dataclass
class Talk:
    """A running interview."""

    session: str
    ledger: LedgerClient
    rooms: api.LiveKitAPI
    person: asyncio.Task[Any]
    most_agents: int = 0
    token: str = ""
    killed: set[int] = field(default_factory=set)

    async def agents(self) -> list[str]:
        try:
            answer = await self.rooms.room.list_participants(api.ListParticipantsRequest(room=self.session))
        except (api.TwirpError, OSError, TimeoutError):
            return []
        agent = api.ParticipantInfo.Kind.AGENT
        return [one.identity for one in answer.participants if one.kind == agent]

    async def look(self) -> None:
        while True:
            self.most_agents = max(self.most_agents, len(await self.agents()))
            await asyncio.sleep(0.05)

    async def claimed(self, epoch: int, seconds: float) -> None:
        """The watcher, or a re-ask, has begun."""
        async with asyncio.timeout(seconds):
            while (await self.ledger.session(self.session)).epoch < epoch:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)

    async def staffed(self, epoch: int, seconds: float) -> None:
        """An agent of that epoch is attached, and it is the one in the room."""
        async with asyncio.timeout(seconds):
            while True:
                session = await self.ledger.session(self.session)
                if session.epoch == epoch and not session.lost and len(await self.agents()) == 1:
                    return
                await asyncio.sleep(0.05)

    async def kill_agent(self, study: Study, seconds: float = 120) -> None:
        """kill -9 of the job that serves it now; the worker's log names it a moment after it has attached."""
        job = await self.job(study, seconds)
        self.killed.add(job)
        os.kill(job, signal.SIGKILL)

    async def job(self, study: Study, seconds: float = 120) -> int:
        """The process that serves it now."""
        async with asyncio.timeout(seconds):
            while not (fresh := study.jobs(self.session) - self.killed):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        (job,) = fresh
        return job

    async def turns(self, at_least: int, seconds: float = 180) -> None:
        async with asyncio.timeout(seconds):
            while (await self.ledger.session(self.session)).turns < at_least:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)

    async def leave(self) -> Any:
        """The participant hangs up; the closed session."""
        self.person.cancel()
        await asyncio.gather(self.person, return_exceptions=True)
        async with asyncio.timeout(120):
            while (session := await self.ledger.session(self.session)).state == "open":  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        return session


@contextlib.asynccontextmanager
async def talk(
    front: httpx.AsyncClient, study: Study, as_: Any, number: int = 0, url: str | None = None
) -> AsyncIterator[Talk]:
    answer = await front.post("/v1/projects/it/resume/token", headers=as_.of(SERVER_KEY), json={})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    claims = claims_of(told["participant_token"])
    plan = Plan(
        turns=60, min_seconds=1, stay=True, max_seconds=600, first_audio_seconds=180, out=study.home,
    )  # fmt: skip
    someone = Person(number, plan, Voice("en-gb+m3", 150))
    entry = Entry(told["server_url"], told["participant_token"], claims, 0.0)
    async with (
        study.ledger.client("gateway") as ledger,
        api.LiveKitAPI(url or study.node.url, API_KEY, API_SECRET) as rooms,
    ):
        result = Talk(str(claims["video"]["room"]), ledger, rooms, asyncio.create_task(someone.take_part(entry)))
        result.token = told["participant_token"]
        looking = asyncio.create_task(result.look())
        try:
            yield result
        finally:
            looking.cancel()
            result.person.cancel()
            await asyncio.gather(looking, result.person, return_exceptions=True)


async def spoke_again(study: Study, old: set[str], seconds: float = 120) -> dict[str, Any]:
    """The first response of a provider session that was not there before."""
    async with asyncio.timeout(seconds):
        while True:
            for row in await asyncio.to_thread(study.seen, "log"):
                if row["event"] == "response.created" and row["provider_session"] not in old:
                    return row
            await asyncio.sleep(0.05)


def told(study: Study, session: str, provider_session: str, since: float) -> list[str]:
    """What workers and provider wrote about a session since then (unix seconds), in the order of time."""
    lines = []
    for number, worker in enumerate(study.workers):
        for line in worker.log.read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError):
                row = json.loads(line)
                at = datetime.fromisoformat(row["ts"]).timestamp()
                if session in line and at >= since:
                    lines.append((at, f"worker {number}: {row['msg']}"))
    for row in study.seen("log"):
        if row["provider_session"] == provider_session:
            lines.append((datetime.fromisoformat(row["at"]).timestamp(), f"provider: {row['event']}"))
    return [f"{at - since:6.2f} s {what}" for at, what in sorted(lines)]


def sessions_of(rows: list[dict[str, Any]]) -> set[str]:
    return {row["provider_session"] for row in rows}


async def test_a_killed_job_is_replaced_and_the_conversation_goes_on(
    front: httpx.AsyncClient, study: Study, as_: Any, sql: asyncpg.Connection
) -> None:
    if not study.workers:
        await asyncio.to_thread(study.hire)
    async with talk(front, study, as_) as one:
        await one.turns(2)
        kept = "SELECT sealed FROM session_contexts WHERE session_id = $1::uuid"
        async with asyncio.timeout(60):
            while await sql.fetchval(kept, one.session) is None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        before = await one.ledger.session(one.session)
        old = sessions_of(study.seen("log"))
        killed = time.monotonic()
        await one.kill_agent(study)
        await one.staffed(2, 120)
        staffed = time.monotonic() - killed
        created = await spoke_again(study, old)
        spoke = time.monotonic() - killed
        during = await one.ledger.session(one.session)
        assert (during.session_id, during.losses) == (before.session_id, 1)
        assert during.posted >= before.posted
        log = [row for row in study.seen("log") if row["provider_session"] == created["provider_session"]]
        restored = [row for row in log if row["event"] == "conversation.item.create"]
        assert [row["item_id"] for row in restored][:2] == ["before_1", "before_2"]
        assert {row["role"] for row in restored} == {"user", "assistant"}
        first = next(row for row in log if row["event"] == "response.create")
        assert resume_text(LANGUAGE) in first["instructions_extra"]
        assert log.index(restored[-1]) < log.index(first)
        await one.turns(before.turns + 2)
        ended = await one.leave()
        assert one.most_agents == 1

    assert ended.close_reason == "participant_left"
    assert await sql.fetchval(kept, one.session) is None
    await counted_once(sql, study, one.session)
    print(f"\nRESUME job killed: agent again {staffed:.2f} s, talks again {spoke:.2f} s")
    assert staffed < 15, "measured alone it is below 5 s; the machine may be busy"


async def counted_once(sql: asyncpg.Connection, study: Study, session: str) -> None:
    """What the simulator billed on this session's connections is what the ledger has, key by key."""
    rows = await sql.fetch(
        "SELECT key, status, cost_usd, unmetered, meters FROM usage_events WHERE session_id = $1::uuid", session
    )
    have = {row["key"]: row for row in rows if not row["key"].startswith("assumed/")}
    assumed = [row["cost_usd"] for row in rows if row["key"].startswith("assumed/")]
    assert sum(assumed) == 0 or all(row["unmetered"] for row in rows if row["key"].startswith("assumed/"))
    connections = {key.split("/")[0] for key in have if not key.endswith("/0")}
    true = {}
    for row in await asyncio.to_thread(study.seen, "truth"):
        if row["provider_session"] in connections:
            key = (
                f"{row['provider_session']}/{row['response_id']}"
                if row["kind"] == "response"
                else f"{row['item_id']}/0"
            )
            true[key] = row
    assert set(true) - set(have) == set() or assumed, "everything billed is counted"
    for key in set(true) & set(have):
        if not have[key]["unmetered"]:
            told = json.loads(have[key]["meters"])
            assert {k: v for k, v in told.items() if v} == {k: v for k, v in true[key]["meters"].items() if v}, key
    entered = await sql.fetchval(
        "SELECT COALESCE(SUM(amount_usd), 0) FROM entries WHERE session_id = $1::uuid AND leg = 'ai'", session
    )
    posted = await sql.fetchval("SELECT posted FROM sessions WHERE id = $1::uuid", session)
    assert entered == posted


async def test_a_pod_that_vanishes_is_noticed_by_its_silence(
    front: httpx.AsyncClient, study: Study, as_: Any, sql: asyncpg.Connection
) -> None:
    while sum(worker.process.poll() is None for worker in study.workers) < 2:
        await asyncio.to_thread(study.hire)
    async with talk(front, study, as_, 1) as one:
        await one.turns(1)
        await asyncio.sleep(3)  # the first answer's usage and the heartbeat are with the ledger
        old = sessions_of(study.seen("log"))
        killed = time.monotonic()
        study.of(one.session).vanish()
        await one.claimed(2, 120)
        claimed = time.monotonic() - killed
        await one.staffed(2, 120)
        staffed = time.monotonic() - killed
        await spoke_again(study, old)
        spoke = time.monotonic() - killed
        before = (await one.ledger.session(one.session)).turns
        await one.turns(before + 1)
        ended = await one.leave()
        assert one.most_agents == 1
    assert (ended.close_reason, ended.losses) == ("participant_left", 1)
    await counted_once(sql, study, one.session)
    print(f"\nRESUME pod killed: claimed {claimed:.2f} s, agent again {staffed:.2f} s, talks again {spoke:.2f} s")
    assert staffed < 25, "measured alone it is below 10 s; the machine may be busy"


async def test_after_too_many_losses_the_next_agent_only_says_goodbye(
    front: httpx.AsyncClient, study: Study, as_: Any, sql: asyncpg.Connection
) -> None:
    if not any(worker.process.poll() is None for worker in study.workers):
        await asyncio.to_thread(study.hire)
    async with talk(front, study, as_, 5) as one:
        await one.turns(1)  # the closing clip is with the ledger by now, or will be rendered
        for killed in range(1, MOST_LOSSES + 2):
            await one.kill_agent(study)
            await one.claimed(killed + 1, 120)
            if killed <= MOST_LOSSES:
                await one.staffed(killed + 1, 120)
        async with asyncio.timeout(120):
            while (ended := await one.ledger.session(one.session)).state == "open":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        await asyncio.wait_for(asyncio.shield(one.person), 90)  # told by the end of the room, not by us
        assert one.most_agents == 1
    assert (ended.close_reason, ended.losses, ended.epoch) == ("agent_died", MOST_LOSSES + 1, MOST_LOSSES + 2)
    said = [event.name for event in ended.events if event.name != "first_audio"]
    assert said[-3:] == ["closing_started", "closing_finished", "left"]
    await counted_once(sql, study, one.session)


async def test_an_agent_that_only_reconnects_is_not_replaced(front: httpx.AsyncClient, study: Study, as_: Any) -> None:
    if not any(worker.process.poll() is None for worker in study.workers):
        await asyncio.to_thread(study.hire)
    async with talk(front, study, as_, 2) as one:
        await one.turns(1)
        job = await one.job(study)
        os.kill(job, signal.SIGSTOP)  # LiveKit loses sight of it, its pod goes on saying that it lives
        try:
            await asyncio.sleep(9)
        finally:
            os.kill(job, signal.SIGCONT)
        session = await one.ledger.session(one.session)
        assert (session.epoch, session.losses) == (1, 0)
        await one.turns(session.turns + 1)
        await one.leave()
        assert one.most_agents == 1


async def test_when_the_sfu_dies_the_same_session_goes_on_at_the_fallback(
    front: httpx.AsyncClient, study: Study, as_: Any, sql: asyncpg.Connection, keys_dir: Path, start_node: Any
) -> None:
    sick, second = await asyncio.to_thread(start_node), await asyncio.to_thread(start_node)
    (keys_dir / "talktime.eu_fallback.json").write_text((keys_dir / "talktime.eu.json").read_text())
    async with study.ledger.client("operator") as operator:
        pool = {"publicURL": sick.url, "internalURL": sick.url, "health": "good", "fallbackURL": second.url}
        await operator.put_pool("talktime", "eu", PoolPush.model_validate({**pool, "fallbackMode": "Auto"}))
    for url in (sick.url, second.url):
        await asyncio.to_thread(study.hire, url)
    await asyncio.sleep(3)  # the gateway has read the directory
    async with talk(front, study, as_, 3, sick.url) as one:
        await one.turns(2)
        before, old = await one.ledger.session(one.session), sessions_of(study.seen("log"))
        killed, since = time.monotonic(), time.time()
        sick.process.kill()
        headers = {**as_.of(SERVER_KEY), "X-Talktime-Previous-Token": one.token}
        await asyncio.sleep(3)
        asked: list[int] = []
        async with asyncio.timeout(180):
            while True:
                body = {"room_name": one.session}
                answer = await front.post("/v1/projects/it/resume/token", headers=headers, json=body)
                asked.append(answer.status_code)
                if answer.status_code == 201:
                    break
                assert answer.status_code == 425, answer.text
                await asyncio.sleep(2)
        moved = time.monotonic() - killed
        way = answer.json()
        claims = claims_of(way["participant_token"])
        assert (way["server_url"], claims["video"]["room"], claims["sub"]) == (
            second.url,
            one.session,
            "participant-1",
        )
        plan = Plan(
            turns=60, min_seconds=1, stay=True, max_seconds=300, first_audio_seconds=180, out=study.home / "again"
        )
        plan.out.mkdir()
        back = Person(4, plan, Voice("en-gb+m3", 150))
        entry = Entry(way["server_url"], way["participant_token"], claims, 0.0)
        joined = asyncio.create_task(back.take_part(entry))
        try:
            created = await spoke_again(study, old)
            spoke = time.monotonic() - killed
            print("\n".join(["", *told(study, one.session, created["provider_session"], since)]))
            log = [row for row in study.seen("log") if row["provider_session"] == created["provider_session"]]
            assert any(row["event"] == "conversation.item.create" for row in log)
            first = next(row for row in log if row["event"] == "response.create")
            assert resume_text(LANGUAGE) in first["instructions_extra"]
            await one.turns(before.turns + 1)
            during = await one.ledger.session(one.session)
            assert (during.epoch, during.losses, during.media.mode) == (2, 0, "cloud")
            assert during.posted >= before.posted
        finally:
            joined.cancel()
            await asyncio.gather(joined, return_exceptions=True)
        ended = await one.leave()
    assert ended.close_reason == "participant_left"
    await counted_once(sql, study, one.session)
    print(f"\nRESUME SFU killed: moved {moved:.2f} s ({asked}), talks again {spoke:.2f} s")
