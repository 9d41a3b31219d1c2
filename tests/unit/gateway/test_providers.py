"""Provider order: tiers first, weights inside a tier."""

from collections import Counter
from dataclasses import dataclass
from random import Random

from talktime_gateway.providers import order


@dataclass(frozen=True)
class Provider:
    name: str
    weight: int = 1
    tier: int = 0


def test_lower_tiers_come_first_and_weight_zero_never() -> None:
    providers = [Provider("b", tier=1), Provider("off", weight=0), Provider("a")]
    assert [p.name for p in order(providers, Random(1))] == ["a", "b"]


def test_the_first_choice_follows_the_weights() -> None:
    providers = [Provider("three", 3), Provider("one", 1)]
    random = Random(7)
    firsts = Counter(order(providers, random)[0].name for _ in range(4000))
    assert 0.72 < firsts["three"] / 4000 < 0.78


def test_each_provider_is_tried_once() -> None:
    providers = [Provider(str(i), weight=i) for i in range(1, 6)]
    assert sorted(p.name for p in order(providers, Random(3))) == ["1", "2", "3", "4", "5"]


def test_nothing_offered_is_nothing_to_try() -> None:
    assert order([Provider("off", weight=0)], Random(1)) == []
