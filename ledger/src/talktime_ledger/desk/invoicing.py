"""Settles a provider's bill: by UTC day, billing project and model; append-only, and the same bill again posts nothing.

A correction is not guarded: what was billed is a fact. It cuts nobody off; an account over its budget grants no more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from uuid import UUID

from talktime_ledger.cards import snapshot_core
from talktime_ledger.core.invoice import LineKind
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO, per_million
from talktime_ledger.core.pricing import price_or_bound
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateSnapshot, SameAs
from talktime_ledger.core.reconcile import Billed, Booked, Settlement, off, percent_of, settle
from talktime_ledger.core.shares import changes, shares
from talktime_ledger.desk import allowances
from talktime_ledger.desk.bill_scope import Billings, Key, billings, silence, sorted_lines
from talktime_ledger.desk.granting import project_account
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

Books = dict[tuple[Row, str], Sums]


async def settle_bill(connection: Connection, push: InvoicePush, book: RateBook, who: str) -> InvoiceReport:
    """Settles and posts; the caller rolls a dry run back."""
    await invoices.patient(connection)
    everyone = {project.id: project for project in await projects.everything(connection)}
    lines = [line.core() for line in push.lines]
    days = sorted({line.day for line in lines})
    books = {day: await invoices.booked(connection, push.vendor.value, day) for day in days}
    ours = billings(everyone.values(), push.vendor.value, (row for day in books.values() for row, _ in day))
    models = {card.model for card in book.cards if card.vendor == push.vendor.value}
    models |= {model for day in books.values() for _, model in day}
    bill = sorted_lines(lines, ours.named, sorted(models))
    number = await invoices.keep(
        connection,
        push.vendor.value,
        push.source,
        push.digest,
        push.final,
        who,
        [(one.day, one.billing, one.item, one.kind.value, one.quantity, one.amount) for one in lines],
    )
    run = _Run(connection, push, book, number, everyone, ours)
    booked = {(day, ours.of(row), model) for day, rows in books.items() for row, model in rows}
    about = ours.on(lines)
    quiet = silence(booked, bill.usage, about, final=push.final)
    told: dict[Key, Mapping[Meter | None, Billed]] = {**bill.usage}
    told |= {key: {None: Billed(ZERO)} for key in quiet.free}
    groups = [await run.group(books[key[0]], key, told[key]) for key in sorted(told)]
    charges = [
        charge
        for (day, billing, kind), amount in sorted(bill.charges.items())
        for charge in await run.charge(day, billing, kind, amount)
    ]
    await invoices.correct(connection, run.corrections)
    if days:
        await invoices.restate(connection, push.vendor.value, days, ours.today)
    estimate = sum((one.estimate for one in groups), ZERO)
    billed = sum((one.billed for one in groups), ZERO)
    return InvoiceReport(
        vendor=push.vendor,
        posted=not push.dry_run,
        estimate=estimate,
        billed=billed,
        estimate_percent=percent_of(estimate, billed),
        alert=off(estimate, billed),
        unattributed=sum((one.unattributed for one in groups), ZERO) + run.unattributed,
        groups=tuple(groups),
        charges=tuple(charges),
        foreign=tuple(
            ForeignLine(billing=billing, item=item, amount=amount)
            for (billing, item), amount in sorted(bill.foreign.items())
        ),
        not_billed=tuple(run.unsettled(books[key[0]], key) for key in quiet.open),
        about=tuple(sorted(about)),
        over_budget=tuple(await invoices.over_budget(connection)),
        allowances=tuple(await allowances.used(connection, push.vendor.value, days, book)),
    )


@dataclass(slots=True)
class _Run:
    """One bill on its way: what its groups add up to."""

    connection: Connection
    push: InvoicePush
    book: RateBook
    number: int
    everyone: Mapping[UUID, Project]
    billings: Billings
    corrections: list[Correction] = field(default_factory=list)
    shares: dict[tuple[date, str], dict[UUID, Decimal]] = field(default_factory=lambda: defaultdict(dict))
    unattributed: Decimal = ZERO
    rates: dict[str, RateSnapshot] = field(default_factory=dict)

    async def group(self, books: Books, key: Key, billed: Mapping[Meter | None, Billed]) -> InvoiceGroup:
        """Settles one day of one model at one billing project."""
        day, billing, model = key
        rows = self._rows(books, key)
        await self._learn(rows.values())
        outcome = settle(_booked(rows, self.rates), billed, *self._card(model, day))
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
        """Divides tax and the like by what the Projects were billed that day, else over the whole bill. An account that
        had a part of an earlier bill and has none now gets it back.
        """
        weights = {key: part for key, part in self.shares.get((day, billing), {}).items() if part > 0}
        if not weights:
            totals: dict[UUID, Decimal] = defaultdict(Decimal)
            for (_, at), parts in self.shares.items():
                for key, part in parts.items():
                    totals[key] += part if at == billing else ZERO
            weights = {key: part for key, part in totals.items() if part > 0}
        if not weights:
            self.unattributed += amount
        name = self._name(day, billing, kind.value)
        wanted: dict[tuple[UUID, int], Decimal] = {}
        if weights:
            for project_id, part in shares(amount, dict(sorted(weights.items(), key=lambda one: str(one[0])))).items():
                account = await project_account(self.connection, self.everyone[project_id], bounds(day)[0])
                wanted[project_id, account.id] = part
        made = []
        for (project_id, account_id), change in changes(wanted, await invoices.charged(self.connection, name)).items():
            project = self.everyone[project_id]
            if change:
                await invoices.charge(self.connection, name, project_id, account_id, kind.value, day, change)
            made.append(
                ProjectCharge(
                    namespace=project.namespace,
                    project=project.name,
                    day=day,
                    kind=kind,
                    amount=wanted.get((project_id, account_id), ZERO),
                    posted=change,
                )
            )
        return made

    def unsettled(self, books: Books, key: Key) -> InvoiceGroup:
        """A group that the bill says nothing of."""
        rows = self._rows(books, key)
        estimate = sum((one.estimate for one in rows.values()), ZERO)
        return _group(key, len({row.session_id for row in rows}), Settlement(estimate, ZERO, (), ZERO, ZERO))

    def _rows(self, books: Books, key: Key) -> dict[Row, Sums]:
        _, billing, model = key
        return {row: one for (row, name), one in books.items() if name == model and self.billings.of(row) == billing}

    def _name(self, day: date, billing: str, what: str) -> str:
        return f"{self.push.vendor.value}/{day.isoformat()}/{billing}/{what}"

    async def _learn(self, sums: Iterable[Sums]) -> None:
        wanted = {key for one in sums for key, _ in one.counts if key is not None and key not in self.rates}
        if wanted:
            for key, body in (await invoices.snapshots(self.connection, sorted(wanted))).items():
                self.rates[key] = snapshot_core(RateSnapshotWire.model_validate(body))

    def _card(self, model: str, day: date) -> tuple[Mapping[Meter, Decimal], Mapping[Meter, Meter]]:
        """(USD per million, the meters priced like another one) on that day."""
        try:
            entry, rates = self.book.in_force(self.push.vendor.value, model, bounds(day)[0])
        except PriceUnknown:
            return {}, {}
        return rates.prices, {meter: term.meter for meter, term in entry.terms.items() if isinstance(term, SameAs)}


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
