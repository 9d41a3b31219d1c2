"""What the operator tells (Projects, with budgets that are live for open sessions) and what it reads (status)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from talktime_ledger.core.grants import admit_floor
from talktime_ledger.core.money import ZERO, usd, wire
from talktime_ledger.core.periods import period_of
from talktime_ledger.core.rates import PriceUnknown, RateBook
from talktime_ledger.desk.granting import project_account, soft_threshold
from talktime_ledger.desk.pricing import HOLD, feasible, legs_for
from talktime_ledger.desk.transport import transport_reserve
from talktime_ledger.store import accounts, projects, sessions
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Project
from talktime_ledger.wire import (
    BudgetState,
    BudgetStatus,
    FeasibleStatus,
    PriceStatus,
    ProjectPush,
    ProjectStatus,
    ProviderStatus,
    SessionCounts,
)


async def push_project(
    connection: Connection, namespace: str, name: str, push: ProjectPush, who: str, now: datetime
) -> tuple[Project, bool]:
    """Keeps the Project; budget, limits and pause take effect at once, each change with an audit row. Returns whether
    any did. A push that was held up on its way changes nothing: what was told after it stands.
    """
    before = await projects.find(connection, namespace, name, lock=True)
    if before is not None and before.uid == push.uid and push.generation < before.generation:
        return before, False
    project = await projects.save(
        connection,
        namespace,
        name,
        push.uid,
        push.generation,
        push.paused,
        push.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        push.instructions,
        [key.model_dump(mode="json") for key in push.accessKeys],
    )
    if before is None or replace(before, generation=project.generation) != project:
        await projects.bump(connection, "directory")
    budget = project.spec.budget
    # Sessions, participants, project: the order in which every transaction locks.
    await connection.execute(
        """UPDATE sessions SET limit_usd = $2, soft_percent = $3
           WHERE project_id = $1 AND state = 'open' AND (limit_usd, soft_percent) IS DISTINCT FROM ($2, $3)""",
        project.id,
        Decimal(budget.session.limit),
        budget.session.soft_percent or budget.soft_percent,
    )
    if budget.participant is not None:
        await connection.execute(
            """UPDATE accounts SET budget = $2, ceiling = GREATEST($2, posted + reserved)
               WHERE project_id = $1 AND kind = 'participant' AND generation = $3 AND budget <> $2""",
            project.id,
            Decimal(budget.participant.limit),
            budget.account_generation,
        )
    account = await project_account(connection, project, now)
    edited = replace(account, budget=Decimal(budget.amount))
    if edited != account or (before is not None and before.spec.budget.soft_percent != budget.soft_percent):
        await accounts.rebudget(connection, account.id, edited.budget, soft_threshold(project, edited))
    changes = [
        change
        for change in money_rules(project).items()
        if before is None or money_rules(before)[change[0]] != change[1]
    ]
    for what, new in changes:
        old = money_rules(before)[what] if before else None
        if (old, new) != (None, None):
            await accounts.audit(connection, project.id, account.id, who, what, old, new)
    return project, before is not None and bool(changes)


async def delete_project(connection: Connection, namespace: str, name: str, who: str) -> bool:
    """No new sessions from now on, live ones wrap up; with an audit row. Returns whether there is such a Project."""
    before = await projects.find(connection, namespace, name, lock=True)
    if before is None:
        return False
    if not before.deleted:
        await projects.mark_deleted(connection, namespace, name)
        await accounts.audit(connection, before.id, None, who, "deleted", "false", "true")
    return True


def money_rules(project: Project) -> dict[str, str | None]:
    """What is audited, as text."""
    budget = project.spec.budget
    return {
        "amount": budget.amount,
        "period": budget.period.value,
        "softPercent": str(budget.soft_percent),
        "session.limit": budget.session.limit,
        "session.softPercent": str(budget.session.soft_percent) if budget.session.soft_percent else None,
        "session.admitFloor": budget.session.admit_floor,
        "participant.limit": budget.participant.limit if budget.participant else None,
        "onProjectSoft": budget.on_project_soft.value,
        "onLedgerOutage": budget.on_ledger_outage.value,
        "outageReserve": budget.outage_reserve,
        "includeTransport": str(budget.include_transport).lower(),
        "accountGeneration": str(budget.account_generation),
        "paused": str(project.paused).lower(),
        "deleted": str(project.deleted).lower(),
    }


async def status(connection: Connection, project: Project, book: RateBook, now: datetime) -> ProjectStatus:
    """All that the resource shows."""
    budget = project.spec.budget
    account = await project_account(connection, project, now)
    counts = await connection.fetchrow(
        """SELECT COUNT(*) FILTER (WHERE state = 'open') AS open,
                  COUNT(*) FILTER (WHERE state = 'open' AND worker IS NULL) AS waiting,
                  COUNT(*) FILTER (WHERE state = 'open' AND worker IS NOT NULL) AS attached,
                  COUNT(*) FILTER (WHERE state = 'closed') AS completed
           FROM sessions WHERE project_id = $1""",
        project.id,
    )
    refused = await connection.fetch("SELECT reason, count FROM refusals WHERE project_id = $1", project.id)
    reports = await connection.fetch(
        "SELECT * FROM provider_reports WHERE project_id = $1 ORDER BY provider", project.id
    )
    need, _ = await sessions.expected_remainder(connection, project.id)
    prices, verdict, floor = judge_providers(project, book, now)
    # Lasting only: what is merely held comes back when sessions end.
    hard = account.available < ZERO or (floor is not None and account.budget - account.posted < floor)
    soft = account.soft_at is not None or account.posted >= account.budget * budget.soft_percent / 100
    state = BudgetState.HARD if hard else BudgetState.SOFT if soft else BudgetState.OK
    names = {provider.name for provider in project.spec.providers}
    return ProjectStatus(
        namespace=project.namespace,
        name=project.name,
        generation=project.generation,
        paused=project.paused,
        deleted=project.deleted,
        budget=BudgetStatus(
            amount=account.budget,
            posted=account.posted,
            reserved=account.reserved,
            available=account.available,
            state=state,
            period=period_of(budget.period, now),
            forecast=usd(account.posted + need),
        ),
        sessions=SessionCounts(
            open=counts["open"],
            waiting=counts["waiting"],
            attached=counts["attached"],
            completed=counts["completed"],
            refused={row["reason"]: row["count"] for row in refused},
        ),
        prices=tuple(prices),
        feasible=verdict,
        providers=tuple(
            ProviderStatus(
                name=row["provider"], ok=row["ok"], code=row["code"], message=row["message"], since=row["since"]
            )
            for row in reports
            if row["provider"] in names
        ),
        ledgerTime=now,
    )


def judge_providers(
    project: Project, book: RateBook, now: datetime
) -> tuple[list[PriceStatus], FeasibleStatus, Decimal | None]:
    """Price and feasibility of each provider; the floor is the least any priced provider needs to admit a session."""
    budget = project.spec.budget
    limit = Decimal(budget.session.limit)
    participant_limit = Decimal(budget.participant.limit) if budget.participant is not None else None
    configured = Decimal(budget.session.admit_floor) if budget.session.admit_floor is not None else None
    prices: list[PriceStatus] = []
    floors: list[Decimal] = []
    infeasible: list[FeasibleStatus] = []
    for provider in project.spec.providers:
        try:
            legs = legs_for(provider, book, now)
            transport = transport_reserve(project, book, now)
            verdict = feasible(
                provider, project.spec.agent, project.instructions, limit, legs, transport, participant_limit
            )
            fixed = verdict.goodbye + transport
        except PriceUnknown as error:
            prices.append(PriceStatus(provider=provider.name, model=provider.model, known=False, reason=str(error)))
            continue
        prices.append(PriceStatus(provider=provider.name, model=provider.model, known=True))
        floors.append(admit_floor(configured, verdict.w * HOLD[provider.api], fixed, limit))
        if not verdict.ok:
            infeasible.append(FeasibleStatus(ok=False, reason=verdict.reason, message=verdict.message))
    if infeasible:
        return prices, infeasible[0], min(floors, default=None)
    if not floors:
        unknown = FeasibleStatus(ok=False, reason="PriceUnknown", message="no provider has a known price")
        return prices, unknown, None
    return (
        prices,
        FeasibleStatus(ok=True, message=f"session limit {wire(limit)} USD carries its worst cases"),
        min(floors),
    )
