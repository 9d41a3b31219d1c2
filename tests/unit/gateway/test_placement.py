"""Node choice: fewest rooms among the healthy, counting what was just placed."""

import pytest
from talktime_gateway.placement import Choice, No, Recent, choose
from talktime_ledger.wire import NodeState, PoolNode


def Node(node_id: str, rooms: int = 0, state: str = "Ready") -> PoolNode:  # noqa: N802 - reads as a table below
    return PoolNode(name=node_id, nodeID=node_id, rooms=rooms, state=NodeState(state))


@pytest.mark.parametrize(
    ("nodes", "placed", "failed", "expected"),
    [
        ([], {}, set(), Choice("")),
        ([Node("a", 3), Node("b", 1)], {}, set(), Choice("b")),
        ([Node("a", 3), Node("b", 1)], {"b": 3}, set(), Choice("a")),
        ([Node("a", 1), Node("b", 1)], {}, set(), Choice("a")),
        ([Node("a", 0, "Sick"), Node("b", 9)], {}, set(), Choice("b")),
        ([Node("a", 0, "Draining"), Node("b", 9)], {}, set(), Choice("b")),
        ([Node("a", 0, "Unknown"), Node("b", 9)], {}, set(), Choice("b")),
        ([Node("a", 0, "Unknown")], {}, set(), Choice("a")),
        ([Node("a", 0, "Sick"), Node("b", 0, "Draining")], {}, set(), No.NONE),
        ([Node("", 0)], {}, set(), Choice("")),
        ([Node("", 0), Node("b", 9)], {}, set(), Choice("b")),
        ([Node("", 0, "Sick")], {}, set(), No.NONE),
        ([Node("a", 10), Node("b", 9)], {"b": 1}, set(), No.FULL),
        ([Node("a", 0), Node("b", 5)], {}, {"a"}, Choice("b")),
        ([Node("a", 0)], {}, {"a"}, Choice("a")),
    ],
)
def test_choice(nodes: list[PoolNode], placed: dict[str, int], failed: set[str], expected: object) -> None:
    assert choose(nodes, placed, failed, capacity=10) == expected


def test_a_burst_spreads_over_nodes_before_the_operator_counts_again() -> None:
    nodes, recent = [Node("a"), Node("b"), Node("c")], Recent(window=15)
    for second in range(9):
        choice = choose(nodes, recent.placed(second), recent.failed(second), capacity=10)
        assert isinstance(choice, Choice)
        recent.place(choice.node_id, second)
    assert recent.placed(9) == {"a": 3, "b": 3, "c": 3}
    assert recent.placed(100) == {}


def test_a_failure_is_forgiven_after_the_window() -> None:
    recent = Recent(window=15)
    recent.fail("a", 0)
    assert recent.failed(10) == {"a"}
    assert recent.failed(16) == frozenset()
