"""Which failures of a real session are asked once more (docs/adr/0008)."""

from __future__ import annotations

import re

import pytest

from tests.conftest import A_LAW


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
