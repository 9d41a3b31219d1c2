"""One shape for the lines of all bills. Pure; every fault names the file and the place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

from talktime_ledger.core.invoice import InvoiceLine, LineKind
from talktime_ledger.core.money import usd

from talktime_console.problems import InputError


@dataclass(frozen=True)
class Bill:
    """What the files of one provider say. `complete`: amounts are told (a usage report has only quantities)."""

    vendor: str
    source: str
    lines: tuple[InvoiceLine, ...]

    @property
    def complete(self) -> bool:
        return all(line.amount is not None for line in self.lines)


def number(value: object, where: str) -> Decimal:
    """A finite decimal."""
    try:
        found = Decimal(str(value).strip())
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite() or isinstance(value, bool):
        raise InputError(f"{value!r} is not a number", field=where)
    return found


def money(value: object, currency: object, where: str) -> Decimal:
    """USD to 1e-9; another currency is refused, not converted: at whose rate?"""
    if str(currency).strip().upper() != "USD":
        raise InputError(
            f"the amount is in {currency!r}, Talktime's books are in USD", field=where, fix="export the bill in USD"
        )
    return usd(number(value, where))


def day_of_timestamp(value: object, where: str) -> date:
    """The UTC day of Unix seconds."""
    seconds = number(value, where)
    try:
        return datetime.fromtimestamp(int(seconds), UTC).date()
    except (OverflowError, OSError, ValueError) as error:
        raise InputError(f"{value!r} is not a time", field=where) from error


def day_of_text(value: object, where: str) -> date:
    """The UTC day of a date or time (RFC 3339, or as BigQuery writes it: `2026-11-21 00:00:00 UTC`)."""
    text = str(value).strip().replace(" UTC", "+00:00")
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{value!r} is not a time", field=where) from error
    return (found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)).date()


def merged(lines: Iterable[InvoiceLine]) -> tuple[InvoiceLine, ...]:
    """Lines of the same day, billing project, item and kind as one. Amounts and quantities add up exactly."""
    found: dict[tuple[date, str, str, LineKind], InvoiceLine] = {}
    for line in lines:
        key = (line.day, line.billing, line.item, line.kind)
        before = found.get(key)
        if before is None:
            found[key] = line
            continue
        amount = None if before.amount is None or line.amount is None else before.amount + line.amount
        quantity = None if before.quantity is None or line.quantity is None else before.quantity + line.quantity
        found[key] = InvoiceLine(line.day, line.billing, line.item, line.kind, amount, quantity)
    return tuple(found[key] for key in sorted(found))


class Once:
    """Refuses what comes twice: a page or an export that was given (or downloaded) two times over."""

    def __init__(self) -> None:
        self._seen: dict[object, str] = {}

    def check(self, key: object, where: str) -> None:
        """InputError when the key was there before."""
        if key in self._seen:
            raise InputError(f"the same as {self._seen[key]}", field=where, fix="give every page and file once")
        self._seen[key] = where


def field(row: Mapping[str, object], name: str, where: str) -> object:
    """A field that must be there."""
    if row.get(name) in (None, ""):
        raise InputError(f"{name} is missing", field=where)
    return row[name]
