"""What can happen to sessions, in any order: the steps of the stateful test."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import ROUND_UP
from enum import Enum
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from talktime_ledger import wire
from talktime_ledger.core.grants import admit_floor
from talktime_ledger.desk import using
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.lingering import LINGER_SEC
from talktime_ledger.desk.pushing import delete_project
from talktime_ledger.desk.transport import report_transport
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.wire import ProblemReason

from .lawful_agent import TOKEN, ZERO, Agent
from .stateful_books import Books
from .stateful_world import AMOUNTS, GRACE_SEC, USD, VALID_SEC, Interview, Study

PICK = st.integers(0, 5)
QUARTERS = st.integers(0, 4)
FATE = st.sampled_from(["answered", "answered", "answered", "reply lost", "lost", "delayed", "twice"])
EDITS = st.sampled_from(
    [
        *(("amount", value) for value in AMOUNTS),
        ("limit", "0.09"),
        ("limit", "0.2"),
        ("participant", "0.06"),
        ("participant", "0.2"),
        ("participant", None),
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
        ("soft", 80),
    ]
)


class Idle(Enum):
    """What a step returns that found nothing to act on; None: it did something."""

    IDLE = "idle"


IDLE = Idle.IDLE


def step(act: Callable[..., Idle | None]) -> Callable[..., None]:
    """Runs a rule, then checks the laws. What is drawn never depends on what there is, because that depends on races:
    a rule may find nothing to act on, and such a step is not counted.
    """

    @functools.wraps(act)
    def stepped(self: Interleavings, **drawn: Any) -> None:
        told = f"{act.__name__}({', '.join(f'{name}={value!r}' for name, value in drawn.items())})"
        with self.telling(told):
            if act(self, **drawn) is IDLE:
                self.world.idle += 1
                return
            self.check()
            self.world.steps += 1

    return stepped


class Interleavings(Books, RuleBasedStateMachine):
    """The steps."""

    @initialize(
        amounts=st.tuples(st.sampled_from(AMOUNTS), st.sampled_from(AMOUNTS)),
        capped=st.booleans(),
        transport=st.booleans(),
        soft=st.sampled_from([20, 80]),
        together=st.booleans(),
    )
    def begins(self, **drawn: Any) -> None:
        """Two Projects with interviews."""
        with self.telling(f"begins({drawn})"):
            self.begin(**drawn)

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

    @rule(which=st.integers(0, 1), participant=st.sampled_from([None, "p1", "p2"]))
    @step
    def opens(self, which: int, participant: str | None) -> Idle | None:
        """A client comes."""
        self.comes(which, participant)
        return None

    def comes(self, which: int, participant: str | None) -> None:
        """A refusal for want of money must be true."""
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

    @rule(pick=PICK, answered=st.sampled_from([True, True, False]))
    @step
    def attaches(self, pick: int, answered: bool) -> Idle | None:
        """The job of the present epoch comes up; its reply may be lost."""
        waiting = self.agents(pick, lambda one: not one.attached and not one.dead)
        if not waiting:
            return IDLE
        self.run(self.attach(waiting[-1], answered))
        return None

    TALK: ClassVar[dict[str, Any]] = {
        "pick": PICK,
        "starts": st.integers(0, 4),
        "ends": st.lists(QUARTERS, max_size=4),
        "told": st.sampled_from([None, None, 2]),
        "early": st.integers(0, 2),
        "fate": FATE,
    }

    @rule(**TALK)
    @step
    def talks(self, **drawn: Any) -> Idle | None:
        """Responses start and end, one may be told of in part; then it charges, and `early` start before the answer."""
        return self.talk(**drawn)

    @rule(**TALK)
    @step
    def talks_on(self, **drawn: Any) -> Idle | None:
        """The same, twice as often."""
        return self.talk(**drawn)

    def talk(self, pick: int, starts: int, ends: list[int], told: int | None, early: int, fate: str) -> Idle | None:
        agent = self.agent(pick)
        if agent is None:
            # Nobody is talking: a client comes.
            self.comes(pick % 2, None)
            return None
        spent = dict(agent.spent)
        for _ in range(starts):
            agent.start(self.now)
        for quarters in ends:
            agent.finish(quarters)
        if told is not None:
            agent.snapshot(told)
        if agent.over:
            # Fenced or refused: what was open may still end, nothing is asked any more.
            return None if agent.spent != spent else IDLE
        request = agent.next_use(self.now)
        for _ in range(early):
            agent.start(self.now)
        self.send(agent, request, fate)
        return None

    def send(self, agent: Agent, request: wire.Use, fate: str) -> None:
        """Over a bad network."""
        if fate in ("delayed", "twice"):
            self.wire.append(lambda: self.call_use(agent.session_id, request))
        if fate not in ("lost", "delayed"):
            self.run(self.use(agent, request, answered=fate != "reply lost"))

    @rule(pick=PICK)
    @step
    def says_goodbye(self, pick: int) -> Idle | None:
        """Spends C, and whatever is open to the last."""
        agent = self.agent(pick)
        return None if agent is not None and agent.say_goodbye() else IDLE

    @rule(pick=PICK)
    @step
    def spends_everything_it_holds(self, pick: int) -> Idle | None:
        """Cut off from the ledger it goes on to the end of its reservation."""
        agent = self.agent(pick)
        if agent is None:
            return IDLE
        spent = dict(agent.spent)
        while agent.start(self.now):
            agent.finish(4)
        agent.say_goodbye()
        return None if agent.spent != spent else IDLE

    @rule(pick=PICK)
    @step
    def delivers_late(self, pick: int) -> Idle | None:
        """A request of long ago arrives, or arrives again."""
        if not self.wire:
            return IDLE
        self.run(self.wire[pick % len(self.wire)]())
        self.world.saw("delivered late")
        return None

    @rule(pick=PICK, fate=FATE)
    @step
    def closes(self, pick: int, fate: str) -> Idle | None:
        """An agent ends its session; what is open stands at its bound."""
        agent = self.agent(pick)
        if agent is None:
            return IDLE
        request = agent.closing(self.now, "done")
        if fate in ("delayed", "twice"):
            self.wire.append(lambda: self.call_close(agent.session_id, request, True))
        if fate not in ("lost", "delayed"):
            self.run(self.close(agent, "done", answered=fate != "reply lost"))
        return None

    @rule(pick=PICK, spool=st.booleans())
    @step
    def crashes(self, pick: int, spool: bool) -> Idle | None:
        """kill -9, with the spool or without."""
        agent = self.agent(pick)
        if agent is None:
            return IDLE
        agent.over = agent.dead = True
        agent.silent = agent.silent or not spool
        self.world.saw("crashed")
        return None

    @rule(pick=PICK, dies=st.sampled_from([True, True, False]), late=st.booleans(), comes=st.booleans())
    @step
    def loses(self, pick: int, dies: bool, late: bool, comes: bool) -> Idle | None:
        """A job dies, the worker main finds its spool and tells; `late`: a request that was on its way comes after it.
        `comes`: the watcher's next agent does.
        """
        running = self.agent(pick) if dies else None
        found = [running] if running else self.agents(pick, lambda one: one.dead and one.came and not one.silent)
        for agent in found:
            request = agent.pending or (None if agent.last_word else agent.next_use(self.now))
            agent.over = agent.dead = True
            self.run(self.lose(agent))
            if request is not None:
                self.wire.append(lambda one=agent, sent=request: self.call_use(one.session_id, sent))
                if late:
                    answer = self.run(self.call_use(agent.session_id, request))
                    assert isinstance(answer, DeskError), "nobody talks on a lost epoch"
            if comes:
                interview = next(one for one in self.interviews if one.id == agent.session_id)
                self.claim(interview, True)
        return None if found else IDLE

    @rule(pick=PICK)
    @step
    def replays(self, pick: int) -> Idle | None:
        """The worker main finds spools of dead jobs that had begun to close; repeats of last words."""
        found = self.agents(pick, lambda one: (one.dead and not one.silent) or one.last_word is not None)
        for agent in found:
            self.world.saw("replayed")
            self.run(self.lose(agent) if agent.lost else self.close(agent, "agent_died"))
        return None if found else IDLE

    @rule(pick=PICK)
    @step
    def tells_the_truth_late(self, pick: int) -> Idle | None:
        """What stood at its bound is metered after all."""
        found = self.agents(pick, lambda one: one.last_word is not None and bool(one.unmetered))
        told = False
        for agent in found:
            for key, bound in list(agent.unmetered.items()):
                if key.endswith("/rest"):
                    continue
                agent.spent[key] = int(bound / 2 / TOKEN)
                request = wire.Use(epoch=agent.epoch, n=agent.n + 2, usages=agent.usages(self.now))
                self.run(self.call_use(agent.session_id, request))
                del agent.unmetered[key]
                told = True
        return None if told else IDLE

    @rule(pick=PICK, comes=st.sampled_from([True, True, False]))
    @step
    def claims(self, pick: int, comes: bool) -> Idle | None:
        """The watcher gives the session to another job, which comes up; the old one may not know for long."""
        interview = self.picked(pick)
        return IDLE if interview is None else self.claim(interview, comes)

    def claim(self, interview: Interview, comes: bool) -> Idle | None:
        async def work(connection: Any) -> SessionState:
            found = await using.locked(connection, interview.id)
            return await using.claim(connection, found, wire.Claim(epoch=interview.epoch + 1, reason="gone"), VALID_SEC)

        try:
            session = self.run(self.world.do(work))
        except DeskError as error:
            assert error.reason is ProblemReason.CLOSED, error
            return IDLE
        interview.epoch = session.epoch
        self.world.saw("claimed")
        self.dispatch(interview, session)
        if comes:
            self.run(self.attach(interview.agents[-1], True))
        return None

    @rule(pick=PICK)
    @step
    def gateway_closes(self, pick: int) -> Idle | None:
        """A room vanished; refused while an agent holds the session."""
        interview = self.picked(pick)
        if interview is None:
            return IDLE
        try:
            request = wire.Close(epoch=interview.epoch, reason="room_vanished")
            self.run(self.call_close(interview.id, request, False))
            self.world.saw("closed by the gateway")
        except DeskError as error:
            assert error.reason is ProblemReason.CONFLICT, error
            self.world.saw("served: the gateway may not close")
        return None

    @rule(seconds=st.sampled_from([20, 20, 100, 100, 250, 400, None]))
    @step
    def time_passes(self, seconds: int | None) -> Idle | None:
        """Then the sweeper comes. None: ten seconds into the next month."""
        if seconds is None:
            self.turn_the_month()
        else:
            self.ahead += timedelta(seconds=seconds)
            self.set_clock()
            self.run(self.sweep_all())
        return None

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
    @step
    def edits(self, which: int, edit: tuple[str, Any]) -> Idle | None:
        """The Project is changed."""
        study, (name, value) = self.studies[which], edit
        if name == "participant" and not study.capped:
            return IDLE
        if name == "limit":
            study.floor = None
        setattr(study, name, study.generation + 1 if name == "generation" else value)
        self.rebudgeted = True
        self.run(self.tell(study))
        self.world.saw(f"edited {name}")
        return None

    @rule(which=st.integers(0, 1))
    @step
    def is_recreated(self, which: int) -> Idle | None:
        """Deleted and made anew: the same account."""
        study = self.studies[which]
        self.run(self.world.do(lambda connection: delete_project(connection, "study", study.name, "test")))
        refusal = self.run(self.open(study, None))
        assert isinstance(refusal, DeskError) and refusal.reason is ProblemReason.NOT_FOUND
        self.run(self.tell(study))
        return None

    @rule(
        pick=PICK,
        seconds=st.sampled_from([15, 30, 400]),
        mode=st.sampled_from(["selfhosted", "cloud"]),
        gone=st.booleans(),
    )
    @step
    def people_are_in_the_room(self, pick: int, seconds: int, mode: str, gone: bool) -> Idle | None:
        """The gateway reports participant seconds, also of a session that has ended: `gone`, it is its last report.
        Only what goes beyond the transport reserve is a fact that nobody could have reserved.
        """
        interview = self.picked(pick)
        if interview is None:
            return IDLE
        interview.seconds += seconds
        before = self.sessions[interview.id]
        seen = {f"p{index}": interview.seconds for index in range(3)}
        last = seen if gone and before["state"] == "closed" else {}
        request = wire.Transport.model_validate({"participant_seconds": seen, "gone_seconds": last, "mode": mode})

        async def work(connection: Any) -> SessionState:
            found = await using.locked(connection, interview.id)
            book = await self.world.rates.book(connection, found.rates_revision)
            return await report_transport(connection, found.project, found.session, request, book, found.now)

        after = self.run(self.world.do(work))
        pot = min(before["transport_hold_usd"], before["reserved"])
        self.facts = max(ZERO, after.posted - before["posted"] - pot)
        return None

    @rule(kinds=st.lists(st.integers(0, 5), min_size=2, max_size=3), which=st.integers(0, 1), tight=st.booleans())
    @step
    def at_once(self, kinds: list[int], which: int, tight: bool) -> Idle | None:
        """Two or three transactions at the same time on one account; `tight`: it has enough for one of them."""
        picks = range(len(kinds))
        if tight:
            account, study = self.present_account(which), self.studies[which]
            enough = account["posted"] + account["reserved"] + USD("0.045")
            study.amount, study.paused = f"{enough.quantize(USD('0.000001'), rounding=ROUND_UP)}", False
            self.rebudgeted = True
            self.run(self.tell(study))
            self.check()
        works = [self.one_of(pick, kind, which) for pick, kind in zip(picks, kinds, strict=True)]

        async def all_of_them() -> None:
            racers, _ = await asyncio.wait([asyncio.ensure_future(work()) for work in works])
            for racer in racers:
                racer.result()

        self.racing = True
        self.run(all_of_them())
        self.world.saw("raced")
        return None

    def one_of(self, pick: int, kind: int, which: int) -> Callable[[], Awaitable[Any]]:
        """What one of the racers does; without an agent that could, one more client comes."""
        study = self.studies[which]
        if kind in (0, 1):
            return lambda: self.open(study, "p1")
        if kind == 2:
            study.amount = AMOUNTS[len(self.story) % len(AMOUNTS)]
            self.rebudgeted = True
            return lambda: self.tell(study)
        agent = self.agent(pick)
        if agent is None or agent.over or agent.pending is not None:
            return lambda: self.open(study, None)
        while agent.start(self.now):
            agent.finish(4)
        if kind in (3, 5):
            request = agent.next_use(self.now)
            return lambda: self.use(agent, request)
        agent.closing(self.now, "done")
        return lambda: self.close(agent, "done")

    def teardown(self) -> None:
        """Everybody ends: nothing is held, and what is posted is what was spent."""
        if not self.ids or self.broken:
            return
        with self.telling("everybody ends"):
            self.end()

    def end(self) -> None:
        for interview in self.interviews:
            for agent in interview.agents:
                if not agent.silent and (agent.attached or agent.over):
                    self.run(self.close(agent, "over"))
        self.check()
        self.ahead += timedelta(seconds=VALID_SEC + GRACE_SEC + 400)
        self.set_clock()
        self.run(self.sweep_all())
        self.check()
        self.ahead += timedelta(seconds=LINGER_SEC + 1)
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
