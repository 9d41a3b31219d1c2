"""A trace through the real ledger: events of two virtual seconds happen at once, over as many connections as there are.

Replies get lost after the commit (the request is sent again and must get the same answer), old requests come again,
agents die in the middle of a response; their usage is never told, or late.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from talktime_agent.gate import Bounds
from talktime_ledger import wire
from talktime_ledger.store.database import Pool
from talktime_ledger.wire import ProblemReason

from bench.enforcers import database, study
from bench.enforcers.agent import Agent
from bench.enforcers.desks import Desk, Refusal
from bench.enforcers.trace import SECONDS_TO_BEGIN, Fate, Hitch, Report, Trace, Turn, Visit

SLICE_SEC = 2.0
SLICE_EVENTS = 32
SWEEP_EVERY_SEC = 20.0
SETTLED_BY_SEC = 3600.0
"""Long after the last validity has run out; who is not swept by then never will be."""

Step = Callable[[float], Awaitable[None]]
Disturbance = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class Counted:
    """What a run counts, USD where it is money. `truth`: what the provider bills, sessions before our time included."""

    truth: Decimal
    admitted: int = 0
    refused: int = 0
    false_refusals: int = 0
    crashes: int = 0
    repeats: int = 0
    differing_replies: int = 0
    ended_by_budget: int = 0
    usable: Decimal | None = None
    problems: list[str] = field(default_factory=list)


class Run:
    """One trace on one Project."""

    def __init__(
        self, trace: Trace, desk: Desk, pool: Pool, bounds: Bounds, project: str, account: int, start: datetime
    ) -> None:
        """`start` is the virtual time of the trace's second 0; `pool` reads balances behind the ledger's back."""
        self.counted = Counted(trace.spent)
        self._trace, self._desk, self._pool, self._bounds = trace, desk, pool, bounds
        self._project, self._account, self._start = project, account, start
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Step]] = []
        for visit in trace.visits:
            self._at(visit.at, partial(self._arrive, visit))
        self._at(SWEEP_EVERY_SEC, self._sweep)

    async def finish(self, disturb: Disturbance) -> Counted:
        """Runs to the end; `disturb(slice number)` happens beside each slice."""
        for number in itertools.count():
            steps = self._slice()
            if not steps:
                break
            async with self._pool.acquire() as connection:
                await database.tick(connection, self._start + timedelta(seconds=steps[-1][0]))
            await asyncio.gather(disturb(number), *(step(now) for now, step in steps))
        await self._knock()
        return self.counted

    async def _knock(self) -> None:
        """When all is over and nobody happened to be refused since: one more comes."""
        if self.counted.usable is not None:
            return
        request = self._opening(-1)
        refusal = await self._desk.open(request)
        if refusal is None:
            # There is money for one more, so nothing was refused for good. Not a session of the trace.
            await self._desk.close(request.session_id, wire.Close(epoch=1, reason="left"))
            return
        await self._refused(refusal)

    def _slice(self) -> list[tuple[float, Step]]:
        steps: list[tuple[float, Step]] = []
        while self._queue and len(steps) < SLICE_EVENTS:
            if steps and self._queue[0][0] > steps[0][0] + SLICE_SEC:
                break
            now, _, step = heapq.heappop(self._queue)
            steps.append((now, step))
        return steps

    def _at(self, when: float, step: Step) -> None:
        heapq.heappush(self._queue, (when, next(self._order), step))

    async def _arrive(self, visit: Visit, now: float) -> None:
        request = self._opening(visit.index)
        refusal = await self._desk.open(request)
        if refusal is not None:
            self.counted.refused += 1
            await self._refused(refusal)
            return
        self.counted.admitted += 1
        if visit.open_hitch is not Hitch.NONE:
            self.counted.repeats += 1
            if await self._desk.open(request) is not None:
                self.counted.differing_replies += 1
        self._at(now + SECONDS_TO_BEGIN, partial(self._attach, visit, request.session_id))

    def _opening(self, index: int) -> wire.SessionOpen:
        return wire.SessionOpen(
            session_id=uuid.uuid5(uuid.NAMESPACE_URL, f"{self._project}/{index}"),
            namespace=study.NAMESPACE,
            project=self._project,
            provider=study.PROVIDER,
        )

    async def _refused(self, refusal: Refusal) -> None:
        """Whether it was false; and the first that no reservation explains: how much of the budget was used by then."""
        if refusal.available >= study.ADMIT_FLOOR or refusal.reason is not ProblemReason.BUDGET_EXHAUSTED:
            self.counted.false_refusals += 1
        if self.counted.usable is not None or refusal.reserved:
            return
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow("SELECT posted, reserved FROM accounts WHERE id = $1", self._account)
        if row["reserved"] == 0:
            self.counted.usable = row["posted"] / study.BUDGET

    async def _attach(self, visit: Visit, session: uuid.UUID, now: float) -> None:
        grant = await self._desk.attach(session, wire.Attach(epoch=1, worker=f"worker-{visit.index}"))
        agent = Agent.attached(visit, session, self._bounds, self._start, grant, now)
        self._at(now + _until_heard(agent.turn), partial(self._commit, agent))

    async def _commit(self, agent: Agent, now: float) -> None:
        agent.hear(now)
        if not agent.may_answer(now):
            await self._use(agent, Hitch.NONE, now)
        if not agent.may_answer(now):
            await self._close(agent, "budget", now)
            return
        agent.answer()
        turn, crash = agent.turn, agent.visit.crash
        if crash is not None and crash.turn == agent.index:
            self.counted.crashes += 1
            self.counted.truth += agent.truth
            if crash.fate is not Fate.LOST:
                self._at(now + turn.answer_sec / 2 + crash.replay_sec, partial(self._replay, agent))
            return
        if any(usage.kind == "response" for usage in agent.queue.values()):
            self._at(now + turn.answer_sec / 2, partial(self._report_late, agent))
        self._at(now + turn.answer_sec, partial(self._answered, agent))

    async def _report_late(self, agent: Agent, now: float) -> None:
        await self._use(agent, agent.turn.hitch, now)

    async def _answered(self, agent: Agent, now: float) -> None:
        turn = agent.turn
        agent.answered(now)
        if turn.report is Report.AT_ONCE or agent.talked_out or agent.short(now):
            await self._use(agent, turn.hitch, now)
        if agent.talked_out:
            await self._close(agent, "participant_left", now)
        elif agent.exhausted(now):
            await self._close(agent, "budget", now)
        elif now + _until_heard(agent.turn) > agent.ends_by:
            await self._close(agent, "participant_left", now)
        else:
            self._at(now + _until_heard(agent.turn), partial(self._commit, agent))

    async def _use(self, agent: Agent, hitch: Hitch, now: float) -> None:
        before, request = agent.last, agent.use()
        grant = await self._desk.use(agent.session, request)
        if hitch is Hitch.REPLY_LOST:
            self.counted.repeats += 1
            again = await self._desk.use(agent.session, request)
            self.counted.differing_replies += again != grant
        elif hitch is Hitch.ECHO and before is not None:
            self.counted.repeats += 1
            await self._desk.use(agent.session, before)
        agent.settled(request, grant, now)

    async def _close(self, agent: Agent, reason: str, now: float) -> None:
        if reason == "budget":
            self.counted.ended_by_budget += 1
            agent.goodbye(now)
        self.counted.truth += agent.truth
        request = agent.close(reason, now)
        posted = await self._desk.close(agent.session, request)
        if agent.visit.close_hitch is not Hitch.NONE:
            self.counted.repeats += 1
            self.counted.differing_replies += await self._desk.close(agent.session, request) != posted
        if posted != agent.truth:
            self.counted.problems.append(f"session {agent.visit.index} posted {posted}, billed {agent.truth}")

    async def _replay(self, agent: Agent, now: float) -> None:
        posted = await self._desk.close(agent.session, agent.close("agent_died", now))
        if posted < agent.truth:
            self.counted.problems.append(f"crashed session {agent.visit.index}: {posted} < {agent.truth}")

    async def _sweep(self, now: float) -> None:
        await self._desk.sweep()
        async with self._pool.acquire() as connection:
            still = await connection.fetchval("SELECT open_sessions FROM accounts WHERE id = $1", self._account)
        busy = bool(self._queue) or still
        if busy and now < self._trace.visits[-1].at + SETTLED_BY_SEC:
            self._at(now + SWEEP_EVERY_SEC, self._sweep)


def _until_heard(turn: Turn) -> float:
    return turn.pause_sec + turn.heard_sec


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run, USD."""

    counted: Counted
    overshoot: Decimal
    posted: Decimal
    reserved_after: Decimal
    unmetered: Decimal
    adds_up: bool


async def outcome(run: Counted, pool: Pool, account: int, spent: Decimal) -> Outcome:
    """What the rows say in the end. Overshoot: the most that any balance was ever over, or that was truly billed."""
    async with pool.acquire() as connection:
        worst = await database.worst_over(connection)
        row: dict[str, Any] = await database.books(connection, account, spent)
    over = max(worst, row["posted"] + row["reserved"] - study.BUDGET, run.truth - study.BUDGET, Decimal(0))
    return Outcome(run, over, row["posted"], row["reserved"], row["unmetered"], row["adds_up"] and not row["open"])
