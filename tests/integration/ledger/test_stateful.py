"""Any interleaving of what can happen to sessions keeps the money laws, on real PostgreSQL with a clock of our own.

The desk's transactions run as the server runs them, again after a lost race; two at a time where a rule says so.
After every step the books are recomputed from rows. TALKTIME_STATEFUL_EXAMPLES=2000 runs longer (50 steps an example)
and, unlike CI, with other examples each time; a failure prints the steps that led to it.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_UP, Decimal
from typing import Any, ClassVar

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from talktime_ledger import wire
from talktime_ledger.core.grants import admit_floor
from talktime_ledger.desk import closing, lost, opening, using
from talktime_ledger.desk.errors import DeskError, GrantRaceError
from talktime_ledger.desk.granting import Renewal
from talktime_ledger.desk.pricing import RateDesk
from talktime_ledger.desk.pushing import push_project
from talktime_ledger.desk.snapshots import Snapshots
from talktime_ledger.desk.together import Ask, Desk
from talktime_ledger.desk.transport import report_transport
from talktime_ledger.server.context import clock
from talktime_ledger.server.renewals import Renewals
from talktime_ledger.store import accounts, projects, sessions
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.wire import ProblemReason

from .conftest import TRANSCRIBE, project_push, rate_card
from .conftest import opening as session_open
from .lawful_agent import TOKEN, ZERO, Agent

EXAMPLES = int(os.environ.get("TALKTIME_STATEFUL_EXAMPLES", "0"))
STEPS = 50
VALID_SEC, GRACE_SEC = 300, 60
USD = Decimal

# The functions come before those of the system where a connection says so: the database's clock is ours.
SKEW = """
CREATE SCHEMA skew;
CREATE TABLE skew.clock (ahead interval NOT NULL);
INSERT INTO skew.clock VALUES ('0');
CREATE FUNCTION skew.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
  'SELECT pg_catalog.clock_timestamp() + ahead FROM skew.clock';
CREATE FUNCTION skew.now() RETURNS timestamptz LANGUAGE sql STABLE AS
  'SELECT pg_catalog.now() + ahead FROM skew.clock';
"""

ACCOUNTS = """SELECT a.id, a.kind, a.generation, a.period, a.budget, a.posted, a.reserved, a.open_sessions, a.soft_at,
    (SELECT COALESCE(SUM(s.reserved), 0) FROM sessions s WHERE s.project_id = a.project_id
       AND a.id IN (s.account_id, s.participant_account_id)) AS held,
    (SELECT COUNT(*) FROM sessions s WHERE s.project_id = a.project_id
       AND a.id IN (s.account_id, s.participant_account_id) AND s.state = 'open') AS open,
    (SELECT COALESCE(SUM(e.amount_usd), 0) FROM entries e JOIN sessions s ON s.id = e.session_id
       WHERE s.project_id = a.project_id AND a.id IN (e.account_id, e.participant_account_id)) AS entered
  FROM accounts a WHERE a.project_id = ANY($1)"""

SESSIONS = """SELECT s.id, s.account_id, s.state, s.epoch, s.limit_usd, s.posted, s.reserved, s.transport_hold_usd,
    COALESCE(e.budgeted, 0) AS budgeted, COALESCE(e.ai, 0) AS ai, COALESCE(e.every, 0) AS every,
    COALESCE(e.unmetered, 0) AS unmetered, COALESCE(e.entries, 0) AS entries,
    COALESCE(c.ai, 0) AS costs_ai, COALESCE(c.every, 0) AS costs_every, COALESCE(c.unmetered, 0) AS costs_unmetered
  FROM sessions s
  LEFT JOIN LATERAL (SELECT SUM(amount_usd) FILTER (WHERE account_id IS NOT NULL) AS budgeted,
      SUM(amount_usd) FILTER (WHERE leg = 'ai') AS ai, SUM(amount_usd) AS every, SUM(unmetered_usd) AS unmetered,
      COUNT(*) AS entries FROM entries WHERE session_id = s.id) e ON TRUE
  LEFT JOIN LATERAL (SELECT SUM(ai_cost_usd) AS ai, SUM(total_cost_usd) AS every, SUM(unmetered_usd) AS unmetered
      FROM session_costs WHERE session_id = s.id) c ON TRUE
  WHERE s.project_id = ANY($1)"""


@dataclass
class World:
    """One database for all examples; each example has Projects of its own."""

    loop: asyncio.AbstractEventLoop
    pool: Any
    rates: RateDesk = field(default_factory=RateDesk)
    renewals: Renewals = field(init=False)
    examples: int = 0
    steps: int = 0
    transactions: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.renewals = Renewals(self.transaction, Desk(self.rates, projects.Projects(), Snapshots(), VALID_SEC))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """One transaction."""
        self.transactions += 1
        async with self.pool.acquire() as connection, connection.transaction():
            yield connection

    def run(self, work: Awaitable[Any]) -> Any:
        """Waits for it."""
        return self.loop.run_until_complete(work)

    async def do(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """One transaction as the server runs it."""
        for _ in range(25):
            try:
                async with self.transaction() as connection:
                    return await work(connection)
            except (GrantRaceError, asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError) as lost_race:
                self.saw(type(lost_race).__name__)
        raise AssertionError("no end of races")

    def saw(self, what: str) -> None:
        """Counts what happened, so that a run can say what it has been through."""
        self.outcomes[what] = self.outcomes.get(what, 0) + 1


async def _pool(url: str) -> Any:
    from talktime_ledger.store.database import _prepare

    path = {"search_path": "skew, public, pg_catalog", "timezone": "UTC", "statement_timeout": "20000"}
    return await asyncpg.create_pool(url, min_size=2, max_size=3, init=_prepare, server_settings=path)


async def _prepared(url: str) -> Any:
    connection = await asyncpg.connect(url)
    await connection.execute(SKEW)
    await connection.close()
    pool = await _pool(url)
    async with pool.acquire() as connection:
        cards = {
            "mini": rate_card(),
            "transcribe": rate_card("gpt-4o-mini-transcribe", TRANSCRIBE),
            "here": _transport_card("selfhosted", "20"),
            "cloud": _transport_card("livekit", "40"),
        }
        for name, card in cards.items():
            body = card.model_dump(mode="json", by_alias=True, exclude_none=True)
            await connection.execute("INSERT INTO rate_cards (name, spec) VALUES ($1, $2)", name, body)
        await projects.bump(connection, "rates")
    return pool


def _transport_card(vendor: str, usd_per_million_seconds: str) -> Any:
    card = rate_card("participant", {"participant_seconds": usd_per_million_seconds})
    return card.model_copy(update={"provider": type(card.provider)(vendor)})


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A fresh database with the clock of our own."""
    loop = asyncio.new_event_loop()
    made = World(loop, loop.run_until_complete(_prepared(database_url)))
    yield made
    loop.run_until_complete(made.pool.close())
    loop.close()


@dataclass
class Interview:
    """One session as gateway and agents know it."""

    id: uuid.UUID
    project: str
    epoch: int = 1
    agents: list[Agent] = field(default_factory=list)
    seconds: int = 0


@dataclass
class Study:
    """A Project's spec as it is pushed."""

    name: str
    amount: str
    limit: str
    floor: str | None = None
    participant: str | None = None
    period: str = "Total"
    generation: int = 1
    transport: bool = False
    outage: str | None = None
    soft: int = 80
    policy: str = "WrapUpIfShort"
    paused: bool = False
    revision: int = 0

    def push(self) -> wire.ProjectPush:
        """As the operator tells it."""
        self.revision += 1
        session: dict[str, Any] = {"limit": self.limit}
        if self.floor:
            session["admitFloor"] = self.floor
        budget: dict[str, Any] = {
            "session": session,
            "period": self.period,
            "accountGeneration": self.generation,
            "includeTransport": self.transport,
            "softPercent": self.soft,
            "onProjectSoft": self.policy,
        }
        if self.participant:
            budget["participant"] = {"limit": self.participant}
        if self.outage:
            budget["outageReserve"] = self.outage
        return project_push(self.amount, self.limit, generation=self.revision, paused=self.paused, budget=budget)


PICK = st.integers(0, 5)
QUARTERS = st.integers(0, 4)
FATE = st.sampled_from(["answered", "answered", "answered", "reply lost", "lost", "delayed", "twice"])
AMOUNTS = ("0.04", "0.08", "0.15", "0.3", "0.6")
EDITS = st.sampled_from(
    [
        *(("amount", value) for value in AMOUNTS),
        ("limit", "0.09"),
        ("limit", "0.2"),
        ("participant", "0.06"),
        ("participant", "0.2"),
        ("paused", True),
        ("paused", False),
        ("paused", False),
        ("generation", 1),
        ("transport", True),
        ("transport", False),
        ("outage", "0.03"),
        ("outage", None),
        ("floor", "0.03"),
        ("policy", "WrapUpLive"),
        ("policy", "Notify"),
        ("soft", 30),
    ]
)


class Interleavings(RuleBasedStateMachine):
    """The steps, and what must hold after each."""

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
        self.dirty = True
        self.facts = ZERO
        self.together = self.rebudgeted = self.racing = False
        self.ahead = timedelta()
        self.ids: list[uuid.UUID] = []
        self.set_clock()

    # what there is

    @initialize(
        amounts=st.tuples(st.sampled_from(AMOUNTS), st.sampled_from(AMOUNTS)),
        capped=st.booleans(),
        transport=st.booleans(),
        soft=st.sampled_from([20, 80]),
        together=st.booleans(),
    )
    def begin(self, amounts: tuple[str, str], capped: bool, transport: bool, soft: int, together: bool) -> None:
        """Two Projects: one for good, one by the month. `together`: renewals take the hot way."""
        self.together = together
        tag = uuid.uuid4().hex[:8]
        first = Study(f"a{tag}", amounts[0], "0.15", floor="0.03", soft=soft, transport=transport)
        second = Study(
            f"b{tag}", amounts[1], "0.2", floor="0.03", period="Monthly", participant="0.1" if capped else None
        )
        self.studies = [first, second]
        for study in self.studies:
            self.run(self.tell(study))
            for participant in (None, "p1"):
                if not isinstance(self.run(self.open(study, participant)), DeskError):
                    self.run(self.attach(self.interviews[-1].agents[-1], True))
        self.check()

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

    def picked(self, pick: int) -> Interview:
        """One of the younger interviews that are open, else one of all."""
        running = [one for one in self.interviews if self.sessions.get(one.id, {"state": "open"})["state"] == "open"]
        recent = (running or self.interviews)[-3:] if pick < 5 else self.interviews[-6:]
        return recent[pick % len(recent)]

    def agent(self, pick: int) -> Agent | None:
        """One that runs; as a rule the present one."""
        interview = self.picked(pick)
        alive = [one for one in interview.agents if one.attached and not one.dead and one.last_word is None]
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

    async def sweep_all(self) -> None:
        async with self.world.pool.acquire() as connection:
            overdue = await sessions.overdue(connection, GRACE_SEC)
        for session_id in overdue:
            if session_id in {interview.id for interview in self.interviews}:
                self.world.saw("swept")
                await self.world.do(lambda connection, one=session_id: closing.sweep(connection, one, GRACE_SEC))

    # steps

    @rule(which=st.integers(0, 1), participant=st.sampled_from([None, "p1", "p2"]))
    def opens(self, which: int, participant: str | None) -> None:
        """A client comes; a refusal for want of money must be true."""
        study = self.studies[which]
        result = self.run(self.open(study, participant))
        if isinstance(result, DeskError):
            self.world.saw(f"refused {result.reason.value}")
            if result.reason is ProblemReason.BUDGET_EXHAUSTED:
                assert result.available is not None and result.needed is not None
                account = self.present_account(which)
                available = account["budget"] - account["posted"] - account["reserved"] if account else None
                assert result.available == available, "the refusal says what there is"
                floor = admit_floor(
                    USD(study.floor) if study.floor else None, self.w(study), self.fixed(study), USD(study.limit)
                )
                assert result.needed == floor
                assert result.available < floor, "no refusal while there is enough"
            return
        self.world.saw("opened")
        if participant != "p2":
            self.run(self.attach(self.interviews[-1].agents[-1], True))
        self.check()

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

    @precondition(lambda self: self.interviews)
    @rule(pick=PICK, answered=st.sampled_from([True, True, False]))
    def attaches(self, pick: int, answered: bool) -> None:
        """The job of the present epoch comes up; its reply may be lost."""
        waiting = [agent for agent in self.picked(pick).agents if not agent.attached and not agent.dead]
        if waiting:
            self.run(self.attach(waiting[-1], answered))
            self.check()

    TALK: ClassVar[dict[str, Any]] = {
        "pick": PICK,
        "starts": st.integers(0, 4),
        "ends": st.lists(QUARTERS, max_size=4),
        "told": st.sampled_from([None, None, 2]),
        "early": st.integers(0, 2),
        "fate": FATE,
    }

    @precondition(lambda self: self.interviews)
    @rule(**TALK)
    def talks(self, pick: int, starts: int, ends: list[int], told: int | None, early: int, fate: str) -> None:
        """Responses start and end, one may be told of in part; then it charges, and `early` start before the answer."""
        agent = self.agent(pick)
        if agent is None or not (agent.attached or agent.over):
            return
        for _ in range(starts):
            agent.start(self.now)
        for quarters in ends:
            agent.finish(quarters)
        if told is not None:
            agent.snapshot(told)
        if agent.over:
            return
        request = agent.next_use(self.now)
        for _ in range(early):
            agent.start(self.now)
        self.send(agent, request, fate)

    @precondition(lambda self: self.interviews)
    @rule(**TALK)
    def talks_on(self, pick: int, starts: int, ends: list[int], told: int | None, early: int, fate: str) -> None:
        """The same, twice as often."""
        self.talks(pick, starts, ends, told, early, fate)

    def send(self, agent: Agent, request: wire.Use, fate: str) -> None:
        """Over a bad network."""
        if fate in ("delayed", "twice"):
            self.wire.append(lambda: self.call_use(agent.session_id, request))
        if fate not in ("lost", "delayed"):
            self.run(self.use(agent, request, answered=fate != "reply lost"))
        self.check()

    @precondition(lambda self: self.interviews)
    @rule(pick=PICK)
    def says_goodbye(self, pick: int) -> None:
        """Spends C, and whatever is open to the last."""
        agent = self.agent(pick)
        if agent is not None:
            agent.say_goodbye()
            self.check()

    @precondition(lambda self: self.interviews)
    @rule(pick=PICK)
    def spends_everything_it_holds(self, pick: int) -> None:
        """Cut off from the ledger it goes on to the end of its reservation."""
        agent = self.agent(pick)
        if agent is None:
            return
        while agent.start(self.now):
            agent.finish(4)
        agent.say_goodbye()
        self.check()

    @precondition(lambda self: self.wire)
    @rule(pick=PICK)
    def delivers_late(self, pick: int) -> None:
        """A request of long ago arrives, or arrives again."""
        self.run(self.wire[pick % len(self.wire)]())
        self.world.saw("delivered late")
        self.check()

    @precondition(lambda self: self.interviews)
    @rule(pick=PICK, fate=FATE)
    def closes(self, pick: int, fate: str) -> None:
        """An agent ends its session; what is open stands at its bound."""
        agent = self.agent(pick)
        if agent is None or not (agent.attached or agent.over):
            return
        request = agent.closing(self.now, "done")
        if fate in ("delayed", "twice"):
            self.wire.append(lambda: self.call_close(agent.session_id, request, True))
        if fate not in ("lost", "delayed"):
            self.run(self.close(agent, "done", answered=fate != "reply lost"))
        self.check()

    @precondition(lambda self: self.interviews)
    @rule(pick=PICK, spool=st.booleans())
    def crashes(self, pick: int, spool: bool) -> None:
        """kill -9, with the spool or without."""
        agent = self.agent(pick)
        if agent is not None:
            agent.over = agent.dead = True
            agent.silent = agent.silent or not spool
            self.world.saw("crashed")

    @precondition(lambda self: self.interviews)
    @rule(pick=PICK)
    def replays(self, pick: int) -> None:
        """The worker main finds spools of dead jobs; repeats of last words."""
        for agent in self.picked(pick).agents:
            if (agent.dead and not agent.silent) or agent.last_word is not None:
                self.world.saw("replayed")
                self.run(self.close(agent, "agent_died"))
        self.check()

    @precondition(lambda self: self.interviews)
    @rule(pick=PICK)
    def tells_the_truth_late(self, pick: int) -> None:
        """What stood at its bound is metered after all."""
        for agent in self.picked(pick).agents:
            for key, bound in list(agent.unmetered.items()):
                if agent.last_word is None or key.endswith("/rest"):
                    continue
                agent.spent[key] = int(bound / 2 / TOKEN)
                request = wire.Use(epoch=agent.epoch, n=agent.n + 2, usages=agent.usages(self.now))
                self.run(self.call_use(agent.session_id, request))
                del agent.unmetered[key]
        self.check()

    @precondition(lambda self: self.interviews)
    @rule(pick=PICK, comes=st.sampled_from([True, True, False]))
    def claims(self, pick: int, comes: bool) -> None:
        """The watcher gives the session to another job, which comes up; the old one may not know for long."""
        interview = self.picked(pick)

        async def work(connection: Any) -> SessionState:
            found = await using.locked(connection, interview.id)
            return await using.claim(connection, found, wire.Claim(epoch=interview.epoch + 1, reason="gone"), VALID_SEC)

        try:
            session = self.run(self.world.do(work))
        except DeskError as error:
            assert error.reason is ProblemReason.CLOSED, error
            return
        interview.epoch = session.epoch
        self.world.saw("claimed")
        self.dispatch(interview, session)
        if comes:
            self.run(self.attach(interview.agents[-1], True))
        self.check()

    @precondition(lambda self: self.interviews)
    @rule(pick=PICK)
    def gateway_closes(self, pick: int) -> None:
        """A room vanished; refused while an agent holds the session."""
        interview = self.picked(pick)
        try:
            request = wire.Close(epoch=interview.epoch, reason="room_vanished")
            self.run(self.call_close(interview.id, request, False))
            self.world.saw("closed by the gateway")
        except DeskError as error:
            assert error.reason is ProblemReason.CONFLICT, error
        self.check()

    @rule(seconds=st.sampled_from([20, 20, 100, 100, 250, 400, None]))
    def time_passes(self, seconds: int | None) -> None:
        """Then the sweeper comes. None: ten seconds into the next month."""
        if seconds is None:
            self.turn_the_month()
        else:
            self.ahead += timedelta(seconds=seconds)
            self.set_clock()
            self.run(self.sweep_all())
        self.check()

    def turn_the_month(self) -> None:
        """Nobody is swept on the way (the ledger slept too: validity is extended by its downtime)."""
        now = self.now
        first = (now.replace(day=1, hour=0, minute=0, second=10) + timedelta(days=32)).replace(day=1)
        gap = first - now
        self.ahead += gap
        self.set_clock()

        async def extend() -> None:
            async with self.world.pool.acquire() as connection:
                await connection.execute(
                    "UPDATE sessions SET valid_until = valid_until + $1 WHERE state = 'open' AND project_id = ANY($2)",
                    gap,
                    self.ids,
                )

        self.run(extend())
        for interview in self.interviews:
            for agent in interview.agents:
                if agent.valid_until is not None:
                    agent.valid_until += gap
        self.world.saw("the month turned")

    @rule(which=st.integers(0, 1), edit=EDITS)
    def edits(self, which: int, edit: tuple[str, Any]) -> None:
        """The Project is changed."""
        study, (name, value) = self.studies[which], edit
        if name == "participant" and study.participant is None:
            return
        if name == "limit":
            study.floor = None
        setattr(study, name, study.generation + 1 if name == "generation" else value)
        self.rebudgeted = True
        self.run(self.tell(study))
        self.world.saw(f"edited {name}")
        self.check()

    @rule(which=st.integers(0, 1))
    def is_recreated(self, which: int) -> None:
        """Deleted and made anew: the same account."""
        study = self.studies[which]
        self.run(self.world.do(lambda connection: projects.mark_deleted(connection, "study", study.name)))
        refusal = self.run(self.open(study, None))
        assert isinstance(refusal, DeskError) and refusal.reason is ProblemReason.NOT_FOUND
        self.run(self.tell(study))
        self.check()

    @precondition(lambda self: self.interviews)
    @rule(pick=PICK, seconds=st.sampled_from([15, 30, 400]), mode=st.sampled_from(["selfhosted", "cloud"]))
    def people_are_in_the_room(self, pick: int, seconds: int, mode: str) -> None:
        """The gateway reports participant seconds; what goes beyond the transport reserve is a fact."""
        interview = self.picked(pick)
        interview.seconds += seconds
        request = wire.Transport.model_validate(
            {"participant_seconds": {f"p{index}": interview.seconds for index in range(3)}, "mode": mode}
        )
        before = self.sessions[interview.id]

        async def work(connection: Any) -> SessionState:
            found = await using.locked(connection, interview.id)
            book = await self.world.rates.book(connection, found.rates_revision)
            return await report_transport(connection, found.project, found.session, request, book, found.now)

        after = self.run(self.world.do(work))
        pot = min(before["transport_hold_usd"], before["reserved"])
        self.facts = max(ZERO, after.posted - before["posted"] - pot)
        self.check()

    @precondition(lambda self: self.interviews)
    @rule(kinds=st.lists(st.integers(0, 5), min_size=2, max_size=3), which=st.integers(0, 1), tight=st.booleans())
    def at_once(self, kinds: list[int], which: int, tight: bool) -> None:
        """Two or three transactions at the same time on one account; `tight`: it has enough for one of them."""
        picks = range(len(kinds))
        if tight:
            account, study = self.present_account(which), self.studies[which]
            enough = account["posted"] + account["reserved"] + USD("0.045")
            study.amount, study.paused = f"{enough.quantize(USD('0.000001'), rounding=ROUND_UP)}", False
            self.rebudgeted = True
            self.run(self.tell(study))
            self.check()
        works = [work for pick, kind in zip(picks, kinds, strict=True) if (work := self.one_of(pick, kind, which))]

        async def both() -> None:
            await asyncio.gather(*(work() for work in works))

        self.racing = True
        self.run(both())
        self.world.saw("raced")
        self.check()
        self.racing = False

    def one_of(self, pick: int, kind: int, which: int) -> Callable[[], Awaitable[Any]] | None:
        """What one of the racers does."""
        study = self.studies[which]
        if kind in (0, 1):
            return lambda: self.open(study, "p1")
        if kind == 2:
            study.amount = AMOUNTS[self.world.steps % len(AMOUNTS)]
            self.rebudgeted = True
            return lambda: self.tell(study)
        agent = self.agent(pick)
        if agent is None or agent.over or not agent.attached or agent.pending is not None:
            return None
        while agent.start(self.now):
            agent.finish(4)
        if kind in (3, 5):
            request = agent.next_use(self.now)
            return lambda: self.use(agent, request)
        agent.closing(self.now, "done")
        return lambda: self.close(agent, "done")

    # what must hold

    def check(self) -> None:
        """The laws, recomputed from rows."""
        self.world.steps += 1
        rows, found = self.run(self.books())
        for row in rows:
            self.check_account(row)
        for row in found:
            self.check_session(row)
        self.before = {row["id"]: row for row in rows}
        self.sessions = {row["id"]: row for row in found}
        self.facts, self.rebudgeted = ZERO, False

    async def books(self) -> tuple[list[Any], list[Any]]:
        async with self.world.pool.acquire() as connection:
            rows = await connection.fetch(ACCOUNTS.replace("a.id,", "a.id, a.project_id,", 1), self.ids)
            return rows, await connection.fetch(SESSIONS, self.ids)

    def check_account(self, row: Any) -> None:
        total, before = row["posted"] + row["reserved"], self.before.get(row["id"])
        allowed = row["budget"]
        if before is not None:
            allowed = max(allowed, before["posted"] + before["reserved"])
            if self.racing and self.rebudgeted:
                allowed = max(allowed, before["budget"])
        assert total <= allowed + self.facts, ("over the budget", dict(row))
        assert row["reserved"] == row["held"], ("reserved is not what the sessions hold", dict(row))
        assert row["posted"] == row["entered"], ("posted is not the sum of the entries", dict(row))
        assert row["open_sessions"] == row["open"], dict(row)
        if before is not None and row["budget"] == before["budget"] and before["soft_at"] is not None:
            assert row["soft_at"] == before["soft_at"], ("latched twice", dict(row))
        if row["soft_at"] is not None and (before is None or before["soft_at"] is None) and not self.racing:
            softs = [study.soft for study, one in zip(self.studies, self.ids, strict=True) if one == row["project_id"]]
            assert row["posted"] >= row["budget"] * softs[0] / 100, ("latched too early", dict(row))

    def check_session(self, row: Any) -> None:
        total, before = row["posted"] + row["reserved"], self.sessions.get(row["id"])
        allowed = row["limit_usd"]
        if before is not None:
            allowed = max(allowed, before["posted"] + before["reserved"])
            assert row["entries"] >= before["entries"], "entries are append-only"
        assert total <= allowed + self.facts, ("over the session limit", dict(row))
        assert row["state"] == "open" or row["reserved"] == 0, dict(row)
        assert row["posted"] == row["budgeted"], dict(row)
        assert (row["ai"], row["every"]) == (row["costs_ai"], row["costs_every"]), ("session_costs", dict(row))
        assert row["unmetered"] == row["costs_unmetered"], dict(row)
        interview = next((one for one in self.interviews if one.id == row["id"]), None)
        if interview is None:
            return
        # The law behind the laws: whatever its agents really spent, told or not, is posted or reserved.
        spent = sum((agent.true_cost for agent in interview.agents), ZERO)
        covered = row["ai"] + row["reserved"] - min(row["transport_hold_usd"], row["reserved"])
        assert spent <= covered, ("spent and neither posted nor reserved", spent, covered, dict(row))

    def teardown(self) -> None:
        """Everybody ends: nothing is held, and what is posted is what was spent."""
        if not self.ids:
            return
        for interview in self.interviews:
            for agent in interview.agents:
                if not agent.silent and (agent.attached or agent.over):
                    self.run(self.close(agent, "over"))
        self.ahead += timedelta(seconds=VALID_SEC + GRACE_SEC + 400)
        self.set_clock()
        self.run(self.sweep_all())
        self.check()
        for row in self.before.values():
            assert (row["reserved"], row["open_sessions"]) == (0, 0), ("phantom hold", dict(row))
        for interview in self.interviews:
            row = self.sessions[interview.id]
            assert row["state"] == "closed"
            if all(agent.last_word is not None or not agent.came for agent in interview.agents):
                told = sum((agent.true_cost + sum(agent.unmetered.values()) for agent in interview.agents), ZERO)
                assert row["ai"] == told, ("every token is counted once", told, dict(row))


def machine_of(world: World) -> type[Interleavings]:
    """The machine on a database."""
    return type("InterleavingsHere", (Interleavings,), {"world": world})


def plan(examples: int, *, ci: bool = True, **more: Any) -> settings:
    """The same examples every time in CI."""
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        derandomize=ci,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def test_any_interleaving_keeps_the_laws(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    machine = machine_of(world)
    run_state_machine_as_test(machine, settings=plan(EXAMPLES or 300, ci=not EXAMPLES))
    seconds = time.monotonic() - begun
    with capsys.disabled():
        print(
            f"\nstateful: {world.steps} steps in {world.examples} examples, {world.transactions} transactions, "
            f"{seconds:.0f} s, {world.steps / seconds:.0f} steps/s; {dict(sorted(world.outcomes.items()))}"
        )
    assert EXAMPLES or world.steps >= 10_000


async def _unguarded(connection: Any, account_id: int, move: accounts.Move) -> accounts.Account:
    """The grant as anybody would write it first: read, look, then write."""
    return await accounts.settle(connection, account_id, move)


def test_without_the_guard_the_machine_finds_an_overdraft(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def drop() -> None:
        async with world.pool.acquire() as connection:
            await connection.execute("ALTER TABLE accounts DROP CONSTRAINT never_over_budget")

    world.run(drop())
    monkeypatch.setattr(accounts, "grant", _unguarded)
    with pytest.raises(AssertionError, match="over the"):
        run_state_machine_as_test(machine_of(world), settings=plan(100, phases=[Phase.generate]))


def _one_w(session: SessionState) -> Decimal:
    """The rule before ADR 4: one worst case, or what was last said to be in flight."""
    if session.worker is None:
        return ZERO
    held = max(ZERO, session.reserved - session.fixed)
    return min(held, max(session.hold * session.w_usd, session.in_flight))


def test_with_one_w_for_a_lost_agent_the_machine_finds_unpaid_speech(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "held_by_agent", _one_w)
    with pytest.raises(AssertionError, match="neither posted nor reserved"):
        run_state_machine_as_test(machine_of(world), settings=plan(100, phases=[Phase.generate]))


def cut_off_and_replayed(world: World) -> None:
    """ADR 4's example: one spends all it holds unheard and is swept, others take what is free, its spool comes back."""
    machine = machine_of(world)()
    # Enough for the two that are open, and for one more only with what a sweep releases.
    machine.begin(("0.1", "0.04"), capped=False, transport=False, soft=80, together=False)
    lost_one, other = (one.agents[0] for one in machine.interviews[:2])
    while lost_one.start(machine.now):
        lost_one.finish(4)
    lost_one.say_goodbye()
    assert lost_one.true_cost > lost_one.w, "more than one W"
    for seconds in (250, 250):
        machine.ahead += timedelta(seconds=seconds)
        machine.set_clock()
        machine.run(machine.use(other, other.next_use(machine.now)))
        machine.run(machine.sweep_all())
    study = machine.study_of(machine.interviews[0])
    while not isinstance(machine.run(machine.open(study, None)), DeskError):
        machine.run(machine.attach(machine.interviews[-1].agents[-1], True))
    takers = [one.agents[-1] for one in machine.interviews if one.project == study.name][1:]
    for agent in takers * 8:
        while agent.start(machine.now):
            agent.finish(4)
        machine.run(machine.use(agent, agent.next_use(machine.now)))
    machine.run(machine.close(lost_one, "agent_died"))
    machine.check()


def test_an_agent_cut_off_spends_all_it_held_and_nobody_goes_over(world: World) -> None:
    cut_off_and_replayed(world)


def test_with_one_w_for_a_lost_agent_its_spool_overdraws_the_budget(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "held_by_agent", _one_w)
    with pytest.raises(AssertionError, match="over the budget"):
        cut_off_and_replayed(world)
