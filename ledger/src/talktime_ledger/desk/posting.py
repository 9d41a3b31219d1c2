"""Posts usage: each key once, corrections appended, assumptions replaced by late reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from talktime_ledger.cards import snapshot_wire
from talktime_ledger.core.meters import Meter, counts
from talktime_ledger.core.money import ZERO, usd
from talktime_ledger.core.rates import RateBook, RateSnapshot
from talktime_ledger.core.sweep import still_assumed
from talktime_ledger.core.usage import UsageKind, UsageStatus
from talktime_ledger.desk.pricing import COST_PROVIDER, price_usage
from talktime_ledger.resources.project import Api
from talktime_ledger.store import usages as store
from talktime_ledger.store.database import Connection
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.store.usages import Entry, Event
from talktime_ledger.wire import Unmetered, Usage


async def post_usages(
    connection: Connection,
    session: SessionState,
    usages: Sequence[Usage],
    book: RateBook,
    now: datetime,
    epoch: int,
) -> Decimal:
    """Books usages of one report; returns what they add to the session's cost (0 for repeats), USD."""
    total = ZERO
    for usage in usages:
        priced = price_usage(session, usage, book, now)
        meters = {meter: count for meter, count in usage.meters.items() if count}
        event = Event(
            0,
            usage.kind.value,
            usage.model,
            meters,
            usage.occurred_at,
            usage.status.value,
            usage.unmetered or priced.assumed_price,
            priced.cost_usd,
            epoch,
        )
        total += await _book(connection, session, usage.key, event, priced.rates)
    return total


async def post_unmetered(
    connection: Connection, session: SessionState, items: Sequence[Unmetered], now: datetime, epoch: int
) -> Decimal:
    """Books what was billed and never told, at its bound."""
    total = ZERO
    for item in items:
        event = _bound(session, item.usd, now, epoch)
        total += await _book(connection, session, item.key, event, None)
    return total


async def assume(connection: Connection, session: SessionState, amount: Decimal, now: datetime) -> Decimal:
    """Books what a lost agent of this epoch may have spent; a late report replaces it."""
    if amount <= 0:
        return ZERO
    event = _bound(session, amount, now, session.epoch)
    return await _book(connection, session, f"assumed/{session.epoch}", event, None, kind="assumed")


async def replace_assumptions(
    connection: Connection, session: SessionState, epoch: int, reported: Decimal, in_flight: Decimal, now: datetime
) -> Decimal:
    """A late report of an agent takes back what was assumed of it; returns the (negative) difference, USD."""
    if session.epoch == 1 and session.state == "open":
        return ZERO
    total = ZERO
    for _, event in await store.assumptions(connection, session.id):
        if event.epoch != epoch:
            continue
        left = still_assumed(event.cost_usd, max(ZERO, reported), in_flight)
        difference = left - event.cost_usd
        await store.revise(connection, event.id, replace(event, cost_usd=left), None)
        entry = _entry(session, event, "reversal", {}, difference, difference, event.id, None, now)
        await _write(connection, session, entry, None)
        total += difference
    return total


async def post_transport(connection: Connection, session: SessionState, entry: Entry, rates: RateSnapshot) -> None:
    """Books one step of the transport leg."""
    snapshot_id = await store.keep_snapshot(connection, rates)
    await _write(connection, session, replace(entry, snapshot_id=snapshot_id), rates)


async def ensure_costs(connection: Connection, session: SessionState) -> None:
    """A session without any usage still has its row of zeros."""
    zeros: dict[str, int | Decimal] = dict.fromkeys(store.COUNTED, 0)
    await store.project_costs(
        connection, session.id, session.project_id, COST_PROVIDER[Api(session.api)], session.model, zeros, []
    )


def supersedes(new: Event, old: Event) -> bool:
    """Whether a different body under a known key is a newer truth: metered beats unmetered, later beats earlier."""
    same = (new.meters, new.model, new.cost_usd, new.unmetered) == (old.meters, old.model, old.cost_usd, old.unmetered)
    if same or (new.unmetered and not old.unmetered):
        return False
    return old.unmetered or new.occurred_at >= old.occurred_at


async def _book(
    connection: Connection,
    session: SessionState,
    key: str,
    event: Event,
    rates: RateSnapshot | None,
    kind: str | None = None,
) -> Decimal:
    snapshot_id = store.snapshot_key(rates) if rates else None
    unmetered = event.cost_usd if event.unmetered else ZERO
    name = kind or ("unmetered" if event.unmetered else "usage")
    entry = _entry(session, event, name, event.meters, event.cost_usd, unmetered, None, snapshot_id, event.occurred_at)
    if await store.book(connection, key, event, entry, rates, COST_PROVIDER[Api(session.api)], session.model):
        return event.cost_usd
    old = await store.find(connection, session.id, key)
    if old is None or not supersedes(event, old):
        return ZERO
    difference = usd(event.cost_usd - old.cost_usd)
    before = old.cost_usd if old.unmetered else ZERO
    await store.revise(connection, old.id, event, snapshot_id)
    entry = _entry(
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
    await _write(connection, session, entry, rates)
    return difference


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


def _entry(
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


def _bound(session: SessionState, amount: Decimal, now: datetime, epoch: int) -> Event:
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


def _subtract(new: Mapping[Meter, int], old: Mapping[Meter, int]) -> dict[Meter, int]:
    found = {meter: new.get(meter, 0) - old.get(meter, 0) for meter in {*new, *old}}
    return {meter: count for meter, count in found.items() if count}
