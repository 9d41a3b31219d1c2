"""What a bill says against what we posted, for one UTC day of one model: variances, and each session's correction.

The order is fixed: quantity variance at our rate, then price variance, then what rounding leaves (residual). More
tokens than we counted go first to what was posted `unmetered`, pro rata up to its bounds (there they were spent as far
as anybody can know), and the rest to the sessions of that day by the same meter. In the end every session has its share
of the bill, and the shares add up to the bill exactly.

Bills have fewer names than we have meters. A meter that the card prices like another and the bill does not name is
looked for under that other one (thoughts in text output); and what one meter has more and another has less is a token
under another name, not a surplus: only what all of them have more, in USD, goes to `unmetered`. A meter that a bill
does not name cost nothing; a usage report, which has no amounts, has no line for some, so there it stays as it is.

Worked example: two sessions with 600 and 400 audio_in counted at 10 per million (0.006, 0.004), one of them with
0.002 unmetered. The bill: 1,100 audio_in, 0.0121 USD (11 per million). Quantity: +100 x 10/M = 0.001, price: 0.0011.
The surplus of 100 tokens (0.0011 at the bill's price) goes to the unmetered one, its bound of 0.002 falls; the other
0.011 is divided 600 : 400.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Generic, TypeVar

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO, usd
from talktime_ledger.core.shares import shares

K = TypeVar("K")
ALERT_PERCENT = Decimal(1)


@dataclass(frozen=True, slots=True)
class Booked(Generic[K]):
    """What one session has on the books, USD. estimate: posted from usage and bounds; unmetered: the bounds in it;
    corrected: earlier corrections by bills; priced: what each meter's count costs at the rates of its time.
    """

    key: K
    counts: Mapping[Meter, int]
    priced: Mapping[Meter, Decimal]
    estimate: Decimal
    unmetered: Decimal = ZERO
    corrected: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Billed:
    """One meter on the bill: USD, and the count if the bill tells it. Without an amount (a usage report) our own rate
    prices the count: then there is a quantity variance and no price variance.
    """

    amount: Decimal | None
    quantity: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Variance:
    """Ours against theirs for one meter (None: the bill tells no meters). quantity_usd + price_usd = theirs - ours.
    theirs None: the bill tells no count.
    """

    meter: Meter | None
    ours: int
    theirs: Decimal | None
    ours_usd: Decimal
    theirs_usd: Decimal
    quantity_usd: Decimal
    price_usd: Decimal


@dataclass(frozen=True, slots=True)
class Settlement(Generic[K]):
    """The outcome, USD. billed - estimate = quantity + price variances - unmetered (bounds that fall) + residual (the
    rounding of single usages). corrections: to post now; shares: each session's part of the bill; unattributed: billed
    on a day without any session of ours, posted to nobody.
    """

    estimate: Decimal
    billed: Decimal
    variances: tuple[Variance, ...]
    unmetered: Decimal
    residual: Decimal
    corrections: Mapping[K, Decimal] = field(default_factory=dict)
    shares: Mapping[K, Decimal] = field(default_factory=dict)
    unattributed: Decimal = ZERO


def settle(
    booked: Sequence[Booked[K]],
    billed: Mapping[Meter | None, Billed],
    rates: Mapping[Meter, Decimal] | None = None,
    same: Mapping[Meter, Meter] | None = None,
) -> Settlement[K]:
    """Settles one day of one model. `rates`: USD per million for meters that none of our sessions counted; `same`: the
    meters that the card prices like another one (without circles).
    """
    report = all(one.amount is None for one in billed.values())
    if not report:
        booked = _folded(booked, billed, same or {})
    kept = frozenset(meter for one in booked for meter in one.counts if meter not in billed) if report else frozenset()
    estimate = sum((one.estimate for one in booked), ZERO)
    counted = sum((sum(one.priced.values(), ZERO) for one in booked), ZERO)
    variances = _variances(booked, billed, rates or {}, kept)
    total = sum((one.theirs_usd for one in variances), ZERO)
    unmetered = {one.key: one.unmetered for one in booked if one.unmetered > 0}
    bounds = sum(unmetered.values(), ZERO)
    residual = ZERO if None in billed else usd(counted + bounds - estimate)
    if not booked:
        return Settlement(estimate, total, tuple(variances), ZERO, ZERO, unattributed=total)
    parts = {one.key: ZERO for one in booked}
    absorbed = _absorbed(variances, bounds)
    for variance in variances:
        if variance.meter in kept:
            _add(parts, {one.key: _own(one, variance.meter) for one in booked})
            continue
        for_bounds = _surplus_share(variance, absorbed)
        if for_bounds:
            _add(parts, shares(for_bounds, unmetered))
        _add(parts, shares(usd(variance.theirs_usd) - for_bounds, _weights(booked, variance.meter)))
    corrections = {one.key: parts[one.key] - one.estimate - one.corrected for one in booked}
    told = ZERO if None in billed else bounds
    changed = {key: amount for key, amount in corrections.items() if amount}
    return Settlement(estimate, total, tuple(variances), told, residual, changed, parts)


def percent_of(estimate: Decimal, billed: Decimal) -> Decimal | None:
    """The estimate in percent of the bill, before any correction; None without a bill."""
    return Decimal(str(round(float(estimate / billed * 100), 4))) if billed else None


def off(estimate: Decimal, billed: Decimal) -> bool:
    """Whether an estimate and its bill are too far apart; an estimate of which nothing was billed is."""
    percent = percent_of(estimate, billed)
    return estimate > 0 if percent is None else abs(percent - 100) > ALERT_PERCENT


def _folded(
    booked: Sequence[Booked[K]], billed: Mapping[Meter | None, Billed], same: Mapping[Meter, Meter]
) -> list[Booked[K]]:
    """Counts of a meter that the bill does not name under the one it is priced like, if the bill names that."""
    names: dict[Meter, Meter] = {}
    for meter in Meter:
        target = meter
        while target not in billed and target in same:
            target = same[target]
        names[meter] = target if target in billed else meter
    found = []
    for one in booked:
        counts: dict[Meter, int] = {}
        priced: dict[Meter, Decimal] = {}
        for meter, count in one.counts.items():
            counts[names[meter]] = counts.get(names[meter], 0) + count
        for meter, amount in one.priced.items():
            priced[names[meter]] = priced.get(names[meter], ZERO) + amount
        found.append(replace(one, counts=counts, priced=priced))
    return found


def _variances(
    booked: Sequence[Booked[K]],
    billed: Mapping[Meter | None, Billed],
    rates: Mapping[Meter, Decimal],
    kept: Collection[Meter],
) -> list[Variance]:
    if None in billed:
        # One line for the whole model: nothing can be said of quantities.
        ours = sum((one.estimate for one in booked), ZERO)
        theirs = sum((one.amount or ZERO for one in billed.values()), ZERO)
        return [Variance(None, 0, None, ours, theirs, ZERO, usd(theirs - ours))]
    found = []
    meters = {meter for one in booked for meter in one.counts} | {meter for meter in billed if meter is not None}
    for meter in sorted(meters):
        count = sum(one.counts.get(meter, 0) for one in booked)
        if meter in kept:
            own = sum((_own(one, meter) for one in booked), ZERO)
            found.append(Variance(meter, count, None, own, own, ZERO, ZERO))
            continue
        ours = sum((one.priced.get(meter, ZERO) for one in booked), ZERO)
        bill = billed.get(meter, Billed(ZERO, Decimal(0)))
        rate = _rate(count, ours, rates.get(meter), bill)
        quantity = ZERO if bill.quantity is None else usd((bill.quantity - count) * rate)
        amount = usd(bill.amount if bill.amount is not None else (bill.quantity or ZERO) * rate)
        found.append(Variance(meter, count, bill.quantity, usd(ours), amount, quantity, usd(amount - ours - quantity)))
    return found


def _rate(count: int, ours: Decimal, card: Decimal | None, bill: Billed) -> Decimal:
    """USD per unit: what we paid on average that day, else the card's, else the bill's own."""
    if count:
        return ours / count
    if card is not None:
        return card / 1_000_000
    return bill.amount / bill.quantity if bill.quantity and bill.amount is not None else ZERO


def _own(one: Booked[K], meter: Meter | None) -> Decimal:
    """What a session's own count of a meter costs, USD."""
    return usd(one.priced.get(meter, ZERO)) if meter is not None else ZERO


def _absorbed(variances: Sequence[Variance], bounds: Decimal) -> Fraction:
    """The part of each surplus that goes to unmetered sessions: what is left of all of them after what others lack."""
    net = sum((one.quantity_usd for one in variances), ZERO)
    gains = sum((one.quantity_usd for one in variances if one.quantity_usd > 0), ZERO)
    return Fraction(min(net, bounds)) / Fraction(gains) if net > 0 else Fraction(0)


def _surplus_share(variance: Variance, absorbed: Fraction) -> Decimal:
    """The part of a meter's bill that goes to unmetered sessions: its surplus tokens at the bill's price."""
    if variance.quantity_usd <= 0 or not variance.theirs or not absorbed:
        return ZERO
    extra = Fraction(variance.theirs - variance.ours) / Fraction(variance.theirs)
    exact = Fraction(variance.theirs_usd) * extra * absorbed
    return usd(Decimal(exact.numerator) / Decimal(exact.denominator))


def _weights(booked: Sequence[Booked[K]], meter: Meter | None) -> dict[K, Decimal | int]:
    """By the meter's counts; when nobody counted it, by what each has posted; else alike."""
    choices: list[dict[K, Decimal | int]] = [
        {one.key: one.counts.get(meter, 0) for one in booked} if meter is not None else {},
        {one.key: max(ZERO, one.estimate) for one in booked},
        {one.key: 1 for one in booked},
    ]
    return next(weights for weights in choices if any(weight > 0 for weight in weights.values()))


def _add(parts: dict[K, Decimal], more: Mapping[K, Decimal]) -> None:
    for key, amount in more.items():
        parts[key] += amount
