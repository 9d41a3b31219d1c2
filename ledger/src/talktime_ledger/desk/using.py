"""Attach, use, claim: the life of an open session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from talktime_ledger.core.money import ZERO
from talktime_ledger.core.rates import RateBook
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.granting import Renewal, Request, renew, wrap_up_said
from talktime_ledger.desk.late import post_late
from talktime_ledger.desk.lost import assume_lost
from talktime_ledger.desk.posting import Posted, post_usages, take_from_held
from talktime_ledger.desk.transport import transport_target
from talktime_ledger.store import accounts, sessions
from talktime_ledger.store.accounts import Move
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Project
from talktime_ledger.store.sessions import Locked, SessionState
from talktime_ledger.wire import Attach, Claim, Grant, ProblemReason, SessionEvent, Use

# Kept per session; an agent reports about ten.
MAX_EVENTS = 200
# An agent that charges without having attached holds the session all the same.
UNNAMED = "unnamed"


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
    """An agent takes up the session with its epoch; tops the reservation up.

    A wrap-up that nobody has said yet is told anew: the answer that told it may be lost, or the agent that heard it.
    """
    session, now = found.session, found.now
    _check_open(session)
    if request.epoch != session.epoch or session.lost_epoch == session.epoch:
        raise gone(session, request.epoch)
    if session.worker is not None and session.worker != request.worker:
        raise DeskError(ProblemReason.FENCED, "another worker holds this epoch")
    begun = replace(
        session,
        worker=request.worker,
        attached_at=session.attached_at or now,
        wrap_up_at=session.wrap_up_at if wrap_up_said(session) else None,
    )
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
        await post_late(connection, session, request.usages, (), request.epoch, book, now, final=False)
        return Refusal(gone(session, request.epoch))
    spent = await post_usages(connection, session, request.usages, book, now, request.epoch)
    if session.lost_epoch == session.epoch:
        # Its loss was told: nobody talks on this epoch any more. What it held still pays for what it used.
        await sessions.save(connection, session, await take_from_held(connection, session, spent))
        return Refusal(gone(session, request.epoch))
    if request.n <= session.last_n and session.last_answer is not None:
        return await _again(connection, session, request.n, spent, now, valid_sec)
    told, asked = question(found.project, session, request, spent, book, now, valid_sec)
    renewal = await renew(connection, found.project, told, asked)
    await sessions.save(connection, session, renewal.session)
    return renewal


def question(
    project: Project, session: SessionState, request: Use, spent: Posted, book: RateBook, now: datetime, valid_sec: int
) -> tuple[SessionState, Request]:
    """The session with what its agent tells of it, and what it asks for (pure)."""
    told = replace(
        session,
        worker=session.worker or UNNAMED,
        turns=max(session.turns, request.turns),
        events=merged_events(session.events, request.events) if request.events else session.events,
        attached_at=session.attached_at or now,
    )
    target = transport_target(project, book, now)
    return told, Request(
        request.n, spent.total, request.in_flight, request.want, now, valid_sec, spent.elsewhere, transport=target
    )


async def claim(connection: Connection, found: Locked, request: Claim, valid_sec: int) -> SessionState:
    """Raises the epoch: the old agent is fenced, and everything it held is assumed spent until it reports (ADR 4)."""
    session, now = found.session, found.now
    _check_open(session)
    if request.epoch != session.epoch + 1:
        raise DeskError(ProblemReason.CONFLICT, f"the epoch is {session.epoch}, {request.epoch} cannot follow it")
    amount = await assume_lost(connection, session, now)
    if amount:
        if session.participant_account_id is not None:
            await accounts.settle(connection, session.participant_account_id, Move(amount, -amount))
        await accounts.settle(connection, session.account_id, Move(amount, -amount))
    after = replace(
        session,
        epoch=request.epoch,
        worker=None,
        losses=session.losses + (session.worker is not None and request.media is None),
        media=session.media if request.media is None else request.media.model_dump(mode="json"),
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


async def _again(
    connection: Connection, session: SessionState, n: int, spent: Posted, now: datetime, valid_sec: int
) -> Grant:
    """The stored answer, with what is held now. Usage of an overtaken request is taken from it."""
    settled = await take_from_held(connection, session, spent)
    stored = Grant.model_validate(session.last_answer)
    reserved = min(stored.reserved, max(ZERO, settled.reserved - session.transport_hold_usd))
    answer = stored.model_copy(
        update={
            "reserved": reserved,
            "goodbye": min(stored.goodbye, reserved),
            "posted": settled.posted,
        }
    )
    after = replace(
        settled,
        last_answer=answer.model_dump(mode="json"),
        # The agent counts its validity from the sending of this repeat.
        valid_until=now + timedelta(seconds=valid_sec) if n == session.last_n else session.valid_until,
    )
    await sessions.save(connection, session, after)
    return answer


def _check_open(session: SessionState) -> None:
    if session.state == "closed":
        raise DeskError(ProblemReason.CLOSED, f"the session was closed: {session.close_reason}")


def gone(session: SessionState, epoch: int) -> DeskError:
    if session.state == "closed":
        return DeskError(ProblemReason.CLOSED, f"the session was closed: {session.close_reason}")
    if epoch == session.epoch:
        return DeskError(ProblemReason.FENCED, f"the agent of epoch {epoch} was lost: the next one is claimed")
    return DeskError(ProblemReason.FENCED, f"epoch {epoch} is not the present {session.epoch}")
