"""Posts usage: each key once, corrections appended to the budgets they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from talktime_ledger.cards import snapshot_wire
from talktime_ledger.core.meters import Meter, counts
from talktime_ledger.core.money import ZERO, usd
from talktime_ledger.core.rates import RateBook, RateSnapshot
from talktime_ledger.core.usage import UsageKind, UsageStatus
from talktime_ledger.desk.pricing import COST_PROVIDER, price_usage
from talktime_ledger.resources.project import Api
from talktime_ledger.store import accounts
from talktime_ledger.store import usages as store
from talktime_ledger.store.accounts import Move
from talktime_ledger.store.database import Connection
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.store.usages import Entry, Event
from talktime_ledger.wire import Unmetered, Usage


@dataclass(frozen=True, slots=True)
class Posted:
    """What a report adds to the session's cost (0 for repeats), USD. `elsewhere` (<= 0) of it was given back to budgets
    of earlier months already; `here` is for the budget the session is on.
    """

    total: Decimal = ZERO
    elsewhere: Decimal = ZERO

    @property
    def here(self) -> Decimal:
        """For the session's present budget."""
        return self.total - self.elsewhere

    def __add__(self, other: Posted) -> Posted:
        return Posted(self.total + other.total, self.elsewhere + other.elsewhere)


async def post_usages(
    connection: Connection,
    session: SessionState,
    usages: Sequence[Usage],
    rate_book: RateBook,
    now: datetime,
    epoch: int,
) -> Posted:
    """Books usages of one report."""
    total = Posted()
    for usage in usages:
        event, rates = priced_event(session, usage, rate_book, now, epoch)
        total += await book(connection, session, usage.key, event, rates)
    return total


def priced_event(
    session: SessionState, usage: Usage, rate_book: RateBook, now: datetime, epoch: int
) -> tuple[Event, RateSnapshot]:
    """A usage as it is stored, and the prices it was priced with."""
    priced = price_usage(session, usage, rate_book, now)
    event = Event(
        0,
        usage.kind.value,
        usage.model,
        {meter: count for meter, count in usage.meters.items() if count},
        priced.at,
        usage.status.value,
        usage.unmetered or priced.assumed_price,
        priced.cost_usd,
        epoch,
    )
    return event, priced.rates


async def post_unmetered(
    connection: Connection, session: SessionState, items: Sequence[Unmetered], now: datetime, epoch: int
) -> Posted:
    """Books what was billed and never told, at its bound."""
    total = Posted()
    for item in items:
        total += await book(connection, session, item.key, bound(session, item.usd, now, epoch))
    return total


def bound(session: SessionState, amount: Decimal, now: datetime, epoch: int) -> Event:
    """Something billed that cannot be metered, at the most it can have cost."""
    return Event(
        0,
        UsageKind.RESPONSE.value,
        session.model,
        counts({}),
        now,
        UsageStatus.INCOMPLETE.value,
        True,
        usd(amount),
        epoch,
    )


async def book(
    connection: Connection,
    session: SessionState,
    key: str,
    event: Event,
    rates: RateSnapshot | None = None,
    kind: str | None = None,
) -> Posted:
    """Books one event under its key: a repeat adds nothing, another body under the same key is a correction."""
    snapshot_id = store.snapshot_key(rates) if rates else None
    unmetered = event.cost_usd if event.unmetered else ZERO
    name = kind or ("unmetered" if event.unmetered else "usage")
    entry = entry_of(
        session, event, name, event.meters, event.cost_usd, unmetered, None, snapshot_id, event.occurred_at
    )
    if await store.book(connection, key, event, entry, rates, COST_PROVIDER[Api(session.api)], session.model):
        return Posted(event.cost_usd)
    old = await store.find(connection, session.id, key)
    if old is None or not supersedes(event, old):
        return Posted()
    difference = usd(event.cost_usd - old.cost_usd)
    before = old.cost_usd if old.unmetered else ZERO
    await store.revise(connection, old.id, event, snapshot_id)
    entry = entry_of(
        session,
        event,
        "correction",
        _subtract(event.meters, old.meters),
        difference,
        unmetered - before,
        old.id,
        snapshot_id,
        event.occurred_at,
    )
    return await correct(connection, session, entry, rates)


async def correct(
    connection: Connection, session: SessionState, entry: Entry, rates: RateSnapshot | None = None
) -> Posted:
    """Appends a correction of an event. What is given back goes to the budgets that paid; what is added is paid by the
    budget the session is on, because that is where its reservation stands.
    """
    parts = [(session.account_id, entry.amount_usd)]
    if entry.amount_usd < 0 and entry.usage_event_id is not None:
        paid = await store.shares(connection, session.id, entry.usage_event_id)
        parts = given_back(entry.amount_usd, paid, session.account_id)
    elsewhere = ZERO
    for index, (account_id, amount) in enumerate(parts):
        part = replace(entry, account_id=account_id, amount_usd=amount)
        if index:
            part = replace(part, meters={}, unmetered_usd=ZERO)
        await _write(connection, session, part, rates)
        if account_id != session.account_id:
            await accounts.settle(connection, account_id, Move(amount))
            elsewhere += amount
    return Posted(entry.amount_usd, elsewhere)


def given_back(amount: Decimal, paid: Sequence[tuple[int, Decimal]], present: int) -> list[tuple[int, Decimal]]:
    """Splits a negative amount over the accounts that paid, the newest first, none below what it paid."""
    parts, left = [], amount
    for account_id, share in paid:
        part = max(left, -share)
        if part < 0:
            parts.append((account_id, part))
            left -= part
    return [*parts, (present, left)] if left else parts


async def post_transport(
    connection: Connection, session: SessionState, entry: Entry, rates: RateSnapshot | None
) -> None:
    """Books one step of the transport leg; `rates` None: an amount goes back as it came."""
    snapshot_id = await store.keep_snapshot(connection, rates) if rates else None
    await _write(connection, session, replace(entry, snapshot_id=snapshot_id), rates)


async def take_from_held(connection: Connection, session: SessionState, spent: Posted) -> SessionState:
    """The session and its accounts after usage that needs no new grant: paid by what is held, as far as that goes."""
    taken = min(max(ZERO, spent.total), session.reserved)
    # Participant first, then the project, as everywhere.
    if session.participant_account_id is not None and (spent.total or taken):
        await accounts.settle(connection, session.participant_account_id, Move(spent.total, -taken))
    if spent.here or taken:
        await accounts.settle(connection, session.account_id, Move(spent.here, -taken))
    return replace(session, posted=session.posted + spent.total, reserved=session.reserved - taken)


async def ensure_costs(connection: Connection, session: SessionState) -> None:
    """A session without any usage still has its row of zeros."""
    zeros: dict[str, int | Decimal] = dict.fromkeys(store.COUNTED, 0)
    await store.project_costs(
        connection, session.id, session.project_id, COST_PROVIDER[Api(session.api)], session.model, zeros, []
    )


def supersedes(new: Event, old: Event) -> bool:
    """Whether a different body under a known key is a newer truth: metered beats unmetered, later beats earlier, and
    where the agent's clock was set back the dearer one is it (snapshots only grow).
    """
    same = (new.meters, new.model, new.cost_usd, new.unmetered) == (old.meters, old.model, old.cost_usd, old.unmetered)
    if same or (new.unmetered and not old.unmetered):
        return False
    return old.unmetered or new.occurred_at >= old.occurred_at or new.cost_usd > old.cost_usd


async def _write(connection: Connection, session: SessionState, entry: Entry, rates: RateSnapshot | None) -> None:
    await store.append(connection, entry)
    snapshots = [snapshot_wire(rates).model_dump(mode="json")] if rates else []
    await store.project_costs(
        connection,
        session.id,
        session.project_id,
        COST_PROVIDER[Api(session.api)],
        session.model,
        store.cost_difference(entry),
        snapshots,
    )


def entry_of(
    session: SessionState,
    event: Event,
    kind: str,
    meters: Mapping[Meter, int],
    amount: Decimal,
    unmetered: Decimal,
    event_id: int | None,
    snapshot_id: str | None,
    at: datetime,
) -> Entry:
    """One movement of a session's money on the account it is on."""
    return Entry(
        session.account_id,
        session.participant_account_id,
        session.project_id,
        session.id,
        kind,
        event.kind,
        "ai",
        event.model,
        meters,
        amount,
        unmetered,
        at,
        event_id,
        snapshot_id,
    )


def _subtract(new: Mapping[Meter, int], old: Mapping[Meter, int]) -> dict[Meter, int]:
    found = {meter: new.get(meter, 0) - old.get(meter, 0) for meter in {*new, *old}}
    return {meter: count for meter, count in found.items() if count}
