"""Divides an amount so that the parts add up to it exactly: pro rata, the rest by largest remainder."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import TypeVar

from talktime_ledger.core.money import USD_QUANTUM, ZERO

K = TypeVar("K")


def shares(total: Decimal, weights: Mapping[K, Decimal | int]) -> dict[K, Decimal]:
    """Parts of `total` (USD, a multiple of 1e-9) by weights >= 0, each a multiple of 1e-9, their sum exactly `total`.

    The quanta that rounding down leaves over go one each to the largest remainders (first key first among equals), the
    method of Hamilton. ValueError when something is to be divided and no weight is above 0.
    Example: 0.000000010 by {a: 1, b: 1, c: 1} = 0.000000004, 0.000000003, 0.000000003.
    """
    quanta = int(abs(total) / USD_QUANTUM)
    if Decimal(quanta) * USD_QUANTUM != abs(total):
        raise ValueError(f"{total} is no multiple of {USD_QUANTUM}")
    sign = -1 if total < 0 else 1
    whole = sum((Fraction(weight) for weight in weights.values()), Fraction(0))
    if quanta == 0:
        return dict.fromkeys(weights, ZERO)
    if whole <= 0:
        raise ValueError("nobody to divide among")
    floors, remainders = {}, []
    for order, (key, weight) in enumerate(weights.items()):
        floor, rest = divmod(quanta * Fraction(weight), whole)
        floors[key] = int(floor)
        remainders.append((-rest, order, key))
    for _, _, key in sorted(remainders, key=lambda one: one[:2])[: quanta - sum(floors.values())]:
        floors[key] += 1
    return {key: sign * count * USD_QUANTUM for key, count in floors.items()}


def changes(wanted: Mapping[K, Decimal], posted: Mapping[K, Decimal]) -> dict[K, Decimal]:
    """What to post so that everybody has what is wanted; who has something and is to have nothing gives it all back.

    Example: wanted {a: 3, b: 1}, posted {a: 2, c: 1} = a: 1, b: 1, c: -1.
    """
    more = {key: amount - posted.get(key, ZERO) for key, amount in wanted.items()}
    return more | {key: -amount for key, amount in posted.items() if key not in wanted and amount}
