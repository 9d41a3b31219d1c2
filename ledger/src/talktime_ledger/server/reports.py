"""Reports for finance: spend by day, provider, model; sessions with their costs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from talktime_ledger.desk.errors import DeskError
from talktime_ledger.server.auth import Role
from talktime_ledger.server.context import Parts, Who, require
from talktime_ledger.server.views import costs_of, project_names, session_wire
from talktime_ledger.store import sessions
from talktime_ledger.wire import ProblemReason, SessionReport, SessionRow, SpendReport, SpendRow

router = APIRouter()

GROUPS = {
    "day": "to_char(c.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    "provider": "c.provider",
    "model": "c.model",
}
SUMMED = (
    "ai_cost_usd",
    "transport_cost",
    "total_cost_usd",
    "unmetered_usd",
    "audio_in_tokens",
    "audio_out_tokens",
    "text_tokens",
)
From = Annotated[str | None, Query(alias="from")]


def moment(text: str | None) -> datetime | None:
    """A date or RFC 3339 time; without a zone it is UTC."""
    if not text:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise DeskError(ProblemReason.INVALID, f"{text!r} is not a date or time") from error
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


@router.get("/reports/spend")
async def spend(
    parts: Parts,
    caller: Who,
    namespace: str | None = None,
    project: str | None = None,
    since: From = None,
    to: str | None = None,
    by: str = "provider,model",
) -> SpendReport:
    """Sums of session_costs; days are UTC, `to` is exclusive."""
    require(caller, Role.CONSOLE, Role.OPERATOR)
    keys = [key.strip() for key in by.split(",") if key.strip()]
    unknown = [key for key in keys if key not in GROUPS]
    if unknown:
        raise DeskError(ProblemReason.INVALID, f"by: {', '.join(unknown)} is none of {', '.join(GROUPS)}")
    names = ", ".join(["namespace", "project", *keys])
    columns = ", ".join(["p.namespace", "p.name AS project", *(f"{GROUPS[key]} AS {key}" for key in keys)])
    # A session has a row per model: its money adds up, its minutes and itself count once in every group.
    sums = ", ".join(f"SUM({column}) AS {column}" for column in SUMMED)
    query = f"""SELECT {names}, COUNT(*) AS sessions, SUM(duration_sec) AS duration_sec, {sums}
                FROM (SELECT {columns}, c.session_id, MAX(c.duration_sec) AS duration_sec, {sums}
                      FROM session_costs c JOIN projects p ON p.id = c.project_id
                      WHERE ($1::text IS NULL OR p.namespace = $1) AND ($2::text IS NULL OR p.name = $2)
                        AND ($3::timestamptz IS NULL OR c.created_at >= $3)
                        AND ($4::timestamptz IS NULL OR c.created_at < $4)
                      GROUP BY {", ".join(str(index) for index in range(1, 4 + len(keys)))}) each
                GROUP BY {names} ORDER BY {names}"""
    async with parts.transaction() as connection:
        rows = await connection.fetch(query, namespace, project, moment(since), moment(to))
    return SpendReport(rows=tuple(SpendRow.model_validate(dict(row)) for row in rows))


@router.get("/reports/sessions")
async def session_report(
    parts: Parts,
    caller: Who,
    namespace: str | None = None,
    project: str | None = None,
    since: From = None,
    to: str | None = None,
    limit: int = Query(1000, ge=1, le=10_000),
) -> SessionReport:
    """Sessions with their cost rows, newest first."""
    require(caller, Role.CONSOLE, Role.OPERATOR)
    begin, end = moment(since), moment(to)
    async with parts.transaction() as connection:
        names = await project_names(connection)
        wanted = [key for key, (ns, name) in names.items() if namespace in (None, ns) and project in (None, name)]
        found = [
            one
            for key in wanted
            for one in await sessions.listing(connection, project_id=key, since=begin, until=end, limit=limit)
        ]
        found = sorted(found, key=lambda one: one.opened_at, reverse=True)[:limit]
        costs = await costs_of(connection, [one.id for one in found])
    return SessionReport(
        rows=tuple(
            SessionRow(session=session_wire(one, names[one.project_id]), costs=costs.get(one.id, ())) for one in found
        )
    )
