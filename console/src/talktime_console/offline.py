"""Pricing without a ledger: usage from a file, prices from RateCard files, the same core as the ledger's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic import ValidationError
from talktime_ledger.cards import rate_card
from talktime_ledger.core.meters import Meter, MeterError, counts
from talktime_ledger.core.money import ZERO, per_million, shown, usd
from talktime_ledger.core.pricing import price, rate_of
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateCard, RateSnapshot
from talktime_ledger.core.usage import (
    UsageError,
    usage_from_openai_response_done,
    usage_from_openai_transcription,
)
from talktime_ledger.resources.rate_card import RateCardSpec

from .problems import CommandError, InputError
from .tables import Column, Table

TRANSCRIPTION = "conversation.item.input_audio_transcription.completed"


@dataclass(frozen=True)
class Item:
    """One billed thing of the file. ``model`` is its own, when the file tells it; ``at`` likewise (UTC)."""

    name: str
    model: str | None
    at: datetime | None
    meters: Mapping[Meter, int]


@dataclass(frozen=True)
class PricedItem:
    """An item with its price (rounded once, to 1e-9) and the rates it was priced with."""

    item: Item
    rates: RateSnapshot
    at: datetime
    usd: Decimal


def moment(text: str) -> datetime:
    """An RFC 3339 time or a date; without a zone it is UTC."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{text!r} is not a time such as 2026-11-22T10:00:00Z or a date such as 2026-11-22") from error
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def cards_of(documents: Iterable[Any], source: str) -> list[RateCard]:
    """RateCard manifests, or bare specs; other kinds in the same file are passed over."""
    found = []
    for document in documents:
        if document is None:
            continue
        if not isinstance(document, Mapping):
            raise InputError(f"{source}: not a RateCard")
        if document.get("kind", "RateCard") != "RateCard":
            continue
        name = str((document.get("metadata") or {}).get("name") or source)
        try:
            spec = RateCardSpec.model_validate(document.get("spec", document))
            found.append(rate_card(name, spec))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{source}: {place or 'RateCard'}: {first['msg']}") from error
        except PriceUnknown as error:
            raise InputError(f"{source}: {error}") from error
    return found


def items_of(data: Any, source: str) -> list[Item]:
    """Usage in any of the forms we or the provider write: one, a list, or ``{"usages": [...]}`` of

    - ``{"meters": {...}}`` with optional ``key``, ``model``, ``occurred_at`` (the ledger's and the simulator's form),
    - a bare ``{"audio_in": 120, ...}``,
    - OpenAI's raw ``response.done`` and transcription events.
    """
    if isinstance(data, Mapping) and isinstance(data.get("usages"), list):
        data = data["usages"]
    rows = data if isinstance(data, list) else [data]
    return [_item(row, f"{source}: usage {number}") for number, row in enumerate(rows, 1)]


def _item(row: Any, place: str) -> Item:
    if not isinstance(row, Mapping):
        raise InputError(f"{place}: not an object")
    try:
        if "type" in row:
            return _event(row, place)
        given = row.get("meters", row)
        if not isinstance(given, Mapping):
            raise InputError(f"{place}: meters is not an object")
        meters = counts(given)
    except (MeterError, UsageError) as error:
        raise InputError(f"{place}: {error}") from error
    key = row.get("key") or row.get("response_id") or row.get("item_id")
    at = row.get("occurred_at") or row.get("at")
    model = row.get("model")
    named = model if isinstance(model, str) and "meters" in row else None
    return Item(str(key or place), named, moment(at) if isinstance(at, str) else None, meters)


def _event(row: Mapping[str, Any], place: str) -> Item:
    unused = datetime.min.replace(tzinfo=UTC)  # the events carry no time; --at tells it
    if row["type"] == "response.done":
        usage = usage_from_openai_response_done(row, provider_session="", provider="", model="", occurred_at=unused)
    elif row["type"] == TRANSCRIPTION:
        usage = usage_from_openai_transcription(row, provider="", model="", occurred_at=unused)
    else:
        raise InputError(f"{place}: events of type {row['type']!r} are not billed")
    return Item(usage.key.lstrip("/"), None, None, usage.meters)


def price_items(
    items: Sequence[Item], cards: Sequence[RateCard], model: str | None, at: datetime | None, vendor: str | None
) -> list[PricedItem]:
    """Every item priced. ``model`` is for items that name none, ``at`` for all of them (None: their own time).

    Raises CommandError when a price is missing: missing is not zero.
    """
    book = RateBook(tuple(cards))
    return [_price(item, book, model, at, vendor) for item in items]


def _price(item: Item, book: RateBook, model: str | None, at: datetime | None, vendor: str | None) -> PricedItem:
    named, when = item.model or model, at or item.at
    if named is None:
        raise InputError(f"{item.name}: which model? give --model")
    if when is None:
        raise InputError(f"{item.name}: at which time? give --at")
    vendors = {card.vendor for card in book.cards if card.model == named and vendor in (None, card.vendor)}
    if not vendors:
        raise CommandError(f"no RateCard for model {named!r} was given")
    if len(vendors) > 1:
        raise InputError(f"model {named!r} is sold by {', '.join(sorted(vendors))}: give --vendor")
    try:
        rates = book.snapshot(vendors.pop(), named, when)
        return PricedItem(item, rates, when, price(item.meters, rates))
    except PriceUnknown as error:
        raise CommandError(str(error)) from error


def priced_tables(priced: Sequence[PricedItem]) -> list[Table]:
    """Per meter and model, then per item; the total is the sum of items, as the ledger posts them."""
    total = usd(sum((p.usd for p in priced), ZERO))
    return [_items_table(priced, total), _meters_table(priced), _total_table(total)]


def _items_table(priced: Sequence[PricedItem], total: Decimal) -> Table:
    columns = (
        Column("usage", "USAGE"),
        Column("model", "MODEL"),
        Column("at", "AT"),
        Column("rate_card", "RATE CARD"),
        Column("effective_from", "PRICES FROM"),
        Column("tokens", "COUNTED", right=True),
        Column("usd", "USD", right=True),
    )
    rows = tuple(
        (
            p.item.name,
            p.rates.model,
            _when(p.at),
            p.rates.card,
            _when(p.rates.effective_from),
            sum(p.item.meters.values()),
            shown(p.usd, 9),
        )
        for p in priced
    )
    return Table("usages", "Usages", columns, rows, ("TOTAL", None, None, None, None, None, shown(total, 9)))


def _meters_table(priced: Sequence[PricedItem]) -> Table:
    columns = (
        Column("model", "MODEL"),
        Column("effective_from", "PRICES FROM"),
        Column("meter", "METER"),
        Column("count", "COUNT", right=True),
        Column("usd_per_million", "USD PER MILLION", right=True),
        Column("usd", "USD", right=True),
    )
    sums: dict[tuple[str, str, Meter, Decimal], int] = {}
    for p in priced:
        for meter, count in p.item.meters.items():
            key = (p.rates.model, _when(p.rates.effective_from), meter, rate_of(meter, p.rates))
            sums[key] = sums.get(key, 0) + count
    rows = tuple(
        (model, since, meter.value, count, f"{rate.normalize():f}", shown(usd(per_million(count, rate)), 9))
        for (model, since, meter, rate), count in sums.items()
    )
    return Table("meters", "By meter", columns, rows)


def _total_table(total: Decimal) -> Table:
    return Table("total", "Total", (Column("usd", "USD", right=True),), ((shown(total, 9),),))


def _when(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
