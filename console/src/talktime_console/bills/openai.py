"""OpenAI: pages of the Costs API and the Usage API, and the usage and cost downloads of the dashboard. Pure.

Source: developers.openai.com/api/reference, administration, costs and usage/completions. Days are UTC there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from talktime_ledger.core.invoice import InvoiceLine, LineKind

from talktime_console.problems import InputError

from .lines import Once, day_of_timestamp, field, money, number

QUANTITY_UNITS = {
    "tokens": 1,
    "1000_tokens": 1000,
    "duration_seconds": 1,
    "duration_minutes": 60,
    "duration_hours": 3600,
}
# Ours: the meter's count is a field's, less the cached part that the field includes. A usage row has all of them.
USAGE_FIELDS = {
    "text_in": ("input_text_tokens", "input_cached_text_tokens"),
    "text_cached_in": ("input_cached_text_tokens", None),
    "audio_in": ("input_audio_tokens", "input_cached_audio_tokens"),
    "audio_cached_in": ("input_cached_audio_tokens", None),
    "text_out": ("output_text_tokens", None),
    "audio_out": ("output_audio_tokens", None),
}


def page_lines(pages: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[InvoiceLine]:
    """Lines of Costs or Usage API pages, (name, document) each, in any order but all of them."""
    once = Once()
    tokens = {str(page.get("next_page")) for _, page in pages if page.get("has_more")}
    if len(tokens) >= len(pages):
        last = next(name for name, page in pages if page.get("has_more"))
        raise InputError(
            "has_more is true: pages are missing", field=last, fix="fetch with next_page until has_more is false"
        )
    spans: dict[Decimal, tuple[Decimal, str]] = {}
    for name, page in pages:
        buckets = page.get("data")
        if page.get("object") != "page" or not isinstance(buckets, list):
            raise InputError("not a page of OpenAI's Costs or Usage API (object: page, data: [...])", field=name)
        for index, bucket in enumerate(buckets):
            where = f"{name}: data[{index}]"
            yield from _bucket(bucket, where, once)
            start, end = (number(field(bucket, at, where), f"{where}.{at}") for at in ("start_time", "end_time"))
            spans[start] = (max(end, spans[start][0]) if start in spans else end, where)
    _without_gap(spans)


def _without_gap(spans: Mapping[Decimal, tuple[Decimal, str]]) -> None:
    """The APIs answer with a bucket for every day, an empty one for a day without use: a gap is a page that is missing.
    `spans`: start to (end, place).
    """
    through: Decimal | None = None
    for start, (end, where) in sorted(spans.items()):
        if through is not None and start > through:
            raise InputError(
                f"nothing from {_said(through)} to {_said(start)}: a page is missing before this one",
                field=where,
                fix="give it too, or settle what was fetched apart one by one",
            )
        through = end if through is None else max(end, through)


def _said(seconds: Decimal) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def _bucket(bucket: object, where: str, once: Once) -> Iterator[InvoiceLine]:
    if not isinstance(bucket, dict) or not isinstance(bucket.get("results"), list):
        raise InputError("a bucket with start_time and results is needed", field=where)
    day = day_of_timestamp(bucket.get("start_time"), f"{where}.start_time")
    for index, result in enumerate(bucket["results"]):
        place = f"{where}.results[{index}]"
        if not isinstance(result, dict):
            raise InputError("an object is needed", field=place)
        billing = str(result.get("project_id") or "")
        if "amount" not in result:
            once.check((bucket["start_time"], *_identity(result)), place)
            for item, quantity in _usage(result, place):
                yield InvoiceLine(day, billing, item, LineKind.USAGE, None, quantity)
            continue
        amount = result["amount"]
        if not isinstance(amount, dict):
            raise InputError("an object with value and currency is needed", field=f"{place}.amount")
        item = str(result.get("line_item") or "")
        if not item:
            raise InputError("null: ask the API with group_by=line_item (and project_id)", field=f"{place}.line_item")
        once.check((day, billing, item, *_identity(result)), place)
        value = money(amount.get("value"), amount.get("currency"), f"{place}.amount")
        yield _line(day, billing, item, value, _quantity(result, place))


def _line(day: Any, billing: str, item: str, value: Decimal, quantity: Decimal | None) -> InvoiceLine:
    lowered = item.lower()
    kind = LineKind.USAGE
    if "tax" in lowered.split() or "vat" in lowered.split():
        kind = LineKind.TAX
    elif value < 0 or "credit" in lowered:
        kind = LineKind.CREDIT
    return InvoiceLine(day, billing, item, kind, value, quantity if kind is LineKind.USAGE else None)


def _identity(result: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(result.get(name) for name in ("project_id", "api_key_id", "user_id", "model", "batch", "service_tier"))


def _quantity(result: Mapping[str, Any], where: str) -> Decimal | None:
    if result.get("quantity") is None:
        return None
    unit = str(result.get("quantity_unit") or "tokens")
    if unit not in QUANTITY_UNITS:
        raise InputError(f"{unit!r} is none of {', '.join(QUANTITY_UNITS)}", field=f"{where}.quantity_unit")
    return number(result["quantity"], f"{where}.quantity") * QUANTITY_UNITS[unit]


def _usage(result: Mapping[str, object], where: str) -> Iterator[tuple[str, Decimal]]:
    """(item, quantity) per meter of one usage row. Inputs by modality include their cached part."""
    model = str(result.get("model") or "")
    if not model:
        raise InputError("null: ask the API with group_by=model (and project_id)", field=f"{where}.model")
    missing = [name for name, _ in USAGE_FIELDS.values() if result.get(name) in (None, "")]
    if missing:
        # Not told is not zero: what we counted would be taken back.
        raise InputError(
            f"{', '.join(missing)}: not told", field=where, fix="give a report with tokens by modality, or the costs"
        )
    for meter, (name, less) in USAGE_FIELDS.items():
        count = number(result[name], f"{where}.{name}")
        cached = number(result[less], f"{where}.{less}") if less else Decimal(0)
        if cached > count or count < 0:
            raise InputError(f"{count} with {cached} of them cached", field=f"{where}.{name}")
        yield f"{model}, {meter}", count - cached


def csv_lines(rows: Iterable[Mapping[str, str]], name: str) -> Iterator[InvoiceLine]:
    """Lines of a download of the dashboard: usage (token columns) or costs (amount_value, line_item)."""
    once = Once()
    for index, row in enumerate(rows, 2):
        where = f"{name}: line {index}"
        day = day_of_timestamp(field(row, "start_time", where), f"{where}: start_time")
        billing = row.get("project_id") or ""
        once.check(tuple(sorted(row.items())), where)
        if "amount_value" in row:
            value = money(field(row, "amount_value", where), row.get("amount_currency"), f"{where}: amount_value")
            yield _line(day, billing, str(field(row, "line_item", where)), value, None)
        else:
            for item, quantity in _usage(row, where):
                yield InvoiceLine(day, billing, item, LineKind.USAGE, None, quantity)
