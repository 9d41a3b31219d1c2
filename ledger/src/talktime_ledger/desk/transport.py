"""The transport leg: participant minutes, priced by the media's card; in the budget only when the Project says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.pricing import price
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateSnapshot
from talktime_ledger.core.transport import Connection as Connected
from talktime_ledger.core.transport import merged, metered
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


@dataclass(frozen=True, slots=True)
class Kept:
    """A connection as the session's row keeps it, with what its lost time was posted at: `usd` on `account_id` (None:
    outside the budget).
    """

    connection: Connected
    usd: Decimal = ZERO
    account_id: int | None = None

    @classmethod
    def of(cls, raw: Any) -> Kept:
        """From the column `transport_seconds`: a number alone is the seconds it was seen."""
        if isinstance(raw, int):
            return cls(Connected(raw))
        connection = Connected(raw["seen"], raw.get("gone"), raw.get("left"), raw.get("cloud", False))
        return cls(connection, Decimal(raw.get("lost_usd", 0)), raw.get("lost_account"))

    def raw(self) -> Any:
        """For the column."""
        connection = self.connection
        named: dict[str, Any] = {"seen": connection.seen}
        if connection.gone is not None:
            named["gone"] = connection.gone
        if connection.left is not None:
            named["left"] = connection.left
        if connection.cloud:
            named["cloud"] = True
        if self.usd:
            named |= {"lost_usd": str(self.usd), "lost_account": self.account_id}
        return named if len(named) > 1 else connection.seen


def told(request: Transport) -> dict[str, Connected]:
    """The connections of a report."""
    seen, gone, left = request.participant_seconds, request.gone_seconds, request.left_seconds
    cloud = request.mode == "cloud"
    return {key: Connected(seen.get(key, 0), gone.get(key), left.get(key), cloud) for key in {*seen, *gone, *left}}


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
        if kept.usd and kept.connection.lost != known[key].connection.lost:
            after = await _take_back(connection, after, kept, known[key].connection.lost, now)
            new[key] = replace(kept, usd=ZERO, account_id=None)
    for mode in VENDOR:
        after = await _book(connection, project, after, mode, known, new, book, now)
    after = replace(after, transport_seconds={key: kept.raw() for key, kept in new.items()})
    if after.state == "closed" and all_gone(after.transport_seconds):
        after = await release(connection, after)
    await sessions.save(connection, session, after)
    return after


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
    """One medium's new seconds, and the new bounds of lost ones (noted in `new`).

    An amount is the price of all seconds minus the price of those before: so the session's transport is the card's
    price of its seconds, not a sum of rounded steps.
    """
    cloud = mode == "cloud"
    before = metered((kept.connection for kept in known.values()), cloud=cloud)
    total = metered((kept.connection for kept in new.values()), cloud=cloud)
    lost = [
        key
        for key, kept in new.items()
        if kept.connection.cloud == cloud and kept.connection.lost and not kept.usd and _is_news(key, known, kept)
    ]
    if total == before and not lost:
        return session
    try:
        rates = transport_rates(book, mode, now)
    except PriceUnknown:
        return session
    counted = project.spec.budget.include_transport
    paid = ZERO
    if total > before:
        amount = _between(before, total, rates)
        await _write(connection, session, counted, total - before, amount, ZERO, rates, now)
        paid += amount
    standing = total + sum(k.connection.lost for k in new.values() if k.usd and k.connection.cloud == cloud)
    for key in lost:
        seconds = new[key].connection.lost
        amount = _between(standing, standing + seconds, rates)
        standing += seconds
        await _write(connection, session, counted, seconds, amount, amount, rates, now)
        new[key] = replace(new[key], usd=amount, account_id=session.account_id if counted else None)
        paid += amount
    if not counted:
        return session
    return await _pay(connection, project, session, paid, book, now)


def _is_news(key: str, known: Mapping[str, Kept], kept: Kept) -> bool:
    """Whether this bound is another than the one that stands (or stands at no price)."""
    return key not in known or known[key].connection.lost != kept.connection.lost


def _between(before: int, after: int, rates: RateSnapshot) -> Decimal:
    """USD of the participant seconds from `before` to `after`."""
    return price({Meter.PARTICIPANT_SECONDS: after}, rates) - price({Meter.PARTICIPANT_SECONDS: before}, rates)


async def _write(
    connection: Connection,
    session: SessionState,
    counted: bool,
    seconds: int,
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
        meters={Meter.PARTICIPANT_SECONDS: seconds},
        amount_usd=amount,
        unmetered_usd=unmetered,
        occurred_at=now,
    )
    await post_transport(connection, session, entry, rates)


async def _take_back(
    connection: Connection, session: SessionState, kept: Kept, seconds: int, now: datetime
) -> SessionState:
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
        meters={Meter.PARTICIPANT_SECONDS: -seconds},
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
