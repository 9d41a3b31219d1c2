"""The table of sessions: how long, how much was said, what it cost, how it ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from talktime_ledger.core.money import ZERO, shown
from talktime_ledger.wire import Session, SessionRow

from .tables import Column, Table

COLUMNS = (
    Column("session", "SESSION"),
    Column("project", "PROJECT"),
    Column("started", "STARTED (UTC)"),
    Column("duration", "DURATION", right=True),
    Column("turns", "TURNS", right=True),
    Column("provider", "PROVIDER"),
    Column("model", "MODEL"),
    Column("audio_in_tokens", "AUDIO IN", right=True),
    Column("audio_out_tokens", "AUDIO OUT", right=True),
    Column("text_tokens", "TEXT", right=True),
    Column("ai_usd", "AI USD", right=True),
    Column("transport_usd", "TRANSPORT USD", right=True),
    Column("ended", "ENDED"),
)


def sessions_table(rows: Sequence[SessionRow], now: datetime, places: int) -> Table:
    """One line per session; ``now`` (UTC) gives the length of those still open."""
    cells = tuple(_cells(row, now, places) for row in rows)
    ai = sum((cost.ai_cost_usd for row in rows for cost in row.costs), ZERO)
    transport = sum((cost.transport_cost for row in rows for cost in row.costs), ZERO)
    blanks = (None,) * 9
    return Table("sessions", "Sessions", COLUMNS, cells, ("TOTAL", *blanks, *_money(ai, transport, places), None))


def with_costs(table: Table, rows: Sequence[SessionRow]) -> list[dict[str, object]]:
    """The table's records with the ledger's cost rows, as ``talktime price`` reads them."""
    return [
        {**record, "costs": [cost.model_dump(mode="json") for cost in row.costs]}
        for record, row in zip(table.records(), rows, strict=True)
    ]


def _money(ai: Decimal, transport: Decimal, places: int) -> tuple[str, str]:
    return shown(ai, places), shown(transport, places)


def _cells(row: SessionRow, now: datetime, places: int) -> tuple[str | int | None, ...]:
    session, costs = row.session, row.costs
    ai = sum((cost.ai_cost_usd for cost in costs), ZERO) if costs else session.posted
    return (
        session.session_id,
        f"{session.namespace}/{session.project}",
        f"{session.opened_at:%Y-%m-%d %H:%M:%S}",
        clock(seconds_of(row, now)),
        session.turns,
        session.provider,
        session.model,
        sum(cost.audio_in_tokens for cost in costs),
        sum(cost.audio_out_tokens for cost in costs),
        sum(cost.text_tokens for cost in costs),
        *_money(ai, sum((cost.transport_cost for cost in costs), ZERO), places),
        ending(session),
    )


def seconds_of(row: SessionRow, now: datetime) -> int:
    """Length of the talk as the agent told it; while open, the time since an agent took it up."""
    told = max((cost.duration_sec for cost in row.costs), default=0)
    if told or row.session.attached_at is None:
        return told
    return max(0, int(((row.session.closed_at or now) - row.session.attached_at).total_seconds()))


def clock(seconds: int) -> str:
    """``m:ss``, or ``h:mm:ss`` from one hour on."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ending(session: Session) -> str:
    """How it ended, or how it stands; limits that were reached are told with it."""
    limits = [name for name, at in (("soft limit", session.soft_at), ("hard limit", session.hard_at)) if at is not None]
    state = session.close_reason or "closed" if session.state == "closed" else _standing(session)
    return f"{state} ({', '.join(limits)})" if limits else state


def _standing(session: Session) -> str:
    return "open" if session.attached_at is not None else "waiting for an agent"
