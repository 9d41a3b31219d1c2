"""Prices a usage once, half-even to 1e-9."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from talktime_ledger.core.meters import INPUTS, OUTPUTS, UNCACHED_INPUTS, Meter
from talktime_ledger.core.money import ZERO, per_million, usd
from talktime_ledger.core.rates import PriceUnknown, RateSnapshot


@dataclass(frozen=True, slots=True)
class Priced:
    """Cost in USD; `missing` lists meters that had no price and were taken at the dearest of their direction."""

    usd: Decimal
    missing: tuple[Meter, ...] = ()


def rate_of(meter: Meter, rates: RateSnapshot) -> Decimal:
    """USD per million of one meter; the unassigned gap without an own price is taken at the dearest uncached input
    rate.
    """
    if meter is Meter.UNASSIGNED_IN and meter not in rates.prices:
        return rates.dearest(UNCACHED_INPUTS)
    return rates.price(meter)


def price(meters: Mapping[Meter, int], rates: RateSnapshot) -> Decimal:
    """Cost in USD; PriceUnknown if any counted meter has no price."""
    return usd(sum((per_million(count, rate_of(meter, rates)) for meter, count in meters.items()), ZERO))


def price_stated(meters: Mapping[Meter, int], rates: RateSnapshot) -> Decimal:
    """As `price`, where a meter that the card states as absent costs nothing: the vendor does not bill it."""
    return price({meter: count for meter, count in meters.items() if meter not in rates.absent}, rates)


def price_known(meters: Mapping[Meter, int], rates: RateSnapshot) -> Decimal:
    """Cost in USD of what has already happened, as far as the card prices it."""
    return price({meter: count for meter, count in meters.items() if meter in rates.prices}, rates)


def price_or_bound(meters: Mapping[Meter, int], rates: RateSnapshot) -> Priced:
    """Cost in USD of usage that has already happened: it must be posted, so a meter without a price takes the dearest
    of its direction.

    New sessions are refused on a missing price; this is for what the provider billed all the same.
    """
    total, missing = ZERO, []
    for meter, count in meters.items():
        try:
            rate = rate_of(meter, rates)
        except PriceUnknown:
            missing.append(meter)
            rate = _dearest_like(meter, rates)
        total += per_million(count, rate)
    return Priced(usd(total), tuple(missing))


def _dearest_like(meter: Meter, rates: RateSnapshot) -> Decimal:
    for family in (OUTPUTS, INPUTS):
        if meter in family:
            known = [rates.prices[other] for other in family if other in rates.prices]
            return max(known, default=max(rates.prices.values(), default=ZERO))
    return max(rates.prices.values(), default=ZERO)
