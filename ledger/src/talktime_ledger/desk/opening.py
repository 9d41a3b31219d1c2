"""Admission: everything that must be true before a session may open, then one guarded reservation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from talktime_ledger.cards import snapshot_wire
from talktime_ledger.core.closing_texts import spoken_texts
from talktime_ledger.core.feasibility import Feasibility
from talktime_ledger.core.grants import Need, admit_floor, plan_grant
from talktime_ledger.core.money import ZERO, shown
from talktime_ledger.core.rates import PriceUnknown, RateBook
from talktime_ledger.core.resume_texts import resume_text
from talktime_ledger.core.worst_case import Legs, output_cap
from talktime_ledger.desk.errors import DeskError, GrantRaceError
from talktime_ledger.desk.granting import outage_reserve, project_account, soft_threshold
from talktime_ledger.desk.pricing import HOLD, VENDOR, feasible, legs_for
from talktime_ledger.desk.transport import transport_reserve
from talktime_ledger.resources.project import Provider
from talktime_ledger.store import accounts, projects, sessions, tickets
from talktime_ledger.store.accounts import Account, Move
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Project
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.store.tickets import Ticket
from talktime_ledger.wire import CapsConfig, ProblemReason, SessionConfig, SessionOpen


@dataclass(frozen=True, slots=True)
class Terms:
    """What a session of this provider needs, USD."""

    provider: Provider
    legs: Legs
    verdict: Feasibility
    transport_hold: Decimal


async def open_session(
    connection: Connection, request: SessionOpen, book: RateBook, now: datetime, valid_sec: int
) -> SessionState:
    """The open session; the same id again returns the same. DeskError with the reason; GrantRaceError: try again."""
    # Shared: a limit lowered meanwhile would otherwise miss this session.
    project = await projects.find(connection, request.namespace, request.project, share=True)
    if project is None or project.deleted:
        raise DeskError(ProblemReason.NOT_FOUND, f"no Project {request.namespace}/{request.project}")
    ticket = await _ticket(connection, project, request, now)
    known = await sessions.read(connection, request.session_id)
    if known is not None:
        if known.project_id != project.id or known.provider != request.provider:
            raise DeskError(ProblemReason.CONFLICT, "this session id belongs to another session")
        return known
    participant_key = ticket.participant_key if ticket is not None else request.participant_key
    terms = terms_of(project, request.provider, book, now)
    account = await project_account(connection, project, now)
    participant = await _participant_account(connection, project, participant_key)
    need, floor = _admit(project, account, participant, terms)
    rooms = [Decimal(project.spec.budget.session.limit), *([participant.available] if participant else [])]
    plan = plan_grant(need, ZERO, rooms, account.available, account.open_sessions + 1)
    if not plan.sufficient:
        # The session's own limit, as the accounts were looked at above: transport can be dearer than the talk.
        raise DeskError(
            ProblemReason.BUDGET_NOT_FEASIBLE,
            f"budget.session.limit {shown(rooms[0])} USD is below {shown(need.least)}: the goodbye and the transport "
            f"reserve {shown(need.fixed)} and the worst response {shown(need.w)}; raise the limit",
            available=rooms[0],
            needed=need.least,
        )
    if participant is not None and await accounts.grant(connection, participant.id, Move(ZERO, plan.delta, 1)) is None:
        raise GrantRaceError
    # The floor is looked at once more where it counts: many that come at once have all read the same balance.
    move = Move(ZERO, plan.delta, 1, soft_threshold(project, account), floor)
    if await accounts.grant(connection, account.id, move) is None:
        raise GrantRaceError
    told = request.model_copy(update={"participant_key": participant_key})
    session = _session(project, told, terms, account, participant, plan.delta, now, valid_sec)
    await sessions.insert(connection, session)
    if request.ticket_sha256 is not None:
        await tickets.use(connection, request.ticket_sha256, session.id)
    return session


async def _ticket(connection: Connection, project: Project, request: SessionOpen, now: datetime) -> Ticket | None:
    """The request's ticket, held by this transaction; DeskError unless it may open this very session.

    Locked before any account, as in closing: one order everywhere.
    """
    if request.ticket_sha256 is None:
        return None
    ticket = await tickets.lock(connection, request.ticket_sha256)
    if ticket is None or ticket.project_id != project.id:
        raise DeskError(ProblemReason.TICKET_UNKNOWN, "no such ticket")
    if ticket.used_at is not None:
        if ticket.session_id == request.session_id:
            return ticket  # the repeat of an open whose answer was lost
        raise DeskError(ProblemReason.USED, "the ticket was used")
    if ticket.expires_at <= now:
        raise DeskError(ProblemReason.EXPIRED, "the ticket has expired")
    return ticket


def terms_of(project: Project, provider_name: str, book: RateBook, now: datetime) -> Terms:
    """Prices, W and C of one provider of a Project; DeskError if it may not be used."""
    if project.paused:
        raise DeskError(ProblemReason.PAUSED, "the Project is paused")
    provider = next((one for one in project.spec.providers if one.name == provider_name), None)
    if provider is None:
        raise DeskError(ProblemReason.NOT_FOUND, f"the Project has no provider {provider_name!r}")
    try:
        legs = legs_for(provider, book, now)
        limit = Decimal(project.spec.budget.session.limit)
        hold = transport_reserve(project, book, now)
        verdict = feasible(provider, project.spec.agent, project.instructions, limit, legs, hold)
    except PriceUnknown as error:
        raise DeskError(ProblemReason.PRICE_UNKNOWN, str(error)) from error
    if not verdict.ok:
        raise DeskError(ProblemReason.BUDGET_NOT_FEASIBLE, verdict.message, available=limit, needed=verdict.needed)
    return Terms(provider, legs, verdict, hold)


def _admit(project: Project, account: Account, participant: Account | None, terms: Terms) -> tuple[Need, Decimal]:
    """What to reserve, and the floor; DeskError below it (stop admitting before stopping anyone)."""
    budget = project.spec.budget
    fixed = terms.verdict.goodbye + terms.transport_hold
    w = terms.verdict.w * HOLD[terms.provider.api]
    need = Need(fixed, w, outage_reserve=outage_reserve(project))
    configured = Decimal(budget.session.admit_floor) if budget.session.admit_floor is not None else None
    floor = admit_floor(configured, w, fixed, Decimal(budget.session.limit))
    if account.available < floor:
        raise DeskError(
            ProblemReason.BUDGET_EXHAUSTED,
            f"{shown(max(ZERO, account.available))} USD of {shown(account.budget)} are available, "
            f"a new session needs {shown(floor)}",
            available=account.available,
            needed=floor,
        )
    if participant is not None and participant.available < need.least:
        raise DeskError(
            ProblemReason.PARTICIPANT_LIMIT,
            f"this participant has {shown(max(ZERO, participant.available))} USD of {shown(participant.budget)} left, "
            f"a new session needs {shown(need.least)}",
            available=participant.available,
            needed=need.least,
        )
    return need, floor


async def _participant_account(connection: Connection, project: Project, key: str | None) -> Account | None:
    budget = project.spec.budget
    if budget.participant is None or key is None:
        return None
    limit = Decimal(budget.participant.limit)
    return await accounts.ensure(connection, project.id, "participant", key, "total", budget.account_generation, limit)


def _session(
    project: Project,
    request: SessionOpen,
    terms: Terms,
    account: Account,
    participant: Account | None,
    reserved: Decimal,
    now: datetime,
    valid_sec: int,
) -> SessionState:
    budget, provider = project.spec.budget, terms.provider
    legs = [terms.legs.model, *([terms.legs.transcription] if terms.legs.transcription else [])]
    return SessionState(
        id=request.session_id,
        project_id=project.id,
        account_id=account.id,
        participant_account_id=participant.id if participant else None,
        provider=provider.name,
        api=provider.api.value,
        vendor=VENDOR[provider.api],
        model=provider.model,
        state="open",
        epoch=1,
        worker=None,
        participant_identity=request.participant_identity,
        participant_key=request.participant_key,
        observers=list(request.observers),
        media=request.media.model_dump(mode="json"),
        config=config_of(project, provider).model_dump(mode="json"),
        rates=[snapshot_wire(rates).model_dump(mode="json") for rates in legs],
        limit_usd=Decimal(budget.session.limit),
        soft_percent=budget.session.soft_percent or budget.soft_percent,
        w_usd=terms.verdict.w,
        goodbye_usd=terms.verdict.goodbye,
        transport_hold_usd=terms.transport_hold,
        hold=HOLD[provider.api],
        posted=ZERO,
        reserved=reserved,
        in_flight=ZERO,
        burn_usd_min=None,
        last_n=0,
        last_answer=None,
        last_use_at=None,
        valid_until=now + timedelta(seconds=valid_sec),
        opened_at=now,
        attached_at=None,
        closed_at=None,
        close_reason=None,
        soft_at=None,
        hard_at=None,
        wrap_up_at=None,
        turns=0,
        duration_sec=0,
        events=[],
        transport_seconds={},
        billing=provider.billing_project or None,
    )


def config_of(project: Project, provider: Provider) -> SessionConfig:
    """What the agent talks by, frozen at open."""
    agent, caps = project.spec.agent, provider.caps
    spoken = spoken_texts(agent.language, agent.wrap_up, agent.closing)
    context = agent.resume is None or agent.resume.context
    return SessionConfig(
        instructions=project.instructions,
        language=agent.language,
        greeting=agent.greeting,
        wrapUp=spoken.wrap_up,
        closing=spoken.closing,
        endpoint=provider.endpoint,
        voice=provider.voice,
        transcriptionModel=provider.transcription_model,
        caps=CapsConfig(
            contextTokens=caps.context_tokens,
            responseSeconds=caps.response_seconds,
            outputTokens=output_cap(caps.response_seconds),
        ),
        costUpdateSeconds=agent.cost_update_seconds,
        onLedgerOutage=project.spec.budget.on_ledger_outage,
        resume=resume_text(agent.language),
        keepContext=context,
    )
