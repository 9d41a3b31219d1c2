"""Waiting for what an operator in a process of its own does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(what: Callable[[], T], seconds: float = 240.0) -> T:
    """The first truthy answer. AssertionError when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.1)
    return answer
