"""Settles a provider's bill: by UTC day, billing project and model; append-only, and the same bill again posts nothing.

A correction is not guarded: what was billed is a fact. It cuts nobody off; an account over its budget grants no more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from uuid import UUID

from talktime_ledger.cards import snapshot_core
from talktime_ledger.core.invoice import InvoiceLine, LineKind, item_of
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO, per_million
from talktime_ledger.core.pricing import price_or_bound
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateSnapshot
from talktime_ledger.core.reconcile import Billed, Booked, Settlement, percent_of, settle
from talktime_ledger.core.shares import shares
from talktime_ledger.desk import allowances
from talktime_ledger.desk.granting import project_account
from talktime_ledger.desk.pricing import VENDOR
from talktime_ledger.store import invoices, projects
from talktime_ledger.store.database import Connection
from talktime_ledger.store.invoices import Correction, Row, Sums, bounds
from talktime_ledger.store.projects import Project
from talktime_ledger.wire import RateSnapshotWire
from talktime_ledger.wire.invoices import (
    ForeignLine,
    InvoiceGroup,
    InvoicePush,
    InvoiceReport,
    ProjectCharge,
    VarianceWire,
)

# A vendor none of whose providers names a billing project has one bill for all.
EVERYBODY = ""
ALERT_PERCENT = Decimal(1)

Books = dict[tuple[Row, str], Sums]


@dataclass(slots=True)
class Sorted:
    """The lines of a bill by what they are about; `foreign` is about nothing of ours."""

    usage: dict[tuple[date, str, str], dict[Meter | None, Billed]] = field(default_factory=dict)
    charges: dict[tuple[date, str, LineKind], Decimal] = field(default_factory=dict)
    foreign: dict[tuple[str, str], Decimal] = field(default_factory=dict)


def sorted_lines(lines: Iterable[InvoiceLine], billings: frozenset[str], models: Sequence[str]) -> Sorted:
    """Sorts a bill (pure). `billings`: those our Projects name; empty = every line may be ours."""
    found = Sorted()
    for line in lines:
        billing = line.billing if billings else EVERYBODY
        item = item_of(line.item, models) if line.kind is LineKind.USAGE else None
        if (billings and billing not in billings) or (line.kind is LineKind.USAGE and item is None):
            key = (line.billing, line.item)
            found.foreign[key] = found.foreign.get(key, ZERO) + (line.amount or ZERO)
        elif item is None:
            at = (line.day, billing, line.kind)
            found.charges[at] = found.charges.get(at, ZERO) + (line.amount or ZERO)
        else:
            group = found.usage.setdefault((line.day, billing, item.model), {})
            one = Billed(line.amount, line.quantity)
            group[item.meter] = _sum(group[item.meter], one) if item.meter in group else one
    return found


def _sum(left: Billed, right: Billed) -> Billed:
    """What is not told in one is not known of both."""
    amount = None if left.amount is None or right.amount is None else left.amount + right.amount
    quantity = None if left.quantity is None or right.quantity is None else left.quantity + right.quantity
    return Billed(amount, quantity)


async def settle_bill(connection: Connection, push: InvoicePush, book: RateBook, who: str) -> InvoiceReport:
    """Settles and posts; the caller rolls a dry run back."""
    await invoices.patient(connection)
    everyone = {project.id: project for project in await projects.everything(connection)}
    billing_of = _billing_projects(everyone.values(), push.vendor.value)
    lines = [line.core() for line in push.lines]
    days = sorted({line.day for line in lines})
    books = {day: await invoices.booked(connection, push.vendor.value, day) for day in days}
    models = {card.model for card in book.cards if card.vendor == push.vendor.value}
    models |= {model for day in books.values() for _, model in day}
    bill = sorted_lines(lines, frozenset(billing_of.values()), sorted(models))
    number = await invoices.keep(
        connection,
        push.vendor.value,
        push.source,
        push.digest,
        push.final,
        who,
        [(one.day, one.billing, one.item, one.kind.value, one.quantity, one.amount) for one in lines],
    )
    run = _Run(connection, push, book, number, everyone, billing_of)
    groups = [await run.group(books[key[0]], key, billed) for key, billed in sorted(bill.usage.items())]
    charges = [
        charge
        for (day, billing, kind), amount in sorted(bill.charges.items())
        for charge in await run.charge(day, billing, kind, amount)
    ]
    silent = [
        one for day in days for one in await run.silent(books[day], day, {key for key in bill.usage if key[0] == day})
    ]
    await invoices.correct(connection, run.corrections)
    if days:
        await invoices.restate(connection, push.vendor.value, days)
    estimate = sum((one.estimate for one in groups), ZERO)
    billed = sum((one.billed for one in groups), ZERO)
    percent = percent_of(estimate, billed)
    return InvoiceReport(
        vendor=push.vendor,
        posted=not push.dry_run,
        estimate=estimate,
        billed=billed,
        estimate_percent=percent,
        alert=percent is not None and abs(percent - 100) > ALERT_PERCENT,
        unattributed=sum((one.unattributed for one in groups), ZERO) + run.unattributed,
        groups=tuple(groups),
        charges=tuple(charges),
        foreign=tuple(
            ForeignLine(billing=billing, item=item, amount=amount)
            for (billing, item), amount in sorted(bill.foreign.items())
        ),
        not_billed=tuple(silent),
        over_budget=tuple(await invoices.over_budget(connection)),
        allowances=tuple(await allowances.used(connection, push.vendor.value, days, book)),
    )


def _billing_projects(everyone: Iterable[Project], vendor: str) -> dict[tuple[str, str], str]:
    """(Project id, its provider's name) to the provider's own project id, for those that name one."""
    return {
        (str(project.id), provider.name): provider.billing_project
        for project in everyone
        for provider in project.spec.providers
        if provider.billing_project and VENDOR[provider.api] == vendor
    }


@dataclass(slots=True)
class _Run:
    """One bill on its way: what its groups add up to."""

    connection: Connection
    push: InvoicePush
    book: RateBook
    number: int
    everyone: Mapping[UUID, Project]
    billing_of: Mapping[tuple[str, str], str]
    corrections: list[Correction] = field(default_factory=list)
    shares: dict[tuple[date, str], dict[UUID, Decimal]] = field(default_factory=lambda: defaultdict(dict))
    unattributed: Decimal = ZERO
    rates: dict[str, RateSnapshot] = field(default_factory=dict)

    async def group(
        self, books: Books, key: tuple[date, str, str], billed: Mapping[Meter | None, Billed]
    ) -> InvoiceGroup:
        """Settles one day of one model at one billing project."""
        day, billing, model = key
        rows = {row: sums for (row, name), sums in books.items() if name == model and self._billing(row) == billing}
        await self._learn(rows.values())
        outcome = settle(_booked(rows, self.rates), billed, self._card(model, day))
        name = self._name(day, billing, model)
        for row, sums in rows.items():
            amount, unmetered = outcome.corrections.get(row, ZERO), -(sums.unmetered + sums.resolved)
            if amount or unmetered:
                self.corrections.append(Correction(row, model, name, day, amount, unmetered))
        by_project = self.shares[day, billing]
        for row, part in outcome.shares.items():
            by_project[row.project_id] = by_project.get(row.project_id, ZERO) + part
        amounts = (outcome.estimate, outcome.billed, outcome.unattributed)
        await invoices.settle_group(
            self.connection, name, self.push.vendor.value, day, billing, model, self.push.final, amounts, self.number
        )
        return _group(key, len({row.session_id for row in rows}), outcome)

    async def charge(self, day: date, billing: str, kind: LineKind, amount: Decimal) -> list[ProjectCharge]:
        """Divides tax and the like by what the Projects were billed that day, else over the whole bill."""
        weights = {key: part for key, part in self.shares.get((day, billing), {}).items() if part > 0}
        if not weights:
            totals: dict[UUID, Decimal] = defaultdict(Decimal)
            for (_, at), parts in self.shares.items():
                for key, part in parts.items():
                    totals[key] += part if at == billing else ZERO
            weights = {key: part for key, part in totals.items() if part > 0}
        if not weights:
            self.unattributed += amount
            return []
        name, made = self._name(day, billing, kind.value), []
        before = await invoices.charged(self.connection, name)
        for project_id, part in shares(amount, dict(sorted(weights.items(), key=lambda one: str(one[0])))).items():
            project = self.everyone[project_id]
            account = await project_account(self.connection, project, bounds(day)[0])
            change = part - before.get(account.id, ZERO)
            if change:
                await invoices.charge(self.connection, name, project.id, account.id, kind.value, day, change)
            made.append(
                ProjectCharge(
                    namespace=project.namespace, project=project.name, day=day, kind=kind, amount=part, posted=change
                )
            )
        return made

    async def silent(self, books: Books, day: date, spoken: set[tuple[date, str, str]]) -> list[InvoiceGroup]:
        """Our models of a day on the bill that it says nothing of. Final: they cost nothing; else they stay estimates
        (lines of a provider may be late).
        """
        mine = sorted({(day, self._billing(row), model) for row, model in books} - spoken)
        if self.push.final:
            return [await self.group(books, key, {None: Billed(ZERO)}) for key in mine]
        found = []
        for key in mine:
            sums = [one for (row, model), one in books.items() if (day, self._billing(row), model) == key]
            estimate = sum((one.estimate for one in sums), ZERO)
            found.append(_group(key, len(sums), Settlement(estimate, ZERO, (), ZERO, ZERO)))
        return found

    def _billing(self, row: Row) -> str:
        return self.billing_of.get((str(row.project_id), row.provider), EVERYBODY)

    def _name(self, day: date, billing: str, what: str) -> str:
        return f"{self.push.vendor.value}/{day.isoformat()}/{billing}/{what}"

    async def _learn(self, sums: Iterable[Sums]) -> None:
        wanted = {key for one in sums for key, _ in one.counts if key is not None and key not in self.rates}
        if wanted:
            for key, body in (await invoices.snapshots(self.connection, sorted(wanted))).items():
                self.rates[key] = snapshot_core(RateSnapshotWire.model_validate(body))

    def _card(self, model: str, day: date) -> Mapping[Meter, Decimal]:
        try:
            return self.book.snapshot(self.push.vendor.value, model, bounds(day)[0]).prices
        except PriceUnknown:
            return {}


def _booked(rows: Mapping[Row, Sums], rates: Mapping[str, RateSnapshot]) -> list[Booked[Row]]:
    found = []
    for row, sums in rows.items():
        counts: dict[Meter, int] = defaultdict(int)
        priced: dict[Meter, Decimal] = defaultdict(Decimal)
        for (snapshot, meter), count in sums.counts.items():
            counts[meter] += count
            if snapshot is not None and snapshot in rates:
                rate = rates[snapshot].prices.get(meter)
                # A meter the card does not know was posted at a bound, by the same rule as now.
                cost = price_or_bound({meter: count}, rates[snapshot]).usd if rate is None else per_million(count, rate)
                priced[meter] += cost
        found.append(Booked(row, counts, priced, sums.estimate, sums.unmetered, sums.corrected))
    return found


def _group(key: tuple[date, str, str], sessions: int, outcome: Settlement[Row]) -> InvoiceGroup:
    day, billing, model = key
    return InvoiceGroup(
        day=day,
        billing=billing,
        model=model,
        sessions=sessions,
        estimate=outcome.estimate,
        billed=outcome.billed,
        posted=sum(outcome.corrections.values(), ZERO),
        unmetered=outcome.unmetered,
        residual=outcome.residual,
        unattributed=outcome.unattributed,
        estimate_percent=percent_of(outcome.estimate, outcome.billed),
        variances=tuple(
            VarianceWire(
                meter=one.meter,
                ours=one.ours,
                theirs=one.theirs,
                ours_usd=one.ours_usd,
                theirs_usd=one.theirs_usd,
                quantity_usd=one.quantity_usd,
                price_usd=one.price_usd,
            )
            for one in outcome.variances
        ),
    )
