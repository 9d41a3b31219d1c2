"""What nodes of our own cost beside what was charged for them: the worked example and its edges."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from talktime_console import files
from talktime_console.economics import Nodes
from talktime_console.own_nodes import own_nodes, own_nodes_table
from talktime_ledger.core.rates import RateBook, RateSnapshot
from talktime_ledger.wire import TransportRow

NODES = Nodes(price=Decimal(70), sessions_per_node=100)


def rates() -> RateSnapshot:
    cards = tuple(files.rate_cards([]))
    return RateBook(cards).snapshot("selfhosted", "participant", datetime(2026, 11, 22, tzinfo=UTC))


def row(**changes: Any) -> TransportRow:
    base: dict[str, Any] = {
        "pool": "eu", "sessions": 900, "talk_sec": 3_000_000, "peak_sessions": 150, "connections": 1800,
        "participant_seconds": 6_600_000, "selfhosted_seconds": 6_000_000, "begun_minutes": 111_000,
        "selfhosted_begun_minutes": 101_000,
    }  # fmt: skip
    return TransportRow.model_validate(base | changes)


def test_the_worked_example() -> None:
    (told,) = own_nodes_table(own_nodes([row()], NODES, rates())).records()
    assert told == {
        "pool": "eu", "participant_minutes": 100_000, "nodes": 2, "nodes_usd": "140.00", "used_usd": "4.00",
        "idle_usd": "136.00", "per_minute_usd": "0.001400",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "nodes"),
    [
        ({"peak_sessions": 1}, 1),
        ({"peak_sessions": 100}, 1),
        ({"peak_sessions": 101}, 2),
        ({"peak_sessions": 1, "selfhosted_egress_bytes": 25 * 10**12}, 3),
    ],
)
def test_nodes_are_what_the_peak_and_the_traffic_need(changes: dict[str, int], nodes: int) -> None:
    (found,) = own_nodes([row(**changes)], NODES, rates())
    assert found.nodes == nodes
    assert found.cost == nodes * 70


def test_a_pool_that_nobody_used_is_left_out_and_without_a_card_nothing_is_called_used() -> None:
    (found,) = own_nodes([row(), row(pool="us", selfhosted_seconds=0)], NODES, None)
    assert (found.pool, found.used, found.idle) == ("eu", None, None)
    assert found.per_minute > 0
