"""Hours that nodes had their machines in a month."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_operator.pools.node_hours import NodeHours, begin, count


def at(day: int, hour: int = 0, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before", "nodes", "created", "now", "after"),
    [
        (None, 2, None, at(11), NodeHours(2, at(1))),  # what was before is not known: as it is found
        (None, 2, at(5), at(11), NodeHours(2, at(5))),
        (NodeHours(2, at(1)), 2, None, at(11), NodeHours(2, at(1))),
        (NodeHours(2, at(1)), 3, None, at(2), NodeHours(3, at(2), Decimal(48))),
        (NodeHours(3, at(2), Decimal(48)), 0, None, at(2, 10), NodeHours(0, at(2, 10), Decimal(78))),
        # another month: those that were there are there from its beginning
        (NodeHours(3, at(2), Decimal(48)), 3, None, at(1, 5, month=12), NodeHours(3, at(1, month=12))),
        (NodeHours(3, at(2), Decimal(48)), 1, None, at(1, 5, month=12), NodeHours(1, at(1, 5, 12), Decimal(15))),
    ],
)
def test_a_change_of_their_number_leaves_the_hours_until_then(
    before: NodeHours | None, nodes: int, created: datetime | None, now: datetime, after: NodeHours
) -> None:
    assert count(before, nodes, created, now) == after


def test_it_survives_an_operator_restart() -> None:
    kept = NodeHours(3, at(2), Decimal("48.5"))
    assert NodeHours.parse(kept.render()) == kept
    assert NodeHours.parse({}) is None
    assert NodeHours.parse({"nodes": 1, "since": "soon", "hours": "x"}) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 100)), min_size=1, max_size=20))
def test_the_average_is_between_the_least_and_the_most(steps: list[tuple[int, int]]) -> None:
    now, held = at(1), NodeHours(steps[0][0], at(1))
    for nodes, hours in steps:
        held = count(held, nodes, None, now)
        now = datetime.fromtimestamp(now.timestamp() + hours * 720, tz=UTC)
    seen = [nodes for nodes, _ in steps]
    assert min(seen) <= held.average(begin(None, now), now) <= max(seen)
