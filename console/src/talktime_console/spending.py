"""The spend report: what was spent on what, what a session costs on average, how far the budget will go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from talktime_ledger.core.money import ZERO, ratio, shown
from talktime_ledger.wire import PlanRow, ProjectStatus, SpendRow

from .tables import Column, Table

GROUPS = ("day", "provider", "model")


def average(total: Decimal, sessions: int) -> Decimal | None:
    """USD per session; None without sessions."""
    return ratio(total, Decimal(sessions)) if sessions else None


def percent(part: Decimal, whole: Decimal) -> str | None:
    """``part`` of ``whole`` in percent with one decimal; None of nothing."""
    return shown(ratio(part * 100, whole), 1) if whole > 0 else None


def spend_table(rows: Sequence[SpendRow], by: Sequence[str], places: int) -> Table:
    """Spend per Project and group, with a total line. ``places``: decimals of USD shown."""
    groups = tuple(Column(name, name.upper()) for name in GROUPS if name in by)
    columns = (
        Column("project", "PROJECT"),
        *groups,
        Column("sessions", "SESSIONS", right=True),
        Column("minutes", "MINUTES", right=True),
        Column("audio_in_tokens", "AUDIO IN", right=True),
        Column("audio_out_tokens", "AUDIO OUT", right=True),
        Column("text_tokens", "TEXT", right=True),
        Column("ai_usd", "AI USD", right=True),
        Column("transport_usd", "TRANSPORT USD", right=True),
        Column("total_usd", "TOTAL USD", right=True),
        Column("average_usd", "PER SESSION", right=True),
        Column("unmetered_usd", "UNMETERED", right=True),
    )

    def cells(row: SpendRow) -> tuple[str | int | None, ...]:
        mean = average(row.total_cost_usd, row.sessions)
        return (
            f"{row.namespace}/{row.project}",
            *(getattr(row, group.key) for group in groups),
            row.sessions,
            shown(Decimal(row.duration_sec) / 60, 1),
            row.audio_in_tokens,
            row.audio_out_tokens,
            row.text_tokens,
            shown(row.ai_cost_usd, places),
            shown(row.transport_cost, places),
            shown(row.total_cost_usd, places),
            None if mean is None else shown(mean, places),
            shown(row.unmetered_usd, places),
        )

    ai, transport = _sum(r.ai_cost_usd for r in rows), _sum(r.transport_cost for r in rows)
    blanks = (None,) * (len(groups) + 5)
    sums = (shown(ai, places), shown(transport, places), shown(ai + transport, places))
    total = ("TOTAL", *blanks, *sums, None, shown(_sum(r.unmetered_usd for r in rows), places))
    return Table("spend", "Spend", columns, tuple(cells(row) for row in rows), total)


def budget_table(statuses: Sequence[ProjectStatus], per_project: Sequence[SpendRow], places: int) -> Table:
    """Budgets of the present period: spent, what is left, where it is heading, and for how many sessions it lasts.

    ``per_project``: spend rows without any grouping, for the average session.
    """
    means = {(r.namespace, r.project): average(r.total_cost_usd, r.sessions) for r in per_project}
    columns = (
        Column("project", "PROJECT"),
        Column("period", "PERIOD"),
        Column("budget_usd", "BUDGET", right=True),
        Column("spent_usd", "SPENT", right=True),
        Column("reserved_usd", "RESERVED", right=True),
        Column("available_usd", "AVAILABLE", right=True),
        Column("used_percent", "USED %", right=True),
        Column("forecast_usd", "PROJECTED", right=True),
        Column("forecast_percent", "PROJECTED %", right=True),
        Column("average_session_usd", "PER SESSION", right=True),
        Column("sessions_left", "SESSIONS LEFT", right=True),
        Column("state", "STATE"),
    )
    rows = []
    for status in statuses:
        budget = status.budget
        mean = means.get((status.namespace, status.name))
        rows.append(
            (
                f"{status.namespace}/{status.name}",
                budget.period,
                shown(budget.amount, places),
                shown(budget.posted, places),
                shown(budget.reserved, places),
                shown(budget.available, places),
                percent(budget.posted, budget.amount),
                shown(budget.forecast, places),
                percent(budget.forecast, budget.amount),
                None if mean is None else shown(mean, places),
                sessions_left(budget.available, mean),
                budget.state.value,
            )
        )
    return Table("budgets", "Budgets", columns, tuple(rows))


def plan_table(rows: Sequence[PlanRow], places: int) -> Table:
    """LiveKit Cloud's plan by month: its fee, what of it is used and left, what goes beyond. No session is priced with
    it, so it stands beside the spend.
    """
    columns = (
        Column("month", "MONTH"),
        Column("card", "CARD"),
        Column("fee_usd", "FEE", right=True),
        Column("included_minutes", "MINUTES", right=True),
        Column("used_minutes", "USED", right=True),
        Column("left_minutes", "LEFT", right=True),
        Column("included_gb", "GB", right=True),
        Column("used_gb", "USED, EST.", right=True),
        Column("left_gb", "LEFT", right=True),
        Column("beyond_usd", "BEYOND", right=True),
    )
    cells = tuple(
        (
            row.month,
            row.card,
            shown(row.fee_usd, places),
            row.included_minutes,
            row.used_minutes,
            row.left_minutes,
            *(_gigabytes(count) for count in (row.included_bytes, row.used_bytes, row.left_bytes)),
            shown(row.beyond_usd, places),
        )
        for row in rows
    )
    return Table("plan", "Plan of LiveKit Cloud, all Projects", columns, cells)


def _gigabytes(count: int | None) -> str | None:
    return None if count is None else shown(Decimal(count) / 10**9, 2)


def sessions_left(available: Decimal, mean: Decimal | None) -> int | None:
    """Average sessions that what is available pays for; None while no average is known."""
    if mean is None or mean <= 0:
        return None
    return max(0, int(available // mean))


def _sum(values: Iterable[Decimal]) -> Decimal:
    return sum(values, ZERO)
