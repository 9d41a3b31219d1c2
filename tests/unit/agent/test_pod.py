"""The pod's parts around the jobs: the socket between main and jobs, the replay of spools, the acceptance of jobs."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from talktime_agent.heartbeat import AGAIN_SECONDS, BEAT_SECONDS, CUT_OFF_SECONDS, Heartbeat
from talktime_agent.joins import JoinPace
from talktime_agent.metrics import AgentMetrics
from talktime_agent.push import PodLink, PushRelay, concerns
from talktime_agent.recovery import Recovery
from talktime_agent.spool import Spool
from talktime_agent.worker import FULL_LOAD, accepting, epoch_of, load
from talktime_ledger.client import Fenced, SessionClosed, Unavailable
from talktime_ledger.core.usage import UsageKind
from talktime_ledger.wire import Close, PushEvent, Usage
from talktime_ledger.wire.resume import Lost

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def pod() -> Iterator[Path]:
    """A short path: a unix socket's may not be long."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_a_pod_that_is_deleted_while_it_starts_ends() -> None:
    """The first process of a container ignores SIGTERM as long as it has not said what to do; that is asked for."""
    worker = subprocess.Popen([sys.executable, "-m", "talktime_agent", "start"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not catches(worker.pid, signal.SIGTERM):
            assert worker.poll() is None and time.monotonic() < deadline
        worker.terminate()
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()


def catches(pid: int, number: signal.Signals) -> bool:
    [caught] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


async def test_a_push_reaches_every_job_and_their_counts_come_back(pod: Path) -> None:
    registry = CollectorRegistry()
    said: asyncio.Queue[PushEvent] = asyncio.Queue()

    async def subscribe() -> AsyncIterator[PushEvent]:
        while True:
            yield await said.get()

    relaying = PushRelay(pod, AgentMetrics(registry))
    relay = asyncio.create_task(relaying.run(subscribe))
    links = [PodLink(pod), PodLink(pod)]
    heard = [asyncio.create_task(anext(link.events())) for link in links]
    async with asyncio.timeout(60):
        while len(relaying._jobs) < 2:  # noqa: ASYNC110 - it counts them, and tells nobody
            await asyncio.sleep(0.01)
        links[0].count("sessions_ended", "budget")
        links[1].count("a_name_of_another_version")
        await said.put(PushEvent(event="limits", data={}))
        assert [event.event for event in await asyncio.gather(*heard)] == ["limits", "limits"]
        while registry.get_sample_value("talktime_agent_sessions_ended_total", {"reason": "budget"}) != 1:  # noqa: ASYNC110 - it comes through a socket
            await asyncio.sleep(0.01)
    relay.cancel()
    await asyncio.gather(relay, return_exceptions=True)


def test_an_event_without_a_session_concerns_all() -> None:
    assert concerns(PushEvent(event="limits", data={}), "s1")
    assert concerns(PushEvent(event="fence", data={"session_id": "s1", "epoch": 2}), "s1")
    assert not concerns(PushEvent(event="fence", data={"session_id": "s2"}), "s1")


class Ledger:
    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.closes: list[Close] = []
        self.losses: list[Lost] = []

    async def close(self, session_id: str, request: Close) -> None:
        self.closes.append(request)
        if self.error:
            raise self.error

    async def lose(self, session_id: str, request: Lost) -> None:
        self.losses.append(request)
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("error", "kept", "deleted"),
    [
        (None, False, False),
        (SessionClosed("x"), False, True),
        (Fenced("x"), False, False),
        (Unavailable("x"), True, False),
    ],
)
async def test_a_dead_jobs_spool_is_replayed_until_the_ledger_has_it(
    pod: Path, error: Exception | None, kept: bool, deleted: bool
) -> None:
    usage = Usage(key="k", kind=UsageKind.RESPONSE, provider="p", model="m", meters={"audio_in": 1}, occurred_at=AT)
    spool = Spool(pod, "s1", 1, 100.0)
    spool.write("usage", 130.0, usage=usage.model_dump(mode="json"))
    spool.write("hold", 131.0, key="open", usd="0.02")
    spool.abandon()
    rooms: list[str] = []
    replayed: list[bool] = []

    async def delete_room(name: str) -> None:
        rooms.append(name)

    ledger: Any = Ledger(error)
    await Recovery(ledger, pod, delete_room=delete_room, replayed=lambda: replayed.append(True)).once()
    (told,) = ledger.losses
    assert ledger.closes == []
    assert (told.reason, told.epoch, told.n) == ("agent_died", 1, 1)
    assert [item.key for item in told.usages] == ["k"]
    assert [item.key for item in told.unmetered] == ["open"]
    assert spool.path.exists() is kept
    assert rooms == (["s1"] if deleted else [])
    assert replayed == ([True] if error is None else [])


async def test_a_session_that_ended_in_order_is_closed_and_its_room_goes(pod: Path) -> None:
    spool = Spool(pod, "s1", 1, 100.0)
    spool.write("closed", 131.0, reason="participant_left")
    spool.abandon()
    rooms: list[str] = []

    async def delete_room(name: str) -> None:
        rooms.append(name)

    ledger: Any = Ledger(None)
    await Recovery(ledger, pod, delete_room=delete_room, replayed=lambda: None).once()
    (told,) = ledger.closes
    assert (told.reason, told.epoch, told.duration_sec) == ("participant_left", 1, 31.0)
    assert (ledger.losses, rooms) == ([], ["s1"])


async def test_a_heartbeat_that_is_not_heard_is_followed_by_the_next() -> None:
    told: list[float] = []
    naps: list[float] = []

    async def tell() -> None:
        told.append(1)
        if len(told) == 1:
            raise Unavailable("away")

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Heartbeat(tell, lambda: 0.0, sleep).run()
    assert (len(told), naps) == (3, [AGAIN_SECONDS, BEAT_SECONDS, BEAT_SECONDS])


async def test_a_pod_is_cut_off_while_its_beats_are_in_vain_for_a_while_and_not_after_the_next_that_is_heard() -> None:
    now = 100.0
    seen: list[tuple[float, bool]] = []

    async def tell() -> None:
        if now < 100 + 2 * CUT_OFF_SECONDS:
            raise Unavailable("away")

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += CUT_OFF_SECONDS / 2
        seen.append((now - 100, heart.cut_off))
        if len(seen) == 5:
            raise asyncio.CancelledError

    heart = Heartbeat(tell, lambda: now, sleep)
    assert not heart.cut_off
    with pytest.raises(asyncio.CancelledError):
        await heart.run()
    assert [cut for _, cut in seen] == [False, True, True, True, False]


class Request:
    """What LiveKit asks; keeps the answer."""

    job = SimpleNamespace(metadata='{"session": "s", "epoch": 1}')
    answer = ""

    async def accept(self) -> None:
        self.answer = "accept"

    async def reject(self, *, terminate: bool) -> None:
        self.answer = f"reject terminate={terminate}"


async def test_jobs_are_accepted_at_the_pods_pace_and_declined_when_it_is_crowded() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    handler = accepting(JoinPace(3.0, lambda: 0.0), sleep, lambda: False)
    requests: list[Any] = [Request(), Request(), Request()]
    for request in requests:
        await handler(request)
    assert [request.answer for request in requests] == ["accept", "accept", "reject terminate=False"]
    assert waits == [3.0]


async def test_a_pod_that_is_cut_off_from_the_ledger_declines_jobs_without_using_up_its_pace() -> None:
    cut = True

    async def sleep(seconds: float) -> None:
        raise AssertionError(seconds)

    handler = accepting(JoinPace(3.0, lambda: 0.0), sleep, lambda: cut)
    first: Any = Request()
    second: Any = Request()
    await handler(first)
    cut = False
    await handler(second)
    assert (first.answer, second.answer) == ("reject terminate=False", "accept")


@pytest.mark.parametrize(
    ("metadata", "epoch"), [('{"session": "s", "epoch": 2}', 2), ("", 1), ("[1]", 1), ('{"epoch": null}', 1)]
)
def test_the_epoch_of_a_job_is_read_from_its_dispatch(metadata: str, epoch: int) -> None:
    assert epoch_of(metadata) == epoch


@pytest.mark.parametrize(("sessions", "expected"), [(0, 0.0), (3, 0.525), (4, FULL_LOAD), (5, 0.875)])
def test_a_pod_takes_sessions_up_to_its_capacity_and_is_full_exactly_there(sessions: int, expected: float) -> None:
    class Server:
        active_jobs = range(sessions)

    server: Any = Server()
    assert load(4)(server) == pytest.approx(expected)
    assert (load(4)(server) >= FULL_LOAD) == (sessions >= 4)
