"""The calls of gateway, agents, operator and sweeper, as the server makes them, and what they know of each other."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from talktime_ledger import wire
from talktime_ledger.desk import closing, lingering, losing, opening, using
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.granting import Renewal
from talktime_ledger.desk.pushing import push_project
from talktime_ledger.desk.together import Ask
from talktime_ledger.server.context import clock
from talktime_ledger.store import projects, sessions
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.wire import ProblemReason
from talktime_ledger.wire.resume import Lost

from .conftest import opening as session_open
from .lawful_agent import ZERO, Agent
from .stateful_world import GRACE_SEC, USD, VALID_SEC, Interview, Study, World


class Calls:
    """Two Projects and their sessions in one world."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        world = self.world
        world.examples += 1
        self.studies: list[Study] = []
        self.interviews: list[Interview] = []
        self.wire: list[Callable[[], Awaitable[Any]]] = []
        self.before: dict[int, Any] = {}
        self.sessions: dict[uuid.UUID, Any] = {}
        self.facts = ZERO
        self.together = self.rebudgeted = self.racing = self.broken = False
        self.ahead = timedelta()
        self.ids: list[uuid.UUID] = []
        self.story: list[str] = []
        self.set_clock()

    @contextmanager
    def telling(self, what: str) -> Iterator[None]:
        """The first thing that is wrong is kept as it was seen, with the steps that led to it: two transactions at once
        may not go the same way again.
        """
        self.story.append(what)
        try:
            yield
        except Exception as wrong:
            if not self.world.wrong:
                wrong.add_note("after\n  " + "\n  ".join(self.story))
                self.world.wrong.append(wrong)
            self.broken = True
            raise

    def run(self, work: Awaitable[Any]) -> Any:
        return self.world.run(work)

    @property
    def now(self) -> datetime:
        """The agents' clock agrees with the database's."""
        return datetime.now(UTC) + self.ahead

    def set_clock(self) -> None:
        async def set_it() -> None:
            async with self.world.pool.acquire() as connection:
                await connection.execute("UPDATE skew.clock SET ahead = $1", self.ahead)

        self.run(set_it())

    async def tell(self, study: Study) -> None:
        """The operator tells the Project as it is."""
        push = study.push()

        async def work(connection: Any) -> uuid.UUID:
            project, _ = await push_project(connection, "study", study.name, push, "test", await clock(connection))
            return project.id

        project_id = await self.world.do(work)
        if project_id not in self.ids:
            self.ids.append(project_id)

    def study_of(self, interview: Interview) -> Study:
        return next(study for study in self.studies if study.name == interview.project)

    def picked(self, pick: int) -> Interview | None:
        """One of the younger interviews that are open, else one of all."""
        if not self.interviews:
            return None
        running = [one for one in self.interviews if self.sessions.get(one.id, {"state": "open"})["state"] == "open"]
        recent = (running or self.interviews)[-3:] if pick < 5 else self.interviews[-6:]
        return recent[pick % len(recent)]

    def agents(self, pick: int, wanted: Callable[[Agent], bool]) -> list[Agent]:
        """Those of one interview that are wanted: the picked one, else the youngest that has any."""
        picked = self.picked(pick)
        for interview in (picked, *reversed(self.interviews)) if picked else ():
            found = [one for one in interview.agents if wanted(one)]
            if found:
                return found
        return []

    def agent(self, pick: int) -> Agent | None:
        """One that runs; as a rule the present one."""
        alive = self.agents(pick, lambda one: one.attached and not one.dead and one.last_word is None)
        return alive[-1 - (pick // 3) % len(alive)] if alive else None

    # the calls, as the server makes them

    async def open(self, study: Study, participant: str | None) -> SessionState | DeskError:
        request = session_open(study.name, participant_key=participant)

        async def work(connection: Any) -> SessionState:
            book, now = await self.world.rates.book(connection), await clock(connection)
            return await opening.open_session(connection, request, book, now, VALID_SEC)

        try:
            session: SessionState = await self.world.do(work)
        except DeskError as error:
            return error
        made = Interview(session.id, study.name)
        self.interviews.append(made)
        self.dispatch(made, session)
        return session

    def dispatch(self, interview: Interview, session: SessionState) -> None:
        """A job for the present epoch."""
        number = len(interview.agents)
        interview.agents.append(
            Agent(interview.id, interview.epoch, f"w{number}", session.hold * session.w_usd, session.goodbye_usd)
        )

    async def attach(self, agent: Agent, answered: bool) -> None:
        sent_at = self.now

        async def work(connection: Any) -> Renewal:
            found = await using.locked(connection, agent.session_id)
            request = wire.Attach(epoch=agent.epoch, worker=agent.worker)
            return await using.attach(connection, found, request, VALID_SEC)

        try:
            renewal = await self.world.do(work)
        except DeskError as error:
            assert error.reason in (ProblemReason.FENCED, ProblemReason.CLOSED), error
            agent.over = agent.dead = agent.silent = True
            return
        agent.came = True
        if answered:
            agent.granted(renewal.grant, sent_at)

    async def call_use(self, session_id: uuid.UUID, request: wire.Use) -> wire.Grant | DeskError:
        if self.together:
            # The hot way first, as the server does it.
            name = next(one.project for one in self.interviews if one.id == session_id)
            answer = await self.world.renewals.use(("study", name), Ask(session_id, request))
            if answer is not None:
                self.world.saw("renewed with others")
                return wire.Grant.model_validate_json(answer)

        async def work(connection: Any) -> Any:
            found = await using.locked(connection, session_id)
            book = await self.world.rates.book(connection, found.rates_revision)
            return await using.use(connection, found, request, book, VALID_SEC)

        result = await self.world.do(work)
        if isinstance(result, using.Refusal):
            return result.error
        return result.grant if isinstance(result, Renewal) else result

    async def use(self, agent: Agent, request: wire.Use, answered: bool = True) -> None:
        sent_at = self.now
        result = await self.call_use(agent.session_id, request)
        self.world.saw(result.reason.value if isinstance(result, DeskError) else f"granted {result.limit_state.value}")
        if not answered:
            return
        if isinstance(result, DeskError):
            agent.refused()
        else:
            assert result.reserved <= self.room_of(agent) or self.racing, "never more than the cap"
            agent.answered(request, result, sent_at)

    def room_of(self, agent: Agent) -> Decimal:
        """No session ever holds more than the dearest limit there is."""
        return USD("0.2")

    async def call_close(self, session_id: uuid.UUID, request: wire.Close, by_agent: bool) -> None:
        async def work(connection: Any) -> Any:
            found = await using.locked(connection, session_id)
            book = await self.world.rates.book(connection, found.rates_revision)
            return await closing.close(connection, found, request, book, by_agent=by_agent)

        await self.world.do(work)

    async def close(self, agent: Agent, reason: str, answered: bool = True) -> None:
        await self.call_close(agent.session_id, agent.closing(self.now, reason), True)
        agent.silent = agent.silent or answered

    async def lose(self, agent: Agent) -> None:
        """The worker main found its spool: its last word, and the session waits for the next agent."""
        told = agent.closing(self.now, "agent_died")
        request = Lost(epoch=told.epoch, n=told.n, usages=told.usages, unmetered=told.unmetered, reason=told.reason)

        async def work(connection: Any) -> Any:
            found = await using.locked(connection, agent.session_id)
            book = await self.world.rates.book(connection, found.rates_revision)
            return await losing.lose(connection, found, request, book)

        result = await self.world.do(work)
        agent.lost = agent.silent = True
        self.world.saw("lost too late" if isinstance(result, using.Refusal) else "lost")

    async def sweep_all(self) -> None:
        async with self.world.pool.acquire() as connection:
            overdue = await sessions.overdue(connection, GRACE_SEC)
        for session_id in overdue:
            if session_id in {interview.id for interview in self.interviews}:
                self.world.saw("swept")
                await self.world.do(lambda connection, one=session_id: closing.sweep(connection, one, GRACE_SEC))
        async with self.world.pool.acquire() as connection:
            left_behind = await sessions.lingering(connection)
        for session_id in left_behind:
            if session_id in {interview.id for interview in self.interviews}:
                self.world.saw("the room's reserve was released")
                await self.world.do(lambda connection, one=session_id: lingering.release_overdue(connection, one))

    def present_account(self, which: int) -> Any:
        """The Project's newest account of this month and generation, as the last check read it."""
        study = self.studies[which]
        period = "total" if study.period == "Total" else self.now.strftime("%Y-%m")
        rows = [
            row
            for row in self.before.values()
            if row["kind"] == "project"
            and row["project_id"] == self.ids[which]
            and (row["period"], row["generation"]) == (period, study.generation)
        ]
        return rows[0] if rows else {"budget": USD(study.amount), "posted": ZERO, "reserved": ZERO}

    def w(self, study: Study) -> Decimal:
        """W of these caps on this model, worked out by hand: 130 bytes of instructions are text, 1,000 tokens of
        context and 250 of answer are speech, one minute is transcribed.
        """
        return self.terms(study).verdict.w

    def fixed(self, study: Study) -> Decimal:
        """C and the transport reserve."""
        terms = self.terms(study)
        return terms.verdict.goodbye + terms.transport_hold

    def terms(self, study: Study) -> opening.Terms:
        async def work(connection: Any) -> opening.Terms:
            project = await projects.find(connection, "study", study.name)
            assert project is not None
            book = await self.world.rates.book(connection)
            return opening.terms_of(project, "main", book, await clock(connection))

        found: opening.Terms = self.run(self.world.do(work))
        return found
