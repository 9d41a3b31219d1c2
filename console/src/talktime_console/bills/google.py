"""Google Cloud billing export: the standard table (JSON, JSON lines or CSV) and FOCUS (CSV). Pure.

Source: cloud.google.com/billing/docs, export to BigQuery, table schemas; FOCUS 1.2, focus.finops.org.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from talktime_ledger.core.invoice import InvoiceLine, LineKind

from talktime_console.problems import InputError

from .lines import Once, day_of_text, field, money, number

COST_TYPES = {
    "regular": LineKind.USAGE,
    "tax": LineKind.TAX,
    "adjustment": LineKind.ADJUSTMENT,
    "rounding_error": LineKind.ROUNDING,
}
CATEGORIES = {
    "usage": LineKind.USAGE,
    "tax": LineKind.TAX,
    "credit": LineKind.CREDIT,
    "adjustment": LineKind.ADJUSTMENT,
    "purchase": LineKind.ADJUSTMENT,
}
COUNTED = frozenset({"count", "tokens", "token", "seconds", "second"})


def standard_lines(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[InvoiceLine]:
    """Lines of `gcp_billing_export_v1_*` rows; nested, or with dotted column names as a CSV has them."""
    once = Once()
    for index, row in enumerate(rows, 1):
        where = f"{name}: row {index}"
        once.check(repr(sorted(row.items(), key=lambda one: one[0])), where)
        day = day_of_text(_at(row, "usage_start_time", where), f"{where}: usage_start_time")
        billing = str(_find(row, "project.id") or "")
        item = str(_at(row, "sku.description", where))
        told = str(_at(row, "cost_type", where))
        if told not in COST_TYPES:
            raise InputError(f"{told!r} is none of {', '.join(COST_TYPES)}", field=f"{where}: cost_type")
        kind = COST_TYPES[told]
        cost = money(_at(row, "cost", where), _at(row, "currency", where), f"{where}: cost")
        quantity = None
        if kind is LineKind.USAGE and str(_find(row, "usage.unit")) in COUNTED:
            quantity = number(_at(row, "usage.amount", where), f"{where}: usage.amount")
        yield from _whole(day, billing, item, kind, cost, quantity)
        for place_in_row, credit in enumerate(_credits(row, where)):
            place = f"{where}: credits[{place_in_row}]"
            if not isinstance(credit, Mapping):
                raise InputError("an object is needed", field=place)
            value = money(field(credit, "amount", place), _at(row, "currency", where), f"{place}.amount")
            yield InvoiceLine(day, billing, str(credit.get("name") or "credit"), LineKind.CREDIT, value)


def _credits(row: Mapping[str, Any], where: str) -> list[Any]:
    """The list, or its JSON: a CSV has no lists, BigQuery writes them with TO_JSON_STRING."""
    fix = "select TO_JSON_STRING(credits) AS credits, or export JSON"
    if apart := [name for name, value in row.items() if name.startswith("credits.") and value not in (None, "")]:
        raise InputError("one column of the credits alone cannot be read", field=f"{where}: {apart[0]}", fix=fix)
    given = row.get("credits")
    if isinstance(given, str) and given.strip():
        try:
            given = json.loads(given, parse_float=str)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}", field=f"{where}: credits", fix=fix) from error
    if not isinstance(given, list) and given not in (None, ""):
        raise InputError(f"{given!r} is not a list of credits", field=f"{where}: credits", fix=fix)
    return list(given or [])


def focus_lines(rows: Iterable[Mapping[str, str]], name: str) -> Iterator[InvoiceLine]:
    """Lines of FOCUS rows, by BilledCost (what the invoice adds up to)."""
    once = Once()
    for index, row in enumerate(rows, 2):
        where = f"{name}: line {index}"
        once.check(tuple(sorted((key, str(value)) for key, value in row.items())), where)
        category = str(field(row, "ChargeCategory", where)).lower()
        if category not in CATEGORIES:
            raise InputError(f"{category!r} is none of {', '.join(CATEGORIES)}", field=f"{where}: ChargeCategory")
        # A correction of an earlier period is no usage of this one.
        kind = LineKind.ADJUSTMENT if row.get("ChargeClass") == "Correction" else CATEGORIES[category]
        cost = money(field(row, "BilledCost", where), field(row, "BillingCurrency", where), f"{where}: BilledCost")
        quantity = None
        if kind is LineKind.USAGE and (row.get("ConsumedUnit") or "").lower() in COUNTED:
            quantity = number(field(row, "ConsumedQuantity", where), f"{where}: ConsumedQuantity")
        day = day_of_text(field(row, "ChargePeriodStart", where), f"{where}: ChargePeriodStart")
        item = str(field(row, "ChargeDescription", where))
        yield from _whole(day, row.get("SubAccountId") or "", item, kind, cost, quantity)


def _whole(
    day: date, billing: str, item: str, kind: LineKind, cost: Decimal, quantity: Decimal | None
) -> Iterator[InvoiceLine]:
    if kind is LineKind.USAGE and cost < 0:
        kind, quantity = LineKind.CREDIT, None
    yield InvoiceLine(day, billing, item, kind, cost, quantity)


def _find(row: Mapping[str, Any], path: str) -> object:
    if path in row:
        return row[path]
    here: object = row
    for part in path.split("."):
        if not isinstance(here, Mapping):
            return None
        here = here.get(part)
    return here


def _at(row: Mapping[str, Any], path: str, where: str) -> object:
    found = _find(row, path)
    if found is None or found == "":
        raise InputError("is missing", field=f"{where}: {path}")
    return found
