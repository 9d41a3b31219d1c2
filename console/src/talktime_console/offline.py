"""Pricing without a ledger: usage from a file, prices from RateCard files, the same core as the ledger's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic import ValidationError
from talktime_ledger.cards import rate_card
from talktime_ledger.core.meters import Meter, add
from talktime_ledger.core.money import ZERO, per_million, shown, usd
from talktime_ledger.core.pricing import price, rate_of
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateCard, RateSnapshot
from talktime_ledger.resources.rate_card import RateCardSpec

from .problems import CommandError, InputError
from .session_dump import Item
from .tables import Column, Table


@dataclass(frozen=True)
class PricedItem:
    """An item with its price (rounded once, to 1e-9) and the rates it was priced with."""

    item: Item
    rates: RateSnapshot
    at: datetime
    usd: Decimal


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
            raise InputError(first["msg"], field=f"{source}: {place or 'RateCard'}") from error
        except PriceUnknown as error:
            raise InputError(f"{source}: {error}") from error
    return found


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
        raise InputError("does not say which model", field=item.name, fix="give --model")
    if when is None:
        raise InputError("does not say when it was used", field=item.name, fix="give --at")
    vendors = {card.vendor for card in book.cards if card.model == named and vendor in (None, card.vendor)}
    if not vendors:
        known = ", ".join(sorted({card.model for card in book.cards})) or "none"
        raise CommandError(
            f"no RateCard for model {named!r} (there are: {known})", field="model", fix="give its card with --rate-card"
        )
    if len(vendors) > 1:
        raise InputError(f"{named!r} is sold by {', '.join(sorted(vendors))}", field="model", fix="give --vendor")
    try:
        rates = book.snapshot(vendors.pop(), named, when)
        return PricedItem(item, rates, when, price(item.meters, rates))
    except PriceUnknown as error:
        raise CommandError(str(error), field=item.name) from error
    except InvalidOperation as error:
        raise InputError("more than money can count", field=item.name) from error


def total_of(priced: Sequence[PricedItem]) -> Decimal:
    """USD of all: the sum of items rounded one by one, as the ledger posts them."""
    return usd(sum((p.usd for p in priced), ZERO))


def priced_document(priced: Sequence[PricedItem]) -> dict[str, Any]:
    """The JSON form: ``cost_usd`` (decimal string), ``meters`` (sum of all usages), and both in detail."""
    sums: dict[Meter, int] = {}
    for p in priced:
        sums = add(sums, p.item.meters)
    usages, by_meter = priced_tables(priced)
    return {
        "cost_usd": shown(total_of(priced), 9),
        "meters": {meter.value: count for meter, count in sums.items()},
        "usages": [{**row, "meters": dict(p.item.meters)} for row, p in zip(usages.records(), priced, strict=True)],
        "lines": by_meter.records(),
    }


def priced_tables(priced: Sequence[PricedItem]) -> list[Table]:
    """Per usage, then per meter, model and price."""
    return [_items_table(priced, total_of(priced)), _meters_table(priced)]


def _items_table(priced: Sequence[PricedItem], total: Decimal) -> Table:
    told = any(p.item.posted is not None for p in priced)
    columns = (
        Column("usage", "USAGE"),
        Column("model", "MODEL"),
        Column("at", "AT"),
        Column("rate_card", "RATE CARD"),
        Column("effective_from", "PRICES FROM"),
        Column("tokens", "COUNTED", right=True),
        *((Column("ledger_usd", "LEDGER USD", right=True),) if told else ()),
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
            *((None if p.item.posted is None else shown(p.item.posted, 9),) if told else ()),
            shown(p.usd, 9),
        )
        for p in priced
    )
    blanks = (None,) * (len(columns) - 2)
    return Table("usages", "Usages", columns, rows, ("TOTAL", *blanks, shown(total, 9)))


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


def _when(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
