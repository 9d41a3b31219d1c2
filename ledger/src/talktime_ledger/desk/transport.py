"""The transport leg: participant minutes, video tracks, traffic (an estimate, so all of it unmetered), priced by the
media's card; in the budget only when the Project says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from talktime_ledger.core.meters import Meter, add
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.pricing import price_known, price_stated
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateSnapshot
from talktime_ledger.core.transport import Company, ahead, egress_bytes, lost, merged, metered
from talktime_ledger.desk.connections import Kept, told
from talktime_ledger.desk.errors import GrantRaceError
from talktime_ledger.desk.lingering import all_gone, release
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
# In a room beside its participants and the agent; LiveKit counts them all.
OBSERVERS = 8
# Who may publish more than a microphone: a camera and a screen.
VIDEO_TRACKS = 2


def transport_rates(book: RateBook, mode: str, at: datetime) -> RateSnapshot:
    """Prices of a medium; PriceUnknown if there is no card."""
    return book.snapshot(VENDOR[mode], MODEL, at)


def transport_reserve(project: Project, book: RateBook, at: datetime) -> Decimal:
    """USD held ahead at the dearer of both media, 0 when transport is outside the budget.

    A medium without a card is not in use; PriceUnknown if neither has one, or a card does not say what a meter costs.
    """
    if not project.spec.budget.include_transport:
        return ZERO
    media = project.spec.media
    found, failure = [], PriceUnknown("")
    for mode in VENDOR:
        try:
            rates = transport_rates(book, mode, at)
        except PriceUnknown as error:
            failure = error
            continue
        videos = 0 if media.microphone_only else VIDEO_TRACKS
        meters = ahead(media.max_participants, OBSERVERS, AHEAD_SEC, videos, cloud=mode == "cloud")
        found.append(price_stated({meter: count for meter, count in meters.items() if count}, rates))
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


async def report_transport(
    connection: Connection,
    project: Project,
    session: SessionState,
    request: Transport,
    book: RateBook,
    now: datetime,
) -> SessionState:
    """Books what is new; without a card the seconds are kept and priced never (the session shows 0 transport)."""
    known = {key: Kept.of(raw) for key, raw in session.transport_seconds.items()}
    new = dict(known)
    for key, connected in sorted(told(request).items()):
        before = known.get(key)
        merge = merged(before.connection, connected) if before else connected
        new[key] = replace(before, connection=merge) if before else Kept(merge)
    if new == known:
        return session
    after = session
    for key, kept in new.items():
        if kept.meters and _unseen(kept) != _unseen(known[key]):
            after = await _take_back(connection, after, kept, now)
            new[key] = replace(kept, usd=ZERO, account_id=None, meters={})
    for mode in VENDOR:
        after = await _book(connection, project, after, mode, known, new, book, now)
    company = Company.of(new)
    for key, kept in new.items():
        sent = egress_bytes(key, kept.connection, kept.connection.longest, company)
        new[key] = replace(kept, bytes=sent)
    after = replace(after, transport_seconds={key: kept.raw() for key, kept in new.items()})
    if after.state == "closed" and all_gone(after.transport_seconds):
        after = await release(connection, after)
    await sessions.save(connection, session, after)
    return after


def _unseen(kept: Kept) -> tuple[int, int]:
    """What a bound is of: the time in which nobody looked, in seconds and as it is billed."""
    return kept.connection.longest - kept.connection.lasted, kept.connection.lost


async def _book(
    connection: Connection,
    project: Project,
    session: SessionState,
    mode: str,
    known: Mapping[str, Kept],
    new: dict[str, Kept],
    book: RateBook,
    now: datetime,
) -> SessionState:
    """One medium's new meters, and the new bounds of lost time (noted in `new`).

    An amount is the price of all that is metered minus the price of what was before: so the session's transport is the
    card's price of its meters, not a sum of rounded steps.
    """
    cloud = mode == "cloud"
    before = metered({key: kept.connection for key, kept in known.items()}, cloud=cloud)
    total = metered({key: kept.connection for key, kept in new.items()}, cloud=cloud)
    company = Company.of(new)
    bounds = {
        key: meters
        for key, kept in new.items()
        if kept.connection.cloud == cloud
        and not kept.meters
        and (key not in known or _unseen(known[key]) != _unseen(kept))
        and (meters := lost(key, kept.connection, company))
    }
    if total == before and not bounds:
        return session
    try:
        rates = transport_rates(book, mode, now)
    except PriceUnknown:
        return session
    counted = project.spec.budget.include_transport
    paid = ZERO
    if total != before:
        amount = _between(before, total, rates)
        traffic = _between(_traffic(before), _traffic(total), rates)
        step = {meter: total[meter] - before[meter] for meter in total if total[meter] != before[meter]}
        await _write(connection, session, counted, step, amount, traffic, rates, now)
        paid += amount
    standing: Mapping[Meter, int] = total
    for kept in new.values():
        if kept.connection.cloud == cloud:
            standing = add(standing, kept.meters)
    for key, meters in bounds.items():
        amount = _between(standing, add(standing, meters), rates)
        standing = add(standing, meters)
        await _write(connection, session, counted, meters, amount, amount, rates, now)
        account_id = session.account_id if counted else None
        new[key] = replace(new[key], usd=amount, account_id=account_id, meters=meters)
        paid += amount
    if not counted:
        return session
    return await _pay(connection, project, session, paid, book, now)


def _between(before: Mapping[Meter, int], after: Mapping[Meter, int], rates: RateSnapshot) -> Decimal:
    """USD of the meters from `before` to `after`; those without a price are kept and priced never."""
    return price_known(after, rates) - price_known(before, rates)


def _traffic(meters: Mapping[Meter, int]) -> Mapping[Meter, int]:
    """The part that is an estimate."""
    return {Meter.EGRESS_BYTES: meters.get(Meter.EGRESS_BYTES, 0)}


async def _write(
    connection: Connection,
    session: SessionState,
    counted: bool,
    meters: Mapping[Meter, int],
    amount: Decimal,
    unmetered: Decimal,
    rates: RateSnapshot,
    now: datetime,
) -> None:
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
        unmetered_usd=unmetered,
        occurred_at=now,
    )
    await post_transport(connection, session, entry, rates)


async def _take_back(connection: Connection, session: SessionState, kept: Kept, now: datetime) -> SessionState:
    """A bound no longer stands: exactly what was posted for it goes back to the budget that paid."""
    counted = kept.account_id is not None
    entry = Entry(
        account_id=kept.account_id,
        participant_account_id=session.participant_account_id if counted else None,
        project_id=session.project_id,
        session_id=session.id,
        kind="reversal",
        usage_kind="transport",
        leg="transport",
        model=MODEL,
        meters={meter: -count for meter, count in kept.meters.items()},
        amount_usd=-kept.usd,
        unmetered_usd=-kept.usd,
        occurred_at=now,
    )
    await post_transport(connection, session, entry, None)
    if kept.account_id is None:
        return session
    for account_id in (session.participant_account_id, kept.account_id):
        if account_id is not None:
            await accounts.settle(connection, account_id, Move(-kept.usd))
    return replace(session, posted=session.posted - kept.usd)


async def _pay(
    connection: Connection, project: Project, session: SessionState, amount: Decimal, book: RateBook, now: datetime
) -> SessionState:
    """Out of the transport reserve alone (the rest of what is held is the agent's), which is then filled up again as
    far as the caps allow. What goes beyond the reserve (a gateway that was away for minutes; minutes told after the
    close) is a fact and posted as one.
    """
    taken = min(amount, session.transport_hold_usd, session.reserved)
    refill = ZERO
    # The account of a participant whose limit was taken away since goes on counting, and bounds nothing.
    capped = project.spec.budget.participant is not None
    if session.state == "open":
        account = await accounts.read(connection, session.account_id)
        rooms = [account.available, session.limit_usd - session.posted - session.reserved]
        if session.participant_account_id is not None and capped:
            rooms.append((await accounts.read(connection, session.participant_account_id)).available)
        target = transport_target(project, book, now) or ZERO
        missing = target - (session.transport_hold_usd - taken)
        refill = max(ZERO, min(missing, min(rooms) - amount + taken))
    move = Move(amount, refill - taken)
    for account_id in (session.participant_account_id, session.account_id):
        if account_id is None:
            continue
        if refill == 0 or (account_id == session.participant_account_id and not capped):
            await accounts.settle(connection, account_id, move)
        elif await accounts.grant(connection, account_id, move) is None:
            raise GrantRaceError
    return replace(
        session,
        posted=session.posted + amount,
        reserved=session.reserved - taken + refill,
        transport_hold_usd=session.transport_hold_usd - taken + refill,
    )
