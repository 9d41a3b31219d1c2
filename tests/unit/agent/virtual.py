"""Virtual time: an event loop whose clock jumps to the next timer, and a session without WebRTC that lives by it.

What runs is the real till, charging loop, turn taking, spool and limits; only the provider (a few facts per turn), the
room and the ledger's store are played.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from talktime_agent.charging import Charger
from talktime_agent.clock import session_clock
from talktime_agent.close import Quiet, settle
from talktime_agent.facts import Billed, Opened
from talktime_agent.gate import Bounds
from talktime_agent.limits import Step, next_step, situation
from talktime_agent.meter import ProviderMeter
from talktime_agent.spool import Spool
from talktime_agent.till import Till
from talktime_agent.turns import Turns
from talktime_ledger.client import Fenced, SessionClosed, Unavailable
from talktime_ledger.core.grants import Need, plan_grant, set_aside
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.pricing import price
from talktime_ledger.core.usage import Usage, UsageKind
from talktime_ledger.resources.project import OnLedgerOutage
from talktime_ledger.wire import Attachment, Close, Grant, Use
from talktime_ledger.wire.resume import Lost

Result = TypeVar("Result")
AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
BEGIN = 1000.0
MODEL = "gpt-realtime-2.1-mini"
PRICES = {"text_in": "0.6", "audio_in": "10", "audio_cached_in": "0.3", "text_out": "2.4", "audio_out": "20"}
# One answer: 100 tokens of speech.
ANSWER = Decimal("0.002")
NOTHING = Decimal(0)


class _Selector(selectors.DefaultSelector):
    """Never waits: time goes on instead. Waiting for nothing at all is a test that hangs, and fails."""

    now = BEGIN

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for somebody else"
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` begins at BEGIN and jumps."""

    def __init__(self) -> None:
        self.selector = _Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs to the end, hours in milliseconds."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def now() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


def wall() -> datetime:
    """Virtual UTC."""
    return AT + timedelta(seconds=now() - BEGIN)


@dataclass
class Books:
    """A ledger of one session in memory, by the real core: one answer per n, one posting per key, epochs, outages.

    ``mode``: answering | refusing (at once) | hanging | forgetful (books, and the answer is lost).
    """

    limit: Decimal = Decimal(1)
    reserve: Decimal = NOTHING
    w: Decimal = Decimal("0.03")
    goodbye: Decimal = Decimal("0.006")
    mode: str = "answering"
    epoch: int = 1
    posted: dict[str, Decimal] = field(default_factory=dict)
    reserved: Decimal = NOTHING
    n: int = 0
    closed: str | None = None
    lost: bool = False
    asked: list[float] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    answers: dict[int, Grant] = field(default_factory=dict)

    @property
    def total(self) -> Decimal:
        return sum(self.posted.values(), NOTHING)

    async def use(self, session_id: str, request: Use, *, patience_sec: float | None = None) -> Grant:
        await self._line()
        if request.n in self.answers:
            return self.answers[request.n]
        self._post({usage.key: usage.meters for usage in request.usages})
        self._stop(request.epoch)
        assert request.n > self.n, "n never goes back"
        self.n = request.n
        self.answers[request.n] = self.renew(request.n, request.in_flight, request.want)
        if self.mode == "forgetful":
            raise Unavailable("the answer was lost")
        return self.answers[request.n]

    async def close(self, session_id: str, request: Close) -> None:
        await self._line()
        self._post({usage.key: usage.meters for usage in request.usages})
        for item in request.unmetered:
            self._book(item.key, item.usd)
        if self.closed is None:
            self._stop(request.epoch)
            self.closed, self.reserved = request.reason, NOTHING
        if self.mode == "forgetful":
            raise Unavailable("the answer was lost")

    async def lose(self, session_id: str, request: Lost) -> None:
        await self._line()
        self._post({usage.key: usage.meters for usage in request.usages})
        for item in request.unmetered:
            self._book(item.key, item.usd)
        self._stop(request.epoch)
        self.lost = True
        if self.mode == "forgetful":
            raise Unavailable("the answer was lost")

    def renew(self, n: int, in_flight: Decimal = NOTHING, want: Decimal = NOTHING) -> Grant:
        room = self.limit - self.total - self.reserved
        need = Need(self.goodbye, want or self.w, in_flight, Decimal("0.03"), self.reserve)
        plan = plan_grant(need, self.reserved, [room], room, 1)
        self.reserved += plan.delta
        assert self.total + self.reserved <= self.limit, "law 1"
        return Grant.model_validate(
            {
                "n": n, "state": "final" if plan.final else "ok", "reserved": self.reserved, "goodbye": self.goodbye,
                "posted": self.total, "session_limit": self.limit, "limit_state": "ok", "w": self.w,
                "outage_reserve": set_aside(need, self.reserved, plan.final),
                "budget": dict.fromkeys(
                    ("session_limit", "session_posted", "project_amount", "project_posted", "project_available"), "1"
                ),
            }
        )  # fmt: skip

    async def _line(self) -> None:
        self.asked.append(now())
        await asyncio.sleep(0.02)
        if self.mode == "hanging":
            await asyncio.sleep(30)
        if self.mode in ("refusing", "hanging"):
            raise Unavailable("connection refused")

    def _stop(self, epoch: int) -> None:
        if self.closed is not None:
            raise SessionClosed(self.closed)
        if epoch != self.epoch:
            raise Fenced("old epoch")

    def _post(self, usages: dict[str, Any]) -> None:
        bounds = Bounds.of(attachment(self))
        for key, meters in usages.items():
            self._book(key, price({Meter(meter): count for meter, count in meters.items()}, bounds.legs.model))

    def _book(self, key: str, amount: Decimal) -> None:
        if key in self.posted:
            self.twice.append(key)
            return
        self.posted[key] = amount
        self.reserved = max(NOTHING, self.reserved - amount)


def attachment(books: Books) -> Attachment:
    """What the agent is told at its beginning."""
    budget = ("session_limit", "session_posted", "project_amount", "project_posted", "project_available")
    return Attachment.model_validate(
        {
            "session": {
                "session_id": "s1", "namespace": "ns", "project": "p", "provider": "primary", "api": "OpenAIRealtime",
                "model": MODEL, "epoch": 1, "state": "open", "opened_at": AT, "participant_identity": "participant-1",
                "observers": ["observer-1"], "posted": "0", "reserved": "0", "limit": books.limit,
            },
            "config": {
                "instructions": "Ask.", "language": "en", "wrapUp": "Wrap up.", "closing": "Goodbye then.",
                "voice": "marin", "costUpdateSeconds": 10, "onLedgerOutage": "Drain",
                "caps": {"contextTokens": 1000, "responseSeconds": 10, "outputTokens": 250},
            },
            "grant": {
                "n": 0, "state": "ok", "reserved": books.reserved, "goodbye": books.goodbye, "posted": "0",
                "session_limit": books.limit, "limit_state": "ok", "w": books.w,
                "budget": dict.fromkeys(budget, "1"),
            },
            "rates": [{"card": "a", "vendor": "openai", "model": MODEL, "effective_from": AT, "prices": PRICES}],
        }
    )  # fmt: skip


class Talk:
    """An interview by the clock: every `pace` seconds the user has spoken, every answer takes `speaks` seconds.

    It decides and ends as `interview.Interview` does; ``ended`` has the reason, ``ended_at`` the moment.
    """

    def __init__(
        self,
        books: Any,
        directory: Path,
        *,
        on_outage: OnLedgerOutage = OnLedgerOutage.DRAIN,
        pace: float = 8.0,
        speaks: float = 3.0,
        told: Attachment | None = None,
        clock: Callable[[], datetime] = wall,
        session_id: str = "s1",
        steady: Callable[[], float] = now,
    ) -> None:
        self.books = books
        self.on_outage = on_outage
        self.pace, self.speaks = pace, speaks
        self.clock = session_clock(clock, steady)
        if told is None:
            books.renew(0)
            told = attachment(books).model_copy(update={"grant": books.renew(0)})
        self.spool = Spool(directory, session_id, told.session.epoch, self.clock.wall().timestamp())
        self.session_id = session_id
        self.model = told.session.model
        meter = ProviderMeter(provider=told.session.provider, model=self.model, transcription_model=None)
        self.till = Till(told, Bounds.of(told), meter, self.spool, self.clock, steady())
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ended_at = 0.0
        self.answered_at: list[float] = []
        self.billed: list[str] = []
        self.quiet = Quiet(lambda: self.till.quiet)
        self.charger = Charger(
            books,
            session_id,
            self.till,
            interval=20,
            monotonic=steady,
            on_grant=lambda _: None,
            on_refused=self.end,
        )
        self.turns = Turns(
            self.till, answer=self._answer, renewed=self.charger.renewed, quiet=self.quiet, refused=self._refused
        )
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self.tasks = [asyncio.create_task(work()) for work in (self.charger.run, self._speak, self._watch)]

    def end(self, reason: str) -> None:
        if not self.ended.done():
            self.turns.shut()
            self.till.begin_closing()
            self.ended_at = now()
            self.ended.set_result(reason)

    def stop(self) -> None:
        """The loops end; nothing is told to anybody."""
        for task in self.tasks:
            task.cancel()

    async def leave(self) -> bool:
        """As the agent leaves: what is open is waited for, then the ledger is told; else the spool stays."""
        await self.quiet(10)
        self.stop()
        if settled := await settle(self.books, self.session_id, self.till, self.ended.result()):
            self.spool.finish()
        else:
            self.spool.write("closed", self.clock.wall().timestamp(), reason=self.ended.result())
            self.spool.abandon()
        return settled

    def killed(self) -> None:
        """kill -9: the kernel closes the files, and that is all."""
        self.stop()
        self.spool.abandon()

    def _refused(self, reason: str) -> None:
        if reason in ("money", "validity"):
            self.end("budget" if reason == "money" and self.charger.reachable else "ledger_outage")

    def _answer(self) -> None:
        assert self.till.may_respond().allowed, "law 2"
        self.answered_at.append(now())
        key = f"sess{os.getpid()}/r{len(self.answered_at)}"
        self.till.request(f"create_{key}")
        self.till.apply([Opened(key, f"create_{key}")])
        self.tasks.append(asyncio.create_task(self._finish(key)))

    async def _finish(self, key: str) -> None:
        await asyncio.sleep(self.speaks)
        usage = Usage(key, UsageKind.RESPONSE, "primary", self.model, {Meter.AUDIO_OUT: 100}, self.clock.wall())
        self.till.apply([Billed(usage)])
        self.billed.append(key)
        self.quiet.changed()
        self.charger.kick()

    async def _speak(self) -> None:
        while True:
            await asyncio.sleep(self.pace)
            self.turns.respond()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            step, reason = next_step(
                situation(self.till, self.charger, wrap_up_told=False, wrapped_up=False, on_outage=self.on_outage)
            )
            if step in (Step.CLOSE, Step.LEAVE) and (step is Step.LEAVE or self.till.quiet):
                self.end(reason)
            elif self.till.short:
                self.charger.kick()
