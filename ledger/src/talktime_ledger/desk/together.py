"""Renews sessions of one Project together: what waits at the same time is committed at once, so that a hot Project's
balance does not cost one sync per call.

Only plain renewals: an open session, its present agent, a new number, new usage keys, the account of now. Everything
else is `use`, alone. Each session gets the answer it would have got alone, in the order of asking; the transaction is
committed or rolled back as a whole, so an answer is told only for what is durable, and a repeat finds it by its number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from talktime_ledger.core.money import ZERO
from talktime_ledger.core.periods import period_of
from talktime_ledger.core.rates import RateBook, RateSnapshot
from talktime_ledger.desk.errors import GrantRaceError
from talktime_ledger.desk.granting import Renewal, conclude, plan_terms, soft_threshold
from talktime_ledger.desk.posting import Posted, entry_of, priced_event
from talktime_ledger.desk.pricing import COST_PROVIDER, RateDesk
from talktime_ledger.desk.snapshots import Snapshots
from talktime_ledger.desk.using import question
from talktime_ledger.resources.project import Api
from talktime_ledger.store import accounts, renewals, sessions, usages
from talktime_ledger.store.accounts import Account, Move
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Project, Projects
from talktime_ledger.store.renewals import Booking, Held, Write
from talktime_ledger.wire import Use


@dataclass(frozen=True, slots=True)
class Ask:
    """One `use`."""

    session_id: UUID
    use: Use


@dataclass(frozen=True, slots=True)
class Together:
    """Answers as JSON, None for those that must be tried alone; whether the Project's soft limit was latched; ids of
    the price snapshots that this transaction relies on.
    """

    answers: list[str | None]
    latched: bool = False
    snapshots: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Desk:
    """What one process keeps between requests."""

    rates: RateDesk
    projects: Projects
    snapshots: Snapshots
    valid_sec: int


async def use_together(connection: Connection, asks: Sequence[Ask], names: tuple[str, str], desk: Desk) -> Together:
    """Renews sessions of the Project (namespace, name), in the caller's transaction. GrantRaceError or
    asyncpg.UniqueViolationError: roll back and try each alone.
    """
    answers: list[str | None] = [None] * len(asks)
    keys = [usage.key for ask in asks for usage in ask.use.usages]
    held = await renewals.lock(connection, names, [ask.session_id for ask in asks], keys)
    if not held:
        return Together(answers)
    first = next(iter(held.values()))
    project = await desk.projects.of(connection, first.project)
    book = await desk.rates.book(connection, first.rates_revision)
    plain: dict[int, Held] = {}
    for index, ask in enumerate(asks):
        # A second request of the same session is not plain: it waits for the first.
        one = held.pop(ask.session_id, None)
        if one is not None and one.account.id == first.account.id and is_plain(ask.use, one, project):
            plain[index] = one
    if not plain:
        return Together(answers)
    spendings = {index: spending(one, asks[index].use, book, desk.snapshots) for index, one in plain.items()}
    rates = {key: snapshot for one in spendings.values() for key, snapshot in one.rates.items()}
    for key in desk.snapshots.unsaved(rates):
        await usages.keep_snapshot(connection, rates[key])
    table = Table(project, first.account, await _participants(connection, plain.values()), book, first.now)
    if table.may_be_soft(sum((one.total for one in spendings.values()), ZERO)):
        table.remainder = await sessions.expected_remainder(connection, project.id)
    made = [table.renew(one, asks[index].use, spendings[index], desk.valid_sec) for index, one in plain.items()]
    writes = [write for _, write in made]
    if not all(map(renewals.writable, writes)) or not await renewals.write(connection, writes):
        raise GrantRaceError
    for index, (_, write) in zip(plain, made, strict=True):
        answers[index] = write.answer
    return Together(answers, any(renewal.latched for renewal, _ in made), frozenset(rates))


def is_plain(use: Use, held: Held, project: Project) -> bool:
    """Whether a request is one of the many: nothing to repair, repeat, refuse or carry over (pure)."""
    session, account, budget = held.session, held.account, project.spec.budget
    return (
        session.state == "open"
        and session.worker is not None
        and not budget.include_transport  # its reserve is filled up by `use`
        and use.epoch == session.epoch
        and use.n > session.last_n
        and not held.repeats
        and len({usage.key for usage in use.usages}) == len(use.usages)
        and account.generation == budget.account_generation
        and account.period == period_of(budget.period, held.now)
    )


@dataclass(frozen=True, slots=True)
class Spending:
    """What the usages of one request are and cost, USD; rates and their stored bodies by content address."""

    bookings: tuple[Booking, ...]
    rates: Mapping[str, RateSnapshot]
    bodies: Sequence[Mapping[str, object]]
    total: Decimal


def spending(held: Held, use: Use, book: RateBook, snapshots: Snapshots) -> Spending:
    """Prices the usages of a request."""
    session, bookings = held.session, []
    rates: dict[str, RateSnapshot] = {}
    bodies: dict[str, Mapping[str, object]] = {}
    for usage in use.usages:
        event, priced_with = priced_event(session, usage, book, held.now, use.epoch)
        stored = snapshots.stored(priced_with)
        rates[stored.id], bodies[stored.id] = priced_with, stored.body
        unmetered = event.cost_usd if event.unmetered else ZERO
        kind = "unmetered" if event.unmetered else "usage"
        entry = entry_of(
            session, event, kind, event.meters, event.cost_usd, unmetered, None, stored.id, event.occurred_at
        )
        bookings.append(Booking(usage.key, event, entry))
    total = sum((one.event.cost_usd for one in bookings), ZERO)
    return Spending(tuple(bookings), rates, tuple(bodies.values()), total)


class Table:
    """The accounts while renewals are worked out one after the other, each on what the one before left."""

    def __init__(
        self, project: Project, account: Account, participants: Mapping[int, Account], book: RateBook, now: datetime
    ) -> None:
        self._project, self._account, self._book, self._now = project, account, book, now
        self._participants = dict(participants)
        self.remainder: tuple[Decimal, Decimal] | None = None

    def may_be_soft(self, spent: Decimal) -> bool:
        """Whether the Project's soft limit is reached, or may be by this spending."""
        account = self._account
        return account.soft_at is not None or account.posted + spent >= soft_threshold(self._project, account)

    def renew(self, held: Held, use: Use, spent: Spending, valid_sec: int) -> tuple[Renewal, Write]:
        """The renewal and its write; the balances kept here move on."""
        session, project = held.session, self._project
        told, request = question(project, session, use, Posted(spent.total), self._book, self._now, valid_sec)
        payer = session.participant_account_id
        participant = self._participants[payer] if payer is not None else None
        terms = plan_terms(project, told, self._account, self._account, participant, request)
        account = self._account = moved(self._account, terms.move, self._now)
        if participant is not None:
            participant = moved(participant, terms.participant_move, self._now)
            self._participants[participant.id] = participant
        remainder = self.remainder if account.soft_at is not None else None
        renewal = conclude(project, told, request, terms, account, participant, remainder)
        write = Write(
            session,
            renewal.session,
            json.dumps(renewal.session.last_answer),
            spent.bookings,
            COST_PROVIDER[Api(session.api)],
            spent.bodies,
            terms.move,
            terms.guarded,
            terms.participant_move,
            terms.participant_guarded,
        )
        return renewal, write


def moved(account: Account, move: Move, now: datetime) -> Account:
    """The account after a move, as the statement makes it (pure)."""
    posted = account.posted + move.posted
    reached = move.soft_threshold is not None and posted >= move.soft_threshold
    return replace(
        account,
        posted=posted,
        reserved=account.reserved + move.reserved,
        open_sessions=account.open_sessions + move.sessions,
        soft_at=account.soft_at or (now if reached else None),
    )


async def _participants(connection: Connection, plain: Iterable[Held]) -> dict[int, Account]:
    ids = {one.session.participant_account_id for one in plain}
    return {one: await accounts.read(connection, one) for one in sorted(one for one in ids if one is not None)}
