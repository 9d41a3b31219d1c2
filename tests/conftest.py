"""What all tests share: real sessions over WebRTC take turns on this machine, and have a second go (ADR 8)."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent
LOCK = Path(tempfile.gettempdir()) / "talktime-real-sessions.lock"
"""The same file as the demo's (hack/demo): two cores carry about four sessions, whoever holds them."""

A_LAW = (
    r"(?i)usd|\$|cost|budget|posted|billed|counted|reserved|unmetered|(audio|text)_|Decimal"
    r"|hard|wrap_up|closing|reason|epoch|double|lost|twice"
)
"""In the words of a failure that no second go excuses: money, tokens, limits, why a session ended, who was there."""

# How long an example takes says nothing beside other tests on two cores.
settings.register_profile(
    "shared-machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared-machine")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, one part's tests stay on one worker: its servers, or the cluster, start once."""
    for item in items:
        kind, *rest = item.path.relative_to(ROOT).parts
        part = rest[0] if kind == "integration" else kind
        item.add_marker(pytest.mark.xdist_group(part))
        if kind == "e2e" or item.get_closest_marker("real_session"):
            item.add_marker(pytest.mark.flaky(reruns=1, rerun_except=[A_LAW]))


@pytest.hookimpl(tryfirst=True)  # before the fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A second go of a journey holds it anew: what its module keeps would only show the first one again."""
    if held_again(item) and isinstance(item, pytest.Function):
        for fixture in chain.from_iterable(item._fixtureinfo.name2fixturedefs.values()):
            if fixture.scope == "module":
                # What pytest itself does at the module's end; whatever was made of this one goes first.
                fixture.finish(item._request)


def held_again(item: pytest.Item) -> bool:
    """Whether this is a journey's second go, as pytest-rerunfailures counts them."""
    return item.path.is_relative_to(ROOT / "e2e") and getattr(item, "execution_count", 1) > 1


@pytest.fixture(autouse=True)
def _one_at_a_time(request: pytest.FixtureRequest) -> None:
    """A test marked `real_session` waits for the machine's other real sessions to end."""
    if request.node.get_closest_marker("real_session"):
        request.getfixturevalue("real_sessions")


@pytest.fixture
def real_sessions() -> Iterator[None]:
    """Holds the machine-wide lock of real sessions for one test."""
    with locked_real_sessions():
        yield


@contextlib.contextmanager
def locked_real_sessions() -> Iterator[None]:
    """The machine-wide lock of real sessions, waited for."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
