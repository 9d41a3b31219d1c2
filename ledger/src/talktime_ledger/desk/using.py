"""Attach, use, claim: the life of an open session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from talktime_ledger.core.money import ZERO
from talktime_ledger.core.rates import RateBook
from talktime_ledger.core.sweep import assumed
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.granting import Renewal, Request, renew
from talktime_ledger.desk.late import post_late
from talktime_ledger.desk.posting import assume, post_usages, replace_assumptions
from talktime_ledger.store import accounts, sessions
from talktime_ledger.store.accounts import Move
from talktime_ledger.store.database import Connection
from talktime_ledger.store.sessions import Locked, SessionState
from talktime_ledger.wire import Attach, Claim, Grant, ProblemReason, SessionEvent, Use

# Kept per session; an agent reports about ten.
MAX_EVENTS = 200


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is an error, after usage was counted: the transaction commits, then the error is told."""

    error: DeskError


async def locked(connection: Connection, session_id: UUID) -> Locked:
    """The session under its lock; DeskError NotFound. The caller checks who asks before it goes on."""
    found = await sessions.lock(connection, session_id)
    if found is None:
        raise DeskError(ProblemReason.NOT_FOUND, f"no session {session_id}")
    return found


async def attach(connection: Connection, found: Locked, request: Attach, valid_sec: int) -> Renewal:
    """An agent takes up the session with its epoch; tops the reservation up."""
    session, now = found.session, found.now
    _check_open(session)
    if request.epoch != session.epoch:
        raise DeskError(ProblemReason.FENCED, f"epoch {request.epoch} is not the present {session.epoch}")
    if session.worker is not None and session.worker != request.worker:
        raise DeskError(ProblemReason.FENCED, "another worker holds this epoch")
    begun = replace(session, worker=request.worker, attached_at=session.attached_at or now)
    # A repeated attach must not lose what the agent has reported in flight.
    renewal = await renew(
        connection, found.project, begun, Request(session.last_n, ZERO, session.in_flight, ZERO, now, valid_sec)
    )
    await sessions.save(connection, session, renewal.session)
    return renewal


async def use(
    connection: Connection, found: Locked, request: Use, book: RateBook, valid_sec: int
) -> Renewal | Grant | Refusal:
    """Posts usage and renews. A Grant alone is the stored answer of a repeat."""
    session, now = found.session, found.now
    if request.epoch != session.epoch or session.state == "closed":
        # Counted all the same: it was billed.
        await post_late(
            connection,
            session,
            request.usages,
            (),
            request.epoch,
            request.in_flight,
            book,
            now,
        )
        return Refusal(gone(session, request.epoch))
    spent = await post_usages(connection, session, request.usages, book, now, request.epoch)
    if request.n <= session.last_n and session.last_answer is not None:
        if spent:
            await _post_reordered(connection, session, spent)
        return Grant.model_validate(session.last_answer)
    spent += await replace_assumptions(connection, session, request.epoch, spent, request.in_flight, now)
    told = replace(
        session,
        turns=max(session.turns, request.turns),
        events=merged_events(session.events, request.events),
        attached_at=session.attached_at or now,
    )
    renewal = await renew(
        connection, found.project, told, Request(request.n, spent, request.in_flight, request.want, now, valid_sec)
    )
    await sessions.save(connection, session, renewal.session)
    return renewal


async def claim(connection: Connection, found: Locked, request: Claim, valid_sec: int) -> SessionState:
    """Raises the epoch: the old agent is fenced, what it may have had in flight is assumed at its bound."""
    session, now = found.session, found.now
    _check_open(session)
    if request.epoch != session.epoch + 1:
        raise DeskError(ProblemReason.CONFLICT, f"the epoch is {session.epoch}, {request.epoch} cannot follow it")
    amount = assumed(
        attached=session.attached_at is not None,
        reserved=session.reserved,
        fixed=session.fixed,
        w=session.hold * session.w_usd,
        in_flight=session.in_flight,
    )
    await assume(connection, session, amount, now)
    if amount:
        if session.participant_account_id is not None:
            await accounts.settle(connection, session.participant_account_id, Move(amount, -amount))
        await accounts.settle(connection, session.account_id, Move(amount, -amount))
    after = replace(
        session,
        epoch=request.epoch,
        worker=None,
        in_flight=ZERO,
        posted=session.posted + amount,
        reserved=session.reserved - amount,
        valid_until=now + timedelta(seconds=valid_sec),
    )
    await sessions.save(connection, session, after)
    return after


def merged_events(known: Sequence[dict[str, object]], new: Sequence[SessionEvent]) -> list[dict[str, object]]:
    """Events once each, in the order of their time, bounded."""
    rows = {(str(row["name"]), str(row["at"])): row for row in known}
    for event in new:
        row = event.model_dump(mode="json")
        rows.setdefault((str(row["name"]), str(row["at"])), row)
    return sorted(rows.values(), key=lambda row: str(row["at"]))[:MAX_EVENTS]


async def _post_reordered(connection: Connection, session: SessionState, amount: Decimal) -> None:
    """Usage of an overtaken request: taken from what is held; the newer answer stays."""
    taken = min(max(ZERO, amount), session.reserved)
    if session.participant_account_id is not None:
        await accounts.settle(connection, session.participant_account_id, Move(amount, -taken))
    await accounts.settle(connection, session.account_id, Move(amount, -taken))
    after = replace(session, posted=session.posted + amount, reserved=session.reserved - taken)
    await sessions.save(connection, session, after)


def _check_open(session: SessionState) -> None:
    if session.state == "closed":
        raise DeskError(ProblemReason.CLOSED, f"the session was closed: {session.close_reason}")


def gone(session: SessionState, epoch: int) -> DeskError:
    if session.state == "closed":
        return DeskError(ProblemReason.CLOSED, f"the session was closed: {session.close_reason}")
    return DeskError(ProblemReason.FENCED, f"epoch {epoch} is not the present {session.epoch}")
