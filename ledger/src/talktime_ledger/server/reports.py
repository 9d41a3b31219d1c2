"""Reports for finance: spend by day, provider, model; participant-minutes and peaks; the transport plan; sessions with
their costs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.plan import month_start, months, next_month, plan
from talktime_ledger.core.rates import PriceUnknown, RateBook
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.transport import MODEL, VENDOR
from talktime_ledger.server.auth import Role
from talktime_ledger.server.context import Parts, Who, clock, require
from talktime_ledger.server.views import costs_of, project_names, session_wire
from talktime_ledger.store import rollups, sessions
from talktime_ledger.store.presence import KEYS, presence
from talktime_ledger.wire import (
    PlanReport,
    PlanRow,
    ProblemReason,
    SessionReport,
    SessionRow,
    SpendReport,
    SpendRow,
    TransportReport,
    TransportRow,
)

router = APIRouter()

MONTH = "%Y-%m"

GROUPS = ("day", "provider", "model")
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


def _day(name: str, text: str | None) -> datetime | None:
    """A bound of the spend report: its days are whole UTC days."""
    found = moment(text)
    if found is None:
        return None
    found = found.astimezone(UTC)
    if (found.hour, found.minute, found.second, found.microsecond) != (0, 0, 0, 0):
        raise DeskError(ProblemReason.INVALID, f"{name}: {text} is no midnight (UTC): spend is by whole days")
    return found


def _keys(by: str, known: Collection[str]) -> list[str]:
    """What a report is divided by; Invalid names what is unknown."""
    keys = [key.strip() for key in by.split(",") if key.strip()]
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise DeskError(ProblemReason.INVALID, f"by: {', '.join(unknown)} is none of {', '.join(known)}")
    return list(dict.fromkeys(keys))


def plan_rows(
    rows: Sequence[Mapping[str, Any]], book: RateBook, begin: datetime, end: datetime, now: datetime
) -> Iterator[PlanRow]:
    """Months begin..end from the first with a session on, at the card in force at a month's end, or now if it lasts."""
    used = {row["month"]: row for row in rows}
    for start in months(begin, end):
        name, row = start.strftime(MONTH), used.get(start.strftime(MONTH))
        if name < min(used, default=name + "~"):
            continue
        last = min(now, next_month(start) - timedelta(microseconds=1))
        try:
            entry, rates = book.in_force(VENDOR["cloud"], MODEL, last)
        except PriceUnknown:
            continue
        minutes = row["begun_minutes"] - row["selfhosted_begun_minutes"] if row else 0
        sent = row["egress_bytes"] - row["selfhosted_egress_bytes"] if row else 0
        found = plan(entry, rates, {Meter.PARTICIPANT_SECONDS: minutes * 60, Meter.EGRESS_BYTES: sent}, start)
        seconds, left = found.included.get(Meter.PARTICIPANT_SECONDS), found.left(Meter.PARTICIPANT_SECONDS)
        yield PlanRow(
            month=name,
            card=rates.card,
            fee_usd=found.fee_usd,
            included_minutes=None if seconds is None else seconds // 60,
            used_minutes=minutes,
            left_minutes=None if left is None else left // 60,
            included_bytes=found.included.get(Meter.EGRESS_BYTES),
            used_bytes=sent,
            left_bytes=found.left(Meter.EGRESS_BYTES),
            beyond_usd=found.beyond_usd,
        )


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
    """Sums by UTC day of the usage; `to` is exclusive."""
    require(caller, Role.CONSOLE, Role.OPERATOR)
    keys = _keys(by, GROUPS)
    begin, end = _day("from", since), _day("to", to)
    async with parts.reading() as connection:
        rows = await rollups.spend(connection, keys, namespace, project, begin, end)
    return SpendReport(rows=tuple(SpendRow.model_validate(dict(row)) for row in rows))


@router.get("/reports/transport")
async def transport(
    parts: Parts,
    caller: Who,
    namespace: str | None = None,
    project: str | None = None,
    since: From = None,
    to: str | None = None,
    by: str = "project",
) -> TransportReport:
    """Participant-minutes and sessions at once, of sessions opened from..to (exclusive), by any of `project`, `pool`,
    `month`, or (empty) in all.
    """
    require(caller, Role.CONSOLE, Role.OPERATOR)
    keys = _keys(by, KEYS)
    begin, end = moment(since), moment(to)
    async with parts.reading() as connection:
        rows = await presence(connection, keys, namespace, project, begin, end)
    return TransportReport(rows=tuple(TransportRow.model_validate(dict(row)) for row in rows))


@router.get("/reports/plan")
async def plan_report(parts: Parts, caller: Who, since: From = None, to: str | None = None) -> PlanReport:
    """LiveKit Cloud's plan by month: every month that has a part in from..to, whole, from the first session on. Without
    `from`: the present month.
    """
    require(caller, Role.CONSOLE, Role.OPERATOR)
    async with parts.reading() as connection:
        now = await clock(connection)
        begin, end = month_start(moment(since) or now), min(now, moment(to) or now)
        rows = await presence(connection, ["month"], None, None, begin, next_month(month_start(end)))
        book = await parts.rates.book(connection)
    return PlanReport(rows=tuple(plan_rows(rows, book, begin, end, now)))


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
