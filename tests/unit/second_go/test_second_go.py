"""Which failures of a real session are asked once more, and what a second go holds anew (docs/adr/0008)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import A_LAW
from tests.conftest import __file__ as conftest

JOURNEY = """
import pytest

held = []

@pytest.fixture(scope="module")
def journey():
    held.append("held")
    yield len(held)
    held.append("cleared")

def test_first_look(journey):
    assert journey == 1

def test_it_was_late_the_first_time(journey):
    assert journey > 1

def test_later_looks_see_the_second_one(journey):
    assert held == ["held", "cleared", "held"]
"""


@pytest.mark.parametrize(
    "failure",
    [
        "AssertionError: assert Decimal('0.0712') <= Decimal('0.07')",
        "AssertionError: assert {'audio_out': 310} == {'audio_out': 311}",
        "AssertionError: ours 0.1541 USD, the checker 0.1540 USD",
        "AssertionError: double_agents: 1",
        "AssertionError: assert not re.search('cost|budget', '...costs 3 dollars...')",
        "AssertionError: assert 'agent_error' == 'participant_left'\n + where 'agent_error' = Close(...).reason",
        "AssertionError: assert 2 == 1\n + where 2 = sum(row['wrap_up'] for row in asked)",
        "AssertionError: assert 0.05 == 0\n +  where 0.05 = Account(...).reserved",
    ],
)
def test_a_broken_law_has_no_second_go(failure: str) -> None:
    assert re.search(A_LAW, failure)


@pytest.mark.parametrize(
    "failure",
    [
        "TimeoutError: ",
        "AssertionError: not within 120 s: the agent pod is ready",
        "ConnectError: engine: signal failure: ws failure",
        "AssertionError: assert ['the agent was never heard'] == []",
    ],
)
def test_what_a_busy_machine_shows_has_one(failure: str) -> None:
    assert not re.search(A_LAW, failure)


def test_a_second_go_of_a_journey_holds_it_anew_and_once(tmp_path: Path) -> None:
    shutil.copy(conftest, tmp_path / "conftest.py")
    (tmp_path / "e2e").mkdir()
    (tmp_path / "e2e" / "test_journey.py").write_text(JOURNEY)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "3 passed, 1 rerun" in done.stdout, done.stdout
