"""What a trace costs under enforcers that look instead of reserving. Pure: virtual time, no database.

A session is checked every 10 s, like the article's loop. HARD: the closing message (billed), nothing more is begun.
SOFT: those who heed it end within two to three minutes. The snapshot is what the article says it is, "already spent
across prior sessions": the cost of all sessions that are over. Where the article leaves room it is read in the peer's
favour: a session that is over a limit when it begins costs nothing, and a crashed agent's usage is not lost.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Protocol

from bench.enforcers import study
from bench.enforcers.published import BudgetEnforcer, BudgetStatus, MendedEnforcer
from bench.enforcers.trace import SECONDS_TO_BEGIN, Trace, Visit

CHECK_EVERY_SEC = 10.0


@dataclass(slots=True)
class Books:
    """USD. `billed`: what the provider will charge; `metered`: what agents have metered so far; `finished`: the cost of
    sessions that are over.
    """

    billed: Decimal
    metered: Decimal
    finished: Decimal


class Watch(Protocol):
    """One session's enforcer."""

    def check(self, session_cost: float) -> BudgetStatus:
        """Looked at when the session begins (0) and every 10 s."""
        ...


def snapshot(books: Books) -> Watch:
    """(a) The published enforcer."""
    return BudgetEnforcer(float(study.BUDGET), float(books.finished), float(study.SESSION_LIMIT))


def snapshot_mended(books: Books) -> Watch:
    """(a') Its order mended."""
    return MendedEnforcer(float(study.BUDGET), float(books.finished), float(study.SESSION_LIMIT))


@dataclass(frozen=True, slots=True)
class Polled:
    """(b) Every check reads the shared counter of all sessions; the order is the mended one."""

    books: Books

    def check(self, session_cost: float) -> BudgetStatus:
        """The status, from the counter as it is at this poll."""
        others = float(self.books.metered) - session_cost
        return MendedEnforcer(float(study.BUDGET), others, float(study.SESSION_LIMIT)).check(session_cost)


@dataclass(slots=True)
class _Session:
    visit: Visit
    watch: Watch
    cost: Decimal = Decimal(0)
    over: bool = False
    ends_by: float = float("inf")


Step = Callable[[float], None]


class _Run:
    """One trace under one enforcer: a queue of steps in virtual time."""

    def __init__(self, trace: Trace, enforcer: Callable[[Books], Watch]) -> None:
        self.books = Books(trace.spent, trace.spent, trace.spent)
        self._enforcer = enforcer
        self._count = itertools.count()
        self._queue: list[tuple[float, int, Step]] = []
        for visit in trace.visits:
            self._at(visit.at, partial(self._arrive, visit))

    def finish(self) -> Books:
        """Runs to the end."""
        while self._queue:
            now, _, step = heapq.heappop(self._queue)
            step(now)
        return self.books

    def _at(self, when: float, step: Step) -> None:
        heapq.heappush(self._queue, (when, next(self._count), step))

    def _arrive(self, visit: Visit, now: float) -> None:
        session = _Session(visit, self._enforcer(self.books))
        if session.watch.check(0.0) is BudgetStatus.HARD_LIMIT:
            return
        self._at(now + CHECK_EVERY_SEC, partial(self._check, session))
        first = visit.turns[0]
        self._at(now + SECONDS_TO_BEGIN + first.pause_sec + first.heard_sec, partial(self._commit, session, 0))

    def _check(self, session: _Session, now: float) -> None:
        if session.over:
            return
        status = session.watch.check(float(session.cost))
        if status is BudgetStatus.HARD_LIMIT:
            self.books.billed += session.visit.goodbye_cost
            self._meter(session, session.visit.goodbye_cost)
            self._end(session)
            return
        if status is BudgetStatus.SOFT_LIMIT and session.visit.heeds_wrap_up:
            session.ends_by = min(session.ends_by, now + session.visit.wrap_up_sec)
        self._at(now + CHECK_EVERY_SEC, partial(self._check, session))

    def _commit(self, session: _Session, index: int, now: float) -> None:
        if session.over:
            return
        if now > session.ends_by:
            self._end(session)
            return
        turn, crash = session.visit.turns[index], session.visit.crash
        self.books.billed += turn.cost + turn.heard_cost
        if crash is not None and crash.turn == index:
            self._meter(session, turn.cost + turn.heard_cost)
            self._end(session)
            return
        self._at(now + turn.answer_sec, partial(self._done, session, index))

    def _done(self, session: _Session, index: int, now: float) -> None:
        turn = session.visit.turns[index]
        self._meter(session, turn.cost + turn.heard_cost)
        if session.over:
            # The hard limit came while it spoke: its usage still belongs to the session.
            self.books.finished += turn.cost + turn.heard_cost
        elif index + 1 == len(session.visit.turns):
            self._end(session)
        else:
            following = session.visit.turns[index + 1]
            self._at(now + following.pause_sec + following.heard_sec, partial(self._commit, session, index + 1))

    def _meter(self, session: _Session, cost: Decimal) -> None:
        self.books.metered += cost
        session.cost += cost

    def _end(self, session: _Session) -> None:
        session.over = True
        self.books.finished += session.cost


def billed_under(trace: Trace, enforcer: Callable[[Books], Watch]) -> Decimal:
    """USD billed to the Project when all sessions of the trace are over, what was spent before included."""
    return _Run(trace, enforcer).finish().billed


def overshoot(trace: Trace, enforcer: Callable[[Books], Watch]) -> Decimal:
    """USD over the budget; 0 when it was kept."""
    return max(Decimal(0), billed_under(trace, enforcer) - study.BUDGET)


PEERS: dict[str, Callable[[Books], Watch]] = {
    "snapshot": snapshot,
    "snapshot_mended": snapshot_mended,
    "polled": Polled,
}
