"""What a bill has brought, as tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from talktime_ledger.core.money import ZERO, shown
from talktime_ledger.wire.invoices import InvoiceGroup, InvoiceReport

from .tables import Column, Table


def settlement_tables(report: InvoiceReport, places: int) -> list[Table]:
    """Groups, variances, what belongs to Projects alone, and what is none of ours."""
    tables = [_groups("groups", "Bill and books", report.groups, places), _variances(report, places)]
    if report.charges:
        tables.append(
            Table(
                "charges",
                "Tax, credits and the like (on Projects, in no session)",
                (Column("project", "PROJECT"), Column("day", "DAY"), Column("kind", "KIND"), _usd("amount", "USD")),
                tuple(
                    (f"{c.namespace}/{c.project}", c.day.isoformat(), c.kind.value, shown(c.amount, places))
                    for c in report.charges
                ),
            )
        )
    if report.not_billed:
        tables.append(_groups("not_billed", "On our books, not on the bill", report.not_billed, places))
    if report.allowances:
        tables.append(_allowances(report, places))
    if report.foreign:
        tables.append(
            Table(
                "foreign",
                "On the bill, none of ours",
                (Column("billing", "BILLING PROJECT"), Column("item", "ITEM"), _usd("amount", "USD")),
                tuple((one.billing, one.item, shown(one.amount, places)) for one in report.foreign),
            )
        )
    return tables


def verdict(report: InvoiceReport, places: int) -> list[str]:
    """The outcome in sentences."""
    done = "posted" if report.posted else "not posted (--dry-run)"
    lines = [
        f"{report.vendor.value}: estimated {shown(report.estimate, places)}, billed {shown(report.billed, places)} USD"
        + (f", estimate = {report.estimate_percent} % of the bill" if report.estimate_percent is not None else "")
        + f"; {done}."
    ]
    if report.alert:
        lines.append(
            "ALERT: estimate and bill differ by more than 1 %; see the variances by meter."
            if report.billed
            else "ALERT: nothing was billed of what was estimated; is it the whole bill?"
        )
    if worth := sum((one.worth for one in report.allowances), ZERO):
        lines.append(f"The account's free quota may take up to {shown(worth, places)} USD off the bill.")
    if report.unattributed:
        lines.append(
            f"{shown(report.unattributed, places)} USD were billed on days without a session of ours: posted to nobody."
        )
    lines += _not_billed(report, places)
    lines += [
        f"Project {name} is over its budget: no new sessions; live ones end at what they hold."
        for name in report.over_budget
    ]
    return lines


def _not_billed(report: InvoiceReport, places: int) -> Iterable[str]:
    """What stays an estimate, by billing project, and what would settle it."""
    sums: dict[str, Decimal] = {}
    for one in report.not_billed:
        sums[one.billing] = sums.get(one.billing, ZERO) + one.estimate
    for billing, usd in sorted(sums.items()):
        whose = f"of {billing}" if billing else "on our books"
        if billing in report.about:
            fix = "lines may be late; --final says that it cost nothing"
        elif billing:
            fix = f"give the bill of {billing}"
        else:
            whose, fix = "of no billing project", "name it in providers[].billingProject of its Project"
        yield f"{shown(usd, places)} USD {whose} are not on this bill and stay an estimate. Fix: {fix}."


def _usd(key: str, title: str) -> Column:
    return Column(key, title, right=True)


def _groups(name: str, title: str, groups: Iterable[InvoiceGroup], places: int) -> Table:
    columns = (
        Column("day", "DAY"),
        Column("billing", "BILLING PROJECT"),
        Column("model", "MODEL"),
        Column("sessions", "SESSIONS", right=True),
        _usd("estimate", "ESTIMATE"),
        _usd("billed", "BILLED"),
        Column("percent", "%", right=True),
        _usd("unmetered", "UNMETERED"),
        _usd("residual", "RESIDUAL"),
        _usd("unattributed", "NOBODY'S"),
        _usd("posted", "POSTED NOW"),
    )
    rows = tuple(
        (
            one.day.isoformat(),
            one.billing,
            one.model,
            one.sessions,
            shown(one.estimate, places),
            shown(one.billed, places),
            None if one.estimate_percent is None else str(one.estimate_percent),
            shown(one.unmetered, places),
            shown(one.residual, places),
            shown(one.unattributed, places),
            shown(one.posted, places),
        )
        for one in groups
    )
    return Table(name, title, columns, rows)


def _allowances(report: InvoiceReport, places: int) -> Table:
    columns = (
        Column("model", "MODEL"),
        Column("meter", "METER"),
        Column("since", "FROM"),
        Column("until", "TO"),
        Column("free", "FREE", right=True),
        Column("ours", "OURS", right=True),
        _usd("worth", "WORTH USD"),
    )
    rows = tuple(
        (
            one.model,
            one.meter.value,
            one.since.isoformat(),
            one.until.isoformat(),
            one.quantity,
            one.ours,
            shown(one.worth, places),
        )
        for one in report.allowances
    )
    return Table("allowances", "Free quota of the account (in no session's price)", columns, rows)


def _variances(report: InvoiceReport, places: int) -> Table:
    columns = (
        Column("day", "DAY"),
        Column("model", "MODEL"),
        Column("meter", "METER"),
        Column("ours", "OURS", right=True),
        Column("theirs", "THEIRS", right=True),
        _usd("quantity_usd", "QUANTITY USD"),
        _usd("price_usd", "PRICE USD"),
    )
    rows = tuple(
        (
            group.day.isoformat(),
            group.model,
            one.meter.value if one.meter else "(whole model)",
            one.ours,
            None if one.theirs is None else f"{one.theirs:f}",
            shown(one.quantity_usd, places),
            shown(one.price_usd, places),
        )
        for group in report.groups
        for one in group.variances
    )
    return Table("variances", "Variances by meter", columns, rows)
