"""Settles what was used and grants anew, on the session's caps and its accounts, in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from talktime_ledger.core.grants import Need, next_burn, plan_grant, set_aside
from talktime_ledger.core.limits import (
    Level,
    LimitState,
    Position,
    Verdict,
    judge,
    project_soft_ends_live,
    wrap_up_minutes,
)
from talktime_ledger.core.money import ZERO, ratio, usd
from talktime_ledger.core.periods import period_of, turns_over
from talktime_ledger.desk.errors import GrantRaceError
from talktime_ledger.store import accounts, sessions
from talktime_ledger.store.accounts import Account, Move
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Project
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.wire import Grant, GrantBudget, GrantState

# What an agent tells when it gives the wrap-up to the participant.
WRAP_UP_SAID = "wrap_up_sent"


@dataclass(frozen=True, slots=True)
class Request:
    """One interrogation. `spent`: what its usages add (may be negative), `elsewhere` of it was given back to earlier
    budgets already; `want`: W of the next response, 0 = W(cap); `transport`: the transport reserve to be held, None =
    as it is. USD.
    """

    n: int
    spent: Decimal
    in_flight: Decimal
    want: Decimal
    now: datetime
    valid_sec: int
    elsewhere: Decimal = ZERO
    transport: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Renewal:
    """The session afterwards, the answer, and whether the project's soft limit was reached by it."""

    session: SessionState
    grant: Grant
    latched: bool


def soft_threshold(project: Project, account: Account) -> Decimal:
    """USD posted at which the project's soft limit latches."""
    return usd(account.budget * project.spec.budget.soft_percent / 100)


def outage_reserve(project: Project) -> Decimal:
    """USD to hold on top, so that it can be spent while the ledger cannot be reached."""
    return Decimal(project.spec.budget.outage_reserve or 0)


async def project_account(connection: Connection, project: Project, now: datetime) -> Account:
    """The Project's account of the present period and generation."""
    budget = project.spec.budget
    period = period_of(budget.period, now)
    return await accounts.ensure(
        connection, project.id, "project", "", period, budget.account_generation, Decimal(budget.amount)
    )


@dataclass(frozen=True, slots=True)
class Terms:
    """What a renewal is going to do. `account`: the one that carries the session from now on, as it was read;
    `stranded`: its month or generation is over and the new one cannot carry it; `reserved`: what is to be reserved
    afterwards, `transport` of it new for transport; moves as they go to the accounts (`leave`: to the one it rolls
    away from). USD.
    """

    account: Account
    rolls: bool
    stranded: bool
    final: bool
    reserved: Decimal
    transport: Decimal
    posted: Decimal
    burn: Decimal | None
    need: Need
    move: Move
    guarded: bool
    participant_move: Move
    participant_guarded: bool
    leave: Move | None


def plan_terms(
    project: Project,
    session: SessionState,
    present: Account,
    held_account: Account,
    participant: Account | None,
    request: Request,
) -> Terms:
    """Takes `spent` from what is held and tops up (pure). `present`: the account of now; `held_account`: the one the
    session is on. Only the guarded statements make it true.
    """
    taken = min(max(ZERO, request.spent), session.reserved)
    kept = session.reserved - taken
    due = held_account.id != present.id and (
        held_account.generation != present.generation
        or turns_over(held_account.period, present.period, request.in_flight <= 0, request.now)
    )
    # The agent may have begun a response since it asked, on what it held: the new account takes over all of that or
    # nothing. A session it cannot take over ends with what it holds on the old one.
    rolls = due and present.available >= kept
    account = present if rolls else held_account
    shared = present.available - kept if rolls else account.available - request.spent + taken
    if due and not rolls:
        shared = min(shared, ZERO)
    rooms = [session.limit_usd - session.posted - request.spent - kept]
    # The account of a participant whose limit was taken away since goes on counting, and bounds nothing.
    capped = participant is not None and project.spec.budget.participant is not None
    if participant is not None and capped:
        rooms.append(participant.available - request.spent + taken)
    # Transport first: the agent's own part never pays for it.
    transport = ZERO
    if request.transport is not None:
        transport = max(ZERO, min(request.transport - session.transport_hold_usd, shared, *rooms))
    w = session.hold * (min(request.want, session.w_usd) if request.want > 0 else session.w_usd)
    burn = _burn(session, request)
    need = Need(session.fixed + transport, w, request.in_flight, burn, outage_reserve(project))
    plan = plan_grant(
        need,
        kept + transport,
        [room - transport for room in rooms],
        shared - transport,
        account.open_sessions + (1 if rolls else 0),
    )
    delta = plan.delta + transport
    reserved = kept + delta
    here = request.spent - request.elsewhere
    return Terms(
        account,
        rolls,
        due and not rolls,
        plan.final,
        reserved,
        transport,
        session.posted + request.spent,
        burn,
        need,
        Move(ZERO, reserved, 1) if rolls else Move(here, delta - taken, 0, soft_threshold(project, account)),
        reserved > 0 if rolls else delta > 0,
        Move(request.spent, delta - taken),
        delta > 0 and capped,
        Move(here, -session.reserved, -1) if rolls else None,
    )


Remainder = tuple[Decimal, Decimal]
"""(USD the open sessions will still need, USD they hold), see sessions.expected_remainder."""


def conclude(
    project: Project,
    session: SessionState,
    request: Request,
    terms: Terms,
    account: Account,
    participant: Account | None,
    remainder: Remainder | None,
) -> Renewal:
    """The session and its answer once the accounts have moved (pure). `remainder` where the project's soft limit is
    reached.
    """
    after = replace(
        session,
        account_id=account.id,
        posted=terms.posted,
        reserved=terms.reserved,
        transport_hold_usd=session.transport_hold_usd + terms.transport,
        in_flight=request.in_flight,
        burn_usd_min=terms.burn,
        last_n=request.n,
        last_use_at=request.now,
        valid_until=request.now + timedelta(seconds=request.valid_sec),
    )
    position = _position(project, after, account, participant, terms, remainder)
    if request.transport is not None:
        # Half of the reserve: enough for the goodbye and the way out.
        position = replace(position, transport_short=after.transport_hold_usd < request.transport / 2)
    verdict = judge(position)
    if verdict.state is LimitState.OK and terms.final:
        verdict = Verdict(LimitState.SOFT, "NothingBeyond", "what is held is the last of the budget")
    final = terms.final or verdict.state is LimitState.HARD
    aside = set_aside(terms.need, terms.reserved, final)
    after, grant = answer(after, project, account, position, verdict, terms.final, request, aside)
    latched = account.soft_at is not None and terms.account.soft_at is None and not terms.rolls
    return Renewal(after, grant, latched)


async def renew(connection: Connection, project: Project, session: SessionState, request: Request) -> Renewal:
    """Takes `spent` from what is held and tops up. GrantRaceError if another session took the money meanwhile."""
    present = await project_account(connection, project, request.now)
    held_account = present
    if session.account_id != present.id:
        held_account = await accounts.read(connection, session.account_id)
    participant = None
    if session.participant_account_id is not None:
        participant = await accounts.read(connection, session.participant_account_id)
    terms = plan_terms(project, session, present, held_account, participant, request)
    if participant is not None:
        move, guarded = terms.participant_move, terms.participant_guarded
        participant = await _move(connection, participant.id, move, guarded=guarded)
    if terms.leave is not None:
        await accounts.settle(connection, held_account.id, terms.leave)
    account = await _move(connection, terms.account.id, terms.move, guarded=terms.guarded)
    remainder = await sessions.expected_remainder(connection, project.id) if account.soft_at is not None else None
    return conclude(project, session, request, terms, account, participant, remainder)


def wrap_up_said(session: SessionState) -> bool:
    """Whether one of its agents has given the wrap-up to the participant (pure)."""
    return any(event["name"] == WRAP_UP_SAID for event in session.events)


def answer(
    session: SessionState,
    project: Project,
    account: Account,
    position: Position,
    verdict: Verdict,
    final: bool,
    request: Request,
    aside: Decimal = ZERO,
) -> tuple[SessionState, Grant]:
    """Latches soft, hard and the one wrap-up on the session, and says so."""
    soft, hard = verdict.state is LimitState.SOFT, verdict.state is LimitState.HARD
    wrap_up = soft and session.wrap_up_at is None and not wrap_up_said(session)
    minutes = None
    if wrap_up:
        # What the project still has is for all its open sessions.
        rest = max(ZERO, position.project.left - session.reserved)
        shares = [session.reserved + ratio(rest, Decimal(max(1, account.open_sessions))), position.session.left]
        if position.participant is not None:
            shares.append(position.participant.left)
        left = min(shares) - request.in_flight
        minutes = wrap_up_minutes(left, position.w, position.goodbye, session.burn_usd_min or ZERO)
    now = request.now
    after = replace(
        session,
        soft_at=session.soft_at or (now if soft or hard else None),
        hard_at=session.hard_at or (now if hard else None),
        wrap_up_at=now if wrap_up else session.wrap_up_at,
    )
    # The transport reserve is not the agent's, so it never hears of it.
    held = max(ZERO, after.reserved - after.transport_hold_usd)
    state = GrantState.FINAL if final or hard else GrantState.SOFT if soft else GrantState.OK
    grant = Grant(
        n=request.n,
        state=state,
        reason=verdict.reason,
        wrap_up=wrap_up,
        wrap_up_minutes=minutes,
        reserved=held,
        goodbye=min(session.goodbye_usd, held),
        posted=after.posted,
        session_limit=after.limit_usd,
        limit_state=verdict.state,
        valid_sec=request.valid_sec,
        w=session.w_usd,
        hold=session.hold,
        outage_reserve=aside,
        paused=project.paused,
        deleted=project.deleted,
        budget=GrantBudget(
            session_limit=after.limit_usd,
            session_posted=after.posted,
            project_amount=account.budget,
            project_posted=account.posted,
            project_available=account.available,
        ),
    )
    return replace(after, last_answer=grant.model_dump(mode="json")), grant


def _position(
    project: Project,
    session: SessionState,
    account: Account,
    participant: Account | None,
    terms: Terms,
    remainder: Remainder | None,
) -> Position:
    budget = project.spec.budget
    project_room = ZERO if terms.stranded else account.available
    ends = False
    if remainder is not None:
        need, held = remainder
        ends = project_soft_ends_live(budget.on_project_soft, account.available, held, need)

    def level(limit: Decimal, posted: Decimal, room: Decimal, percent: int) -> Level:
        # What is held is the session's own, also after a limit was lowered below it.
        return Level(limit, posted, session.reserved + max(ZERO, room), percent)

    return Position(
        session=level(
            session.limit_usd,
            session.posted,
            session.limit_usd - session.posted - session.reserved,
            session.soft_percent,
        ),
        project=level(account.budget, account.posted, project_room, budget.soft_percent),
        participant=level(participant.budget, participant.posted, participant.available, budget.soft_percent)
        if participant and budget.participant is not None
        else None,
        w=terms.need.w,
        goodbye=session.fixed,
        in_flight=session.in_flight,
        project_soft_ends_sessions=ends,
        paused=project.paused,
    )


async def _move(connection: Connection, account_id: int, move: Move, *, guarded: bool) -> Account:
    if not guarded:
        return await accounts.settle(connection, account_id, move)
    account = await accounts.grant(connection, account_id, move)
    if account is None:
        raise GrantRaceError
    return account


def _burn(session: SessionState, request: Request) -> Decimal | None:
    since = session.last_use_at or session.attached_at
    if since is None:
        return session.burn_usd_min
    seconds = Decimal(str(round((request.now - since).total_seconds(), 3)))
    return next_burn(session.burn_usd_min or ZERO, max(ZERO, request.spent), seconds)
