"""A budget is edited, a Project paused or deleted: how soon a live session has it in its grant.

Real ledger, real push stream, the pod's real socket, a real `Budgeted`; no provider and no room.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from talktime_agent.budgeted import Budgeted
from talktime_agent.charging import RENEWAL_GAP_SECONDS
from talktime_agent.clock import system_clock
from talktime_agent.metrics import AgentMetrics
from talktime_agent.push import PodLink, PushRelay
from talktime_agent.spool import Spool
from talktime_ledger.client import NotFound, Refused
from talktime_ledger.wire import Attach, Grant, ProjectPush, PushEvent

from .conftest import GATEWAY, OPERATOR, Stand, agent_of, opening, project_push

PUSHED_WITHIN = 2.0
NEVER = 600.0
"""Seconds between renewals where a test wants none: what comes earlier was pushed."""
TRIES = 8


@pytest.fixture
def pod() -> Iterator[Path]:
    """A short path: a unix socket's may not be long."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


class Live:
    """One session as an agent holds it; what its last grant said."""

    def __init__(self, budget: Budgeted, first: Grant) -> None:
        self.budget, self.first = budget, first
        self.grants: list[Grant] = []
        self._came = asyncio.Event()

    def granted(self, grant: Grant) -> None:
        self.grants.append(grant)
        self._came.set()

    async def seconds_until(self, seen: str, wanted: object, since: float) -> float:
        """Seconds from ``since`` until a grant says so (a dotted name of it)."""
        async with asyncio.timeout(60):
            while not self.grants or _of(self.grants[-1], seen) != wanted:
                self._came.clear()
                await self._came.wait()
        return time.monotonic() - since


def _of(grant: Grant, name: str) -> object:
    value: object = grant
    for part in name.split("."):
        value = getattr(value, part)
    return value


@asynccontextmanager
async def live(stand: Stand, pod: Path, *, pushed: bool, interval: float) -> AsyncIterator[Live]:
    """A session with or without the pod's push stream."""
    agent = stand.client(agent_of("limit"))
    session = await stand.client(GATEWAY).open_session(opening())
    clock = system_clock()
    sent_at = clock.monotonic()
    told = await agent.attach(session.session_id, Attach(epoch=1, worker="w"))
    spool = Spool(pod, session.session_id, 1, clock.wall().timestamp())
    link = PodLink(pod)
    budget = Budgeted(agent, told, SecretStr("sk-none"), spool, clock, link, sent_at=sent_at, use_interval=interval)
    held = Live(budget, told.grant)
    relay = PushRelay(pod, AgentMetrics(CollectorRegistry()))
    subscribed = asyncio.Event()

    async def subscribe() -> AsyncIterator[PushEvent]:
        async for event in agent.push("study", "limit"):
            yield event
            subscribed.set()  # the first, `resync`, has been passed on: to nobody

    relaying = asyncio.create_task(relay.run(subscribe)) if pushed else None
    budget.start(answer=lambda: None, on_grant=held.granted)
    if pushed:
        async with asyncio.timeout(60):
            await subscribed.wait()
            budget.keep(budget.listen(link.events()))
            while not relay._jobs:  # noqa: ASYNC110 - it counts them, and tells nobody
                await asyncio.sleep(0.01)
    try:
        yield held
    finally:
        budget.end("participant_left")
        await budget.settle("participant_left")
        if relaying:
            relaying.cancel()
            await asyncio.gather(relaying, return_exceptions=True)


EDITS = [
    pytest.param(project_push("20", generation=2), "budget.project_amount", Decimal(20), id="raised"),
    pytest.param(project_push("5", generation=2), "budget.project_amount", Decimal(5), id="lowered"),
    pytest.param(project_push(limit="0.5", generation=2), "session_limit", Decimal("0.5"), id="session limit"),
    pytest.param(project_push(generation=2, paused=True), "paused", True, id="paused"),
]


@pytest.mark.parametrize(("push", "seen", "wanted"), EDITS)
async def test_an_edit_reaches_a_live_session_within_two_seconds(
    stand: Stand, pod: Path, push: ProjectPush, seen: str, wanted: object
) -> None:
    operator = stand.client(OPERATOR)
    async with live(stand, pod, pushed=True, interval=NEVER) as session:
        took = []
        for number in range(TRIES):  # a machine that stalls makes one of them late, a ledger that waits makes all
            before = len(session.grants)
            began = time.monotonic()
            await operator.put_project("study", "limit", push.model_copy(update={"generation": 2 * number + 2}))
            took.append(await session.seconds_until(seen, wanted, began))
            assert 1 <= len(session.grants) - before <= 2
            if took[-1] < PUSHED_WITHIN:
                break
            await operator.put_project("study", "limit", project_push(generation=2 * number + 3))
            await session.seconds_until(seen, _of(session.first, seen), began)
            await asyncio.sleep(2 * RENEWAL_GAP_SECONDS)  # nothing is asked twice within it
        assert min(took) < PUSHED_WITHIN, took
        if push.paused:
            assert session.grants[-1].wrap_up, "a paused Project lets its sessions come to an end"
            assert session.grants[-1].reason == "Paused"
            with pytest.raises(Refused):
                await stand.client(GATEWAY).open_session(opening())


async def test_without_the_push_stream_the_next_renewal_brings_it(stand: Stand, pod: Path) -> None:
    interval = 3.0
    async with live(stand, pod, pushed=False, interval=interval) as session:
        await session.seconds_until("paused", False, time.monotonic())
        began = time.monotonic()
        await stand.client(OPERATOR).put_project("study", "limit", project_push(generation=2, paused=True))
        before = len(session.grants)
        await session.seconds_until("paused", True, began)
        assert len(session.grants) - before <= 2, "the next one, or the one after it if that was already on its way"


async def test_a_project_that_is_hard_at_once_tells_its_sessions_that_nothing_beyond_will_come(
    stand: Stand, pod: Path
) -> None:
    async with live(stand, pod, pushed=True, interval=NEVER) as session:
        began = time.monotonic()
        await stand.client(OPERATOR).put_project("study", "limit", project_push("0.01", "0.01", generation=2))
        assert await session.seconds_until("state", "final", began) < PUSHED_WITHIN
        held = session.grants[-1]
        assert held.reserved > 0, "what is held stays: the session ends by it, not under it"
        await stand.client(OPERATOR).put_project("study", "limit", project_push("10", generation=3))
        assert await session.seconds_until("state", "ok", time.monotonic()) < PUSHED_WITHIN


async def test_sessions_of_a_deleted_project_go_on_and_new_ones_are_refused(stand: Stand, pod: Path) -> None:
    async with live(stand, pod, pushed=True, interval=NEVER) as session:
        began = time.monotonic()
        await stand.client(OPERATOR).delete_project("study", "limit")
        with pytest.raises(NotFound):
            await stand.client(GATEWAY).open_session(opening())
        assert await session.seconds_until("deleted", True, began) < PUSHED_WITHIN
        told = session.grants[-1]
        assert (told.state, told.reason, told.wrap_up) == ("ok", "", False), "it ends by its own end or its limits"
        assert not session.budget.ended.done()
    assert (await stand.account())["reserved"] == 0
    await stand.assert_laws()
