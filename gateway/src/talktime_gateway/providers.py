"""Which provider a new session talks to: lowest tier first, by weight inside a tier. Pure; randomness is passed in."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from random import Random
from typing import Protocol, TypeVar


class Weighted(Protocol):
    """A provider as the directory knows it."""

    @property
    def weight(self) -> int: ...
    @property
    def tier(self) -> int: ...


P = TypeVar("P", bound=Weighted)


def order(providers: Iterable[P], random: Random) -> list[P]:
    """Providers in the order to try: tiers ascending, inside a tier a weighted draw without replacement.

    Weight 0 takes no new sessions. Over many calls the first of a tier is chosen in proportion to the weights.
    """
    offered = sorted((p for p in providers if p.weight > 0), key=lambda p: p.tier)
    result: list[P] = []
    for _, tier in groupby(offered, key=lambda p: p.tier):
        left = list(tier)
        while left:
            drawn = random.choices(left, weights=[p.weight for p in left])[0]
            left.remove(drawn)
            result.append(drawn)
    return result
