"""Ends sessions: by the agent, by the gateway for agents that never came or vanished, by the sweeper."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from talktime_ledger.core.money import ZERO
from talktime_ledger.core.rates import RateBook
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.late import post_late
from talktime_ledger.desk.lingering import LINGER_SEC, left_behind
from talktime_ledger.desk.lost import assume_lost
from talktime_ledger.desk.posting import Posted, ensure_costs, post_unmetered, post_usages
from talktime_ledger.desk.using import Refusal, gone, locked, merged_events
from talktime_ledger.store import accounts, outbox, sessions, tickets, usages
from talktime_ledger.store.accounts import Move
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Project
from talktime_ledger.store.sessions import Locked, SessionState
from talktime_ledger.wire import Close, ProblemReason

ROOM_FAILED = "room_failed"
"""The gateway's close reason when there never was a room: nobody came by the ticket, it can be used again."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The closed session; `first` = this call closed it."""

    session: SessionState
    first: bool


async def close(
    connection: Connection, found: Locked, request: Close, book: RateBook, *, by_agent: bool
) -> Closed | Refusal:
    """Settles, and releases everything but what people still in the room will cost. An agent says what it used; anybody
    else leaves an assumption at its bound.
    """
    session, now = found.session, found.now
    if session.state == "closed":
        after = await post_late(
            connection, session, request.usages, request.unmetered, request.epoch, book, now, final=by_agent
        )
        return Closed(after, first=False)
    if not by_agent and served(session, now):
        raise DeskError(ProblemReason.CONFLICT, "an agent holds this session")
    if by_agent and request.epoch != session.epoch:
        await post_late(connection, session, request.usages, request.unmetered, request.epoch, book, now, final=True)
        return Refusal(gone(session, request.epoch))
    spent = await post_usages(connection, session, request.usages, book, now, session.epoch)
    spent += await post_unmetered(connection, session, request.unmetered, now, session.epoch)
    if not by_agent:
        spent += Posted(await assume_lost(connection, session, now))
    told = replace(
        session,
        turns=max(session.turns, request.turns),
        events=merged_events(session.events, request.events),
        duration_sec=round(request.duration_sec) or seconds_attached(session, now),
    )
    if request.reason == ROOM_FAILED and not by_agent:
        # Before the accounts, as in opening: one order everywhere.
        await tickets.release(connection, session.id)
    return Closed(await _finish(connection, found.project, session, told, spent, request.reason, now), first=True)


def served(session: SessionState, now: datetime) -> bool:
    """Whether an agent holds the session and its validity runs: then only that agent ends it (law 5)."""
    return session.worker is not None and session.valid_until > now


async def sweep(connection: Connection, session_id: UUID, grace_sec: float) -> SessionState | None:
    """Ends a session whose validity is over; None if it was renewed or closed meanwhile."""
    found = await locked(connection, session_id)
    session, now = found.session, found.now
    if session.state == "closed" or (now - session.valid_until).total_seconds() < grace_sec:
        return None
    spent = Posted(await assume_lost(connection, session, now))
    told = replace(session, duration_sec=seconds_attached(session, session.last_use_at or now))
    reason = "swept" if session.attached_at is not None else "no_agent"
    return await _finish(connection, found.project, session, told, spent, reason, now)


def seconds_attached(session: SessionState, until: datetime) -> int:
    """Whole seconds since the agent came; 0 without one."""
    return max(0, round((until - session.attached_at).total_seconds())) if session.attached_at else 0


async def _finish(
    connection: Connection,
    project: Project,
    before: SessionState,
    told: SessionState,
    spent: Posted,
    reason: str,
    now: datetime,
) -> SessionState:
    held = ZERO if reason == ROOM_FAILED else left_behind(before)
    freed = before.reserved - held
    if before.participant_account_id is not None:
        await accounts.settle(connection, before.participant_account_id, Move(spent.total, -freed, -1))
    await accounts.settle(connection, before.account_id, Move(spent.here, -freed, -1))
    after = replace(
        told,
        state="closed",
        closed_at=now,
        close_reason=reason,
        posted=before.posted + spent.total,
        reserved=held,
        transport_hold_usd=held,
        valid_until=now + timedelta(seconds=LINGER_SEC) if held else before.valid_until,
        in_flight=ZERO,
    )
    await sessions.save(connection, before, after)
    await ensure_costs(connection, after)
    await usages.finish_costs(connection, after.id, after.duration_sec, after.turns)
    if project.spec.post_processing is not None:
        await outbox.put(connection, project, after, project.spec.post_processing.webhook)
    return after
