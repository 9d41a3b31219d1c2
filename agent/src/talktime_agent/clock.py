"""The clock of one session: UTC for what is written down, seconds that never jump for what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Clock:
    """``wall`` tells UTC, ``monotonic`` seconds."""

    wall: Callable[[], datetime]
    monotonic: Callable[[], float]


def steady_seconds() -> float:
    """Seconds that never jump and count suspension too: a machine that slept comes back to a grant that has lapsed.

    CLOCK_MONOTONIC stands still while the machine is suspended, the ledger's clock does not.
    """
    return time.clock_gettime(_STEADY)


_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def session_clock(wall: Callable[[], datetime], steady: Callable[[], float]) -> Clock:
    """A clock for one session. The wall clock is read once and carried on by the steady one, so that a clock that is
    set meanwhile neither moves a usage to another price nor turns the order of events.
    """
    began, since = wall(), steady()
    return Clock(wall=lambda: began + timedelta(seconds=steady() - since), monotonic=steady)


def system_clock() -> Clock:
    """The machine's clocks, from now on."""
    return session_clock(lambda: datetime.now(UTC), steady_seconds)
