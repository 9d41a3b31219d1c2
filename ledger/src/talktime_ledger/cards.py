"""From the RateCard resource to the core's rates."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.rates import (
    Absent,
    Allowance,
    Free,
    Price,
    PriceUnknown,
    RateCard,
    RateEntry,
    RateSnapshot,
    SameAs,
    Term,
    resolve,
)
from talktime_ledger.resources.rate_card import MeterRate, RateCardSpec
from talktime_ledger.wire import RateSnapshotWire

SECONDS_PER_HOUR = 3600
BYTES_PER_GIB = 2**30


def rate_card(name: str, spec: RateCardSpec) -> RateCard:
    """The core's card; PriceUnknown for unknown meters, unclear terms or references that lead nowhere."""
    entries = []
    for entry in spec.entries:
        terms = {_meter(name, meter): _term(name, meter, rate) for meter, rate in entry.meters.items()}
        at = entry.effective_from
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        allowances = {
            _meter(name, meter): Allowance(free.quantity, free.per.value)
            for meter, free in entry.free_allowance.items()
        }
        entries.append(
            RateEntry(
                at,
                terms,
                entry.source,
                entry.checked_at.isoformat(),
                entry.historic or "",
                allowances,
                Decimal(entry.monthly_fee or 0),
            )
        )
    card = RateCard(name, spec.provider.value, spec.model, tuple(sorted(entries, key=lambda e: e.effective_from)))
    for built in card.entries:
        resolve(card, built)
    return card


def snapshot_wire(rates: RateSnapshot) -> RateSnapshotWire:
    """The snapshot as it travels and is stored."""
    return RateSnapshotWire(
        card=rates.card,
        vendor=rates.vendor,
        model=rates.model,
        effective_from=rates.effective_from,
        prices=dict(rates.prices),
        source=rates.source,
    )


def snapshot_core(rates: RateSnapshotWire) -> RateSnapshot:
    """The snapshot the core prices with."""
    return RateSnapshot(rates.card, rates.vendor, rates.model, rates.effective_from, rates.prices, rates.source)


def _meter(card: str, name: str) -> Meter:
    try:
        return Meter(name)
    except ValueError as error:
        raise PriceUnknown(f"rate card {card}: unknown meter {name!r}") from error


def _term(card: str, name: str, rate: MeterRate) -> Term:
    million = Decimal(1_000_000)
    terms: list[Term] = []
    if rate.usd_per_million is not None:
        terms.append(Price(Decimal(rate.usd_per_million)))
    if rate.usd_per_hour is not None:
        terms.append(Price(Decimal(rate.usd_per_hour) * million / SECONDS_PER_HOUR))
    if rate.usd_per_gib is not None:
        terms.append(Price(Decimal(rate.usd_per_gib) * million / BYTES_PER_GIB))
    if rate.same_as is not None:
        terms.append(SameAs(_meter(card, rate.same_as)))
    if rate.free:
        terms.append(Free())
    if rate.absent:
        terms.append(Absent())
    if len(terms) != 1:
        raise PriceUnknown(f"rate card {card}: meter {name} needs exactly one term, has {len(terms)}")
    return terms[0]
