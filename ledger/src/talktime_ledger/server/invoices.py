"""Bills of providers: what `talktime reconcile` posts."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter

from talktime_ledger.core.invoice import LineKind
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.invoicing import settle_bill
from talktime_ledger.server.auth import Role
from talktime_ledger.server.context import Parts, Who, clock, require
from talktime_ledger.store import projects
from talktime_ledger.wire import ProblemReason
from talktime_ledger.wire.invoices import InvoicePush, InvoiceReport

router = APIRouter()


class _DryRunError(Exception):
    """Carries the report out of a transaction that is not to be kept."""

    def __init__(self, report: InvoiceReport) -> None:
        super().__init__()
        self.report = report


@router.post("/invoices")
async def settle_invoice(push: InvoicePush, parts: Parts, caller: Who) -> InvoiceReport:
    """Settles a bill: variances, each session's correction, tax and credits. The same bill again posts nothing."""
    require(caller, Role.CONSOLE)
    try:
        async with parts.transaction() as connection:
            _check(push, await clock(connection))
            book = await parts.rates.book(connection)
            report = await settle_bill(connection, push, book, caller.role.value)
            if push.dry_run:
                raise _DryRunError(report)
            everyone = await projects.everything(connection)
    except _DryRunError as dry:
        return dry.report
    for project in everyone:
        parts.hub.changed(project.namespace, project.name)
    return report


def _check(push: InvoicePush, now: datetime) -> None:
    """DeskError Invalid naming the line."""
    today = now.date()
    for number, line in enumerate(push.lines):
        if line.day >= today:
            raise DeskError(
                ProblemReason.INVALID,
                f"lines.{number}.day: {line.day} (UTC) is not over yet, settle it tomorrow",
            )
        if line.amount is None and push.final:
            raise DeskError(ProblemReason.INVALID, f"lines.{number}.amount: a final bill tells its amounts")
        if line.kind is LineKind.USAGE and line.amount is not None and line.amount < 0:
            raise DeskError(
                ProblemReason.INVALID, f"lines.{number}.amount: usage below zero; a reduction is of kind credit"
            )
