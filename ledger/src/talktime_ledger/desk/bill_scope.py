"""What a bill is about, and which of our books it may speak of. Pure.

A day of one model at one billing project (the provider's own project) is a group. A vendor none of whose sessions
names a billing project has one bill for all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from talktime_ledger.core.invoice import InvoiceLine, LineKind, item_of
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.reconcile import Billed
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.desk.pricing import VENDOR
from talktime_ledger.store.invoices import Row
from talktime_ledger.store.projects import Project
from talktime_ledger.wire import ProblemReason

EVERYBODY = ""

Key = tuple[date, str, str]
"""Day, billing project, model."""


@dataclass(frozen=True, slots=True)
class Billings:
    """The billing projects of a vendor's sessions. `today`: (Project id, its provider's name) to what its spec names
    now; `named`: all that any spec or session names.
    """

    today: Mapping[tuple[str, str], str]
    named: frozenset[str]

    def of(self, row: Row) -> str:
        """As the session kept it at open, else as its Project names it now."""
        return row.billing or self.today.get((str(row.project_id), row.provider), EVERYBODY)

    def on(self, lines: Iterable[InvoiceLine]) -> frozenset[str]:
        """Those of ours that a bill speaks of. What has no name is nobody's once any has one."""
        return self.named & {line.billing for line in lines} if self.named else frozenset({EVERYBODY})


def billings(everyone: Iterable[Project], vendor: str, rows: Iterable[Row]) -> Billings:
    """Of these Projects, and of the sessions on the books."""
    today = {
        (str(project.id), provider.name): provider.billing_project
        for project in everyone
        for provider in project.spec.providers
        if provider.billing_project and VENDOR[provider.api] == vendor
    }
    return Billings(today, frozenset(today.values()) | {row.billing for row in rows if row.billing})


@dataclass(slots=True)
class Sorted:
    """The lines of a bill by what they are about; `foreign` is about nothing of ours."""

    usage: dict[Key, dict[Meter | None, Billed]] = field(default_factory=dict)
    charges: dict[tuple[date, str, LineKind], Decimal] = field(default_factory=dict)
    foreign: dict[tuple[str, str], Decimal] = field(default_factory=dict)


def sorted_lines(lines: Iterable[InvoiceLine], named: frozenset[str], models: Sequence[str]) -> Sorted:
    """Sorts a bill. `named`: the billing projects of ours; empty = every line may be ours. DeskError naming the line
    that tells neither an amount nor a meter.
    """
    found = Sorted()
    for number, line in enumerate(lines):
        billing = line.billing if named else EVERYBODY
        item = item_of(line.item, models) if line.kind is LineKind.USAGE else None
        if (named and billing not in named) or (line.kind is LineKind.USAGE and item is None):
            key = (line.billing, line.item)
            found.foreign[key] = found.foreign.get(key, ZERO) + (line.amount or ZERO)
        elif item is None:
            at = (line.day, billing, line.kind)
            found.charges[at] = found.charges.get(at, ZERO) + (line.amount or ZERO)
        elif item.meter is None and line.amount is None:
            raise DeskError(
                ProblemReason.INVALID,
                f"lines.{number}.item: {line.item!r} names no meter, so its quantity has no price; "
                f"name the meter as in '{item.model}, audio_in', or tell the amount",
            )
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


@dataclass(frozen=True, slots=True)
class Silence:
    """Groups of ours that a bill does not mention. `free`: they cost nothing; `open`: they stay estimates."""

    free: tuple[Key, ...]
    open: tuple[Key, ...]


def silence(ours: Iterable[Key], mentioned: Collection[Key], about: Collection[str], *, final: bool) -> Silence:
    """A final bill says of the billing projects that it is `about` that the rest cost nothing; of others it says
    nothing, and lines of one that is not final may be late.
    """
    quiet = sorted(set(ours) - set(mentioned))
    free = tuple(key for key in quiet if final and key[1] in about)
    return Silence(free, tuple(key for key in quiet if key not in free))
