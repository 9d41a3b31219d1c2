"""The bucket per key."""

from talktime_gateway.limits import KeyLimits


def test_a_burst_passes_then_the_steady_rate() -> None:
    limits = KeyLimits(rate=2, burst=3)
    assert [limits.take("k", 0.0) for _ in range(3)] == [0, 0, 0]
    assert limits.take("k", 0.0) == 0.5
    assert limits.take("k", 0.5) == 0
    assert limits.take("k", 0.5) > 0


def test_keys_do_not_share() -> None:
    limits = KeyLimits(rate=1, burst=1)
    assert limits.take("a", 0.0) == 0
    assert limits.take("b", 0.0) == 0
    assert limits.take("a", 0.0) == 1.0


def test_a_clock_that_steps_back_gives_nothing_for_free() -> None:
    limits = KeyLimits(rate=1, burst=1)
    assert limits.take("a", 100.0) == 0
    assert limits.take("a", 50.0) > 0


def test_idle_keys_are_forgotten() -> None:
    limits = KeyLimits(rate=1, burst=1)
    for n in range(10_001):
        limits.take(str(n), 0.0)
    limits.take("late", 1000.0)
    assert len(limits._buckets) < 10
