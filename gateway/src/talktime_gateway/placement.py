"""Which SFU node takes a new room. Pure; the node list is the operator's, time is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum

from talktime_ledger.wire import NodeState, PoolNode

TAKING = (NodeState.READY, NodeState.UNKNOWN)
"""Node states that may take rooms. Unknown is not sick: it stays in use, after the Ready ones (law 6)."""


class No(Enum):
    """Why no node was chosen."""

    FULL = "PoolFull"
    NONE = "NoNode"


@dataclass(frozen=True)
class Choice:
    """A node id, or empty: LiveKit shall choose, because the operator does not know the nodes or their ids yet."""

    node_id: str


def choose(nodes: Sequence[PoolNode], placed: Mapping[str, int], failed: Set[str], capacity: int) -> Choice | No:
    """The Ready node with the fewest rooms, counting those ``placed`` since the operator last counted.

    Nodes in ``failed`` (they refused a room moments ago) come last. ``capacity`` is rooms per node.
    """
    if not nodes:
        return Choice("")
    taking = [node for node in nodes if node.state in TAKING]
    if not taking:
        return No.NONE
    taking = [node for node in taking if node.nodeID]
    if not taking:
        return Choice("")
    free = [node for node in taking if node.rooms + placed.get(node.nodeID, 0) < capacity]
    if not free:
        return No.FULL

    def rank(node: PoolNode) -> tuple[bool, int, int, str]:
        load = node.rooms + placed.get(node.nodeID, 0)
        return node.nodeID in failed, TAKING.index(node.state), load, node.nodeID

    return Choice(min(free, key=rank).nodeID)


class Recent:
    """Rooms this replica placed, and nodes that failed it, in the last ``window`` seconds (monotonic)."""

    def __init__(self, window: float = 15.0) -> None:
        self._window = window
        self._placed: deque[tuple[float, str]] = deque()
        self._failed: dict[str, float] = {}

    def place(self, node_id: str, now: float) -> None:
        """A room was created on the node."""
        self._placed.append((now, node_id))

    def fail(self, node_id: str, now: float) -> None:
        """The node did not take a room."""
        self._failed[node_id] = now

    def placed(self, now: float) -> dict[str, int]:
        """Rooms placed per node id within the window."""
        while self._placed and now - self._placed[0][0] > self._window:
            self._placed.popleft()
        counts: dict[str, int] = {}
        for _, node_id in self._placed:
            counts[node_id] = counts.get(node_id, 0) + 1
        return counts

    def failed(self, now: float) -> frozenset[str]:
        """Node ids that failed within the window."""
        self._failed = {node: at for node, at in self._failed.items() if now - at <= self._window}
        return frozenset(self._failed)
