"""Node choice: fewest rooms among the healthy, counting what was just placed."""

from typing import Literal

import pytest
from talktime_gateway.placement import Choice, No, Recent, choose, sides
from talktime_ledger.wire import NodeState, PoolNode, PoolPush


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


def test_without_a_cap_the_emptiest_node_takes_one_more() -> None:
    assert choose([Node("a", 700), Node("b", 600)], {}, set()) == Choice("b")


def test_a_burst_spreads_over_nodes_before_the_operator_counts_again() -> None:
    nodes, recent = [Node("a"), Node("b"), Node("c")], Recent(window=15)
    for second in range(9):
        choice = choose(nodes, recent.placed(second), recent.failed(second), capacity=10)
        assert isinstance(choice, Choice)
        recent.place(choice.node_id, second)
    assert recent.placed(9) == {"a": 3, "b": 3, "c": 3}
    assert recent.placed(100) == {}


def test_a_failure_is_forgiven_soon_so_that_operator_and_gateway_agree_within_ten_seconds() -> None:
    recent = Recent()
    recent.fail("a", 0)
    assert recent.failed(5) == {"a"}
    assert recent.failed(7) == frozenset()


OWN, NONE, FULL = Choice("a"), No.NONE, No.FULL


@pytest.mark.parametrize(
    ("active", "mode", "health", "own", "own_failed", "second", "second_failed", "expected"),
    [
        # the operator says: the pool's own nodes
        ("SelfHosted", "Auto", "good", OWN, False, False, False, ["own"]),
        ("SelfHosted", "Auto", "good", OWN, False, True, False, ["own", "fallback"]),
        ("SelfHosted", "Auto", "unknown", OWN, False, True, False, ["own", "fallback"]),
        ("SelfHosted", "Auto", "good", OWN, True, True, False, ["fallback", "own"]),
        ("SelfHosted", "Auto", "good", OWN, True, True, True, ["own", "fallback"]),
        ("SelfHosted", "Auto", "bad", NONE, False, True, False, ["fallback"]),
        ("SelfHosted", "Auto", "bad", NONE, False, False, False, ["own"]),
        ("SelfHosted", "Auto", "good", FULL, False, True, False, ["own"]),
        # the operator says: the fallback
        ("Fallback", "Auto", "bad", OWN, False, True, False, ["fallback"]),
        ("Fallback", "Auto", "unknown", OWN, False, True, True, ["fallback"]),
        ("Fallback", "Auto", "good", OWN, False, True, False, ["fallback", "own"]),
        ("Fallback", "Auto", "good", OWN, False, True, True, ["own", "fallback"]),
        ("Fallback", "Auto", "good", OWN, True, True, True, ["fallback", "own"]),
        ("Fallback", "Auto", "good", NONE, False, True, True, ["fallback"]),
        ("Fallback", "Force", "good", OWN, False, True, True, ["fallback"]),
        ("Fallback", "Auto", "good", OWN, False, False, False, ["own"]),
    ],
)
def test_own_nodes_or_the_fallback(
    active: Literal["SelfHosted", "Fallback"],
    mode: Literal["Auto", "Force"],
    health: Literal["good", "bad", "unknown"],
    own: Choice | No,
    own_failed: bool,
    second: bool,
    second_failed: bool,
    expected: list[str],
) -> None:
    pool = PoolPush(publicURL="w", internalURL="w", active=active, health=health, fallbackMode=mode)
    assert sides(pool, own, own_failed, second, second_failed) == expected
