"""The transport leg: participant minutes, priced by the media's card; in the budget only when the Project says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.pricing import price
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateSnapshot
from talktime_ledger.desk.errors import GrantRaceError
from talktime_ledger.desk.posting import post_transport
from talktime_ledger.store import accounts, sessions
from talktime_ledger.store.accounts import Move
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Project
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.store.usages import Entry
from talktime_ledger.wire import Transport

MODEL = "participant"
"""The model name of transport rate cards (`livekit/participant`, `selfhosted/participant`)."""
VENDOR = {"selfhosted": "selfhosted", "cloud": "livekit"}
# Seconds reserved ahead per participant: one renewal of 20 s and a minute.
AHEAD_SEC = 80
# In a room beside its participants: the agent and the observers; LiveKit counts them all.
OTHERS = 1 + 8


def transport_rates(book: RateBook, mode: str, at: datetime) -> RateSnapshot:
    """Prices of a medium; PriceUnknown if there is no card."""
    return book.snapshot(VENDOR[mode], MODEL, at)


def transport_reserve(project: Project, book: RateBook, at: datetime) -> Decimal:
    """USD held ahead at the dearer of both media, 0 when transport is outside the budget; PriceUnknown if neither has a
    card.
    """
    if not project.spec.budget.include_transport:
        return ZERO
    found, failure = [], PriceUnknown("")
    for mode in VENDOR:
        try:
            seconds = (project.spec.media.max_participants + OTHERS) * AHEAD_SEC
            found.append(price({Meter.PARTICIPANT_SECONDS: seconds}, transport_rates(book, mode, at)))
        except PriceUnknown as error:
            failure = error
    if not found:
        raise failure
    return max(found)


def transport_target(project: Project, book: RateBook, at: datetime) -> Decimal | None:
    """USD an open session should hold for transport now; None: leave it as it is (outside the budget, or no card)."""
    if not project.spec.budget.include_transport:
        return None
    try:
        return transport_reserve(project, book, at)
    except PriceUnknown:
        return None


def new_seconds(known: Mapping[str, int], reported: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Merges cumulative seconds (never backwards); returns them and what is new."""
    merged = {name: max(known.get(name, 0), reported.get(name, 0)) for name in {*known, *reported}}
    return merged, sum(merged.values()) - sum(known.values())


async def report_transport(
    connection: Connection,
    project: Project,
    session: SessionState,
    request: Transport,
    book: RateBook,
    now: datetime,
) -> SessionState:
    """Books the new seconds; without a card they are kept and priced never (the session shows 0 transport)."""
    merged, new = new_seconds(session.transport_seconds, request.participant_seconds)
    after = replace(session, transport_seconds=merged)
    if new > 0:
        after = await _book(connection, project, after, request.mode, new, book, now)
    await sessions.save(connection, session, after)
    return after


async def _book(
    connection: Connection,
    project: Project,
    session: SessionState,
    mode: str,
    seconds: int,
    book: RateBook,
    now: datetime,
) -> SessionState:
    try:
        rates = transport_rates(book, mode, now)
    except PriceUnknown:
        return session
    meters = {Meter.PARTICIPANT_SECONDS: seconds}
    amount = price(meters, rates)
    counted = project.spec.budget.include_transport
    entry = Entry(
        account_id=session.account_id if counted else None,
        participant_account_id=session.participant_account_id if counted else None,
        project_id=session.project_id,
        session_id=session.id,
        kind="transport",
        usage_kind="transport",
        leg="transport",
        model=rates.model,
        meters=meters,
        amount_usd=amount,
        unmetered_usd=ZERO,
        occurred_at=now,
    )
    await post_transport(connection, session, entry, rates)
    if not counted:
        return session
    return await _pay(connection, project, session, amount, book, now)


async def _pay(
    connection: Connection, project: Project, session: SessionState, amount: Decimal, book: RateBook, now: datetime
) -> SessionState:
    """Out of the transport reserve alone (the rest of what is held is the agent's), which is then filled up again as
    far as the caps allow. What goes beyond the reserve (a gateway that was away for minutes; minutes told after the
    close) is a fact and posted as one.
    """
    taken = min(amount, session.transport_hold_usd, session.reserved)
    refill = ZERO
    if session.state == "open":
        account = await accounts.read(connection, session.account_id)
        rooms = [account.available, session.limit_usd - session.posted - session.reserved]
        if session.participant_account_id is not None:
            rooms.append((await accounts.read(connection, session.participant_account_id)).available)
        target = transport_target(project, book, now) or ZERO
        missing = target - (session.transport_hold_usd - taken)
        refill = max(ZERO, min(missing, min(rooms) - amount + taken))
    move = Move(amount, refill - taken)
    for account_id in (session.participant_account_id, session.account_id):
        if account_id is None:
            continue
        if refill == 0:
            await accounts.settle(connection, account_id, move)
        elif await accounts.grant(connection, account_id, move) is None:
            raise GrantRaceError
    return replace(
        session,
        posted=session.posted + amount,
        reserved=session.reserved - taken + refill,
        transport_hold_usd=session.transport_hold_usd - taken + refill,
    )
