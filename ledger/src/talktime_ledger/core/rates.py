"""Rate cards: effective-dated prices per vendor and model. Missing is not zero: who asks for it is refused (law 4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO


class PriceUnknown(LookupError):  # noqa: N818 - named like the reason on the wire
    """No price for this model, time or meter. The text says which."""


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens (or per million seconds/bytes; a per-minute price p is p / 60 x 1e6)."""

    usd_per_million: Decimal


@dataclass(frozen=True, slots=True)
class SameAs:
    """Priced like another meter of the same entry."""

    meter: Meter


@dataclass(frozen=True, slots=True)
class Free:
    """The vendor bills nothing for it: a price of zero, stated."""


@dataclass(frozen=True, slots=True)
class Absent:
    """The vendor has no such meter for this model; counting one is a surprise, not a zero."""


Term = Price | SameAs | Free | Absent


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a provider account gets of a meter without charge per `Day` or `Month` (UTC), in the meter's unit.

    It is the account's, not a session's: a session is priced without it (which session got the free part?).
    """

    quantity: int
    per: str


@dataclass(frozen=True, slots=True)
class RateEntry:
    """Prices valid from `effective_from` until the next entry of the same model."""

    effective_from: datetime
    terms: Mapping[Meter, Term]
    source: str = ""
    checked_at: str = ""
    historic: str = ""
    allowances: Mapping[Meter, Allowance] = field(default_factory=dict)
    monthly_fee: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class RateCard:
    """All entries of one exact model of one vendor (`openai`, `google`, `livekit`, `selfhosted`)."""

    name: str
    vendor: str
    model: str
    entries: tuple[RateEntry, ...]

    def entry_at(self, at: datetime) -> RateEntry:
        """The entry in force at a time; PriceUnknown before the first."""
        past = [entry for entry in self.entries if entry.effective_from <= at]
        if not past:
            raise PriceUnknown(
                f"rate card {self.name}: no entry of {self.vendor}/{self.model} in force at {at.isoformat()}"
            )
        return max(past, key=lambda entry: entry.effective_from)


@dataclass(frozen=True, slots=True)
class RateSnapshot:
    """What one model cost at one time, resolved: USD per million by meter. A meter not in `prices` has no price;
    `absent`: the card says so itself.
    """

    card: str
    vendor: str
    model: str
    effective_from: datetime
    prices: Mapping[Meter, Decimal]
    source: str = ""
    free: frozenset[Meter] = field(default_factory=frozenset)
    absent: frozenset[Meter] = field(default_factory=frozenset)

    def price(self, meter: Meter) -> Decimal:
        """USD per million; PriceUnknown when the card has no such meter."""
        if meter not in self.prices:
            raise PriceUnknown(f"rate card {self.card}: {self.vendor}/{self.model} has no price for {meter}")
        return self.prices[meter]

    def dearest(self, meters: Iterable[Meter]) -> Decimal:
        """The highest price among those of `meters` that the card has; PriceUnknown when it has none."""
        found = [self.prices[meter] for meter in meters if meter in self.prices]
        if not found:
            raise PriceUnknown(f"rate card {self.card}: {self.vendor}/{self.model} has none of {sorted(set(meters))}")
        return max(found)


def resolve(card: RateCard, entry: RateEntry) -> RateSnapshot:
    """Follows `sameAs` (chains too); PriceUnknown for a circle or a reference to an absent meter."""
    prices: dict[Meter, Decimal] = {}
    for meter, start in entry.terms.items():
        if isinstance(start, Absent):
            continue
        term: Term = start
        seen = {meter}
        while isinstance(term, SameAs):
            if term.meter in seen or term.meter not in entry.terms:
                raise PriceUnknown(f"rate card {card.name}: {meter} is sameAs {term.meter}, which has no price")
            seen.add(term.meter)
            term = entry.terms[term.meter]
        if isinstance(term, Absent):
            raise PriceUnknown(f"rate card {card.name}: {meter} is sameAs an absent meter")
        prices[meter] = ZERO if isinstance(term, Free) else term.usd_per_million
    free = frozenset(meter for meter, term in entry.terms.items() if isinstance(term, Free))
    absent = frozenset(meter for meter, term in entry.terms.items() if isinstance(term, Absent))
    return RateSnapshot(card.name, card.vendor, card.model, entry.effective_from, prices, entry.source, free, absent)


@dataclass(frozen=True, slots=True)
class RateBook:
    """All cards known at one moment."""

    cards: tuple[RateCard, ...] = ()

    def snapshot(self, vendor: str, model: str, at: datetime) -> RateSnapshot:
        """The price of an exact model at a time, over all cards that carry it; PriceUnknown if none does."""
        return self.in_force(vendor, model, at)[1]

    def in_force(self, vendor: str, model: str, at: datetime) -> tuple[RateEntry, RateSnapshot]:
        """As `snapshot`, with the entry that it comes from."""
        cards = [card for card in self.cards if card.vendor == vendor and card.model == model]
        found: list[tuple[RateCard, RateEntry]] = []
        for card in cards:
            try:
                found.append((card, card.entry_at(at)))
            except PriceUnknown:
                continue
        if not found:
            known = "no entry in force yet" if cards else "no RateCard"
            raise PriceUnknown(f"{known} for {vendor}/{model} at {at.isoformat()}")
        card, entry = max(found, key=lambda pair: (pair[1].effective_from, pair[0].name))
        return entry, resolve(card, entry)

    def dearest(self, vendor: str, model: str, since: datetime, until: datetime) -> RateSnapshot:
        """What a model may cost at worst from `since` to `until`: a worst case holds over a rise that is already known.

        The snapshot in force at `since`, each meter at the highest price of any entry in force by `until`; PriceUnknown
        as in `snapshot`. Example: audio_out 20 today and 64 from noon on gives 64 to a session that opens at 11:30.
        """
        now = self.snapshot(vendor, model, since)
        turns = {
            entry.effective_from
            for card in self.cards
            if card.vendor == vendor and card.model == model
            for entry in card.entries
            if since < entry.effective_from <= until
        }
        coming = [self.snapshot(vendor, model, turn).prices for turn in turns]
        if not coming:
            return now
        every = [now.prices, *coming]
        prices = {meter: max(one[meter] for one in every if meter in one) for meter in set().union(*every)}
        return replace(now, prices=prices, free=frozenset(m for m in now.free if prices[m] == ZERO))
