"""Which LiveKit, and which of its nodes, takes a new room. Pure; what is known of them is the operator's word."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from talktime_ledger.wire import NodeState, PoolNode, PoolPush

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


def choose(
    nodes: Sequence[PoolNode], placed: Mapping[str, int], failed: Set[str], capacity: int | None = None
) -> Choice | No:
    """The Ready node with the fewest rooms, counting those ``placed`` since the operator last counted.

    Nodes in ``failed`` (they refused a room moments ago) come last. ``capacity``: rooms per node, None for any
    number.
    """
    if not nodes:
        return Choice("")
    taking = [node for node in nodes if node.state in TAKING]
    if not taking:
        return No.NONE
    taking = [node for node in taking if node.nodeID]
    if not taking:
        return Choice("")
    free = [node for node in taking if capacity is None or node.rooms + placed.get(node.nodeID, 0) < capacity]
    if not free:
        return No.FULL

    def rank(node: PoolNode) -> tuple[bool, int, int, str]:
        load = node.rooms + placed.get(node.nodeID, 0)
        return node.nodeID in failed, TAKING.index(node.state), load, node.nodeID

    return Choice(min(free, key=rank).nodeID)


Side = Literal["own", "fallback"]


def sides(pool: PoolPush, own: Choice | No, own_failed: bool, fallback: bool, fallback_failed: bool) -> list[Side]:
    """Where a new room is tried, in this order: a pool's own nodes, its fallback.

    The operator's word (``pool.active``) comes first; what failed this replica moments ago comes last. ``own``: what
    the nodes offer; ``fallback``: there is one, with keys. A full pool stays a full pool: the fallback is for failures.
    A planned switch (Force) leaves the nodes alone.
    """
    offers = isinstance(own, Choice)
    if not fallback:
        return ["own"]
    if pool.active == "Fallback":
        if pool.fallbackMode == "Force" or pool.health != "good" or not offers:
            return ["fallback"]
        return ["own", "fallback"] if fallback_failed and not own_failed else ["fallback", "own"]
    if own is No.FULL:
        return ["own"]
    if not offers:
        return ["fallback"]
    return ["fallback", "own"] if own_failed and not fallback_failed else ["own", "fallback"]


class Recent:
    """Rooms this replica placed in the last ``window`` seconds (monotonic), and what failed it in the last ``forgive``.

    The operator and a gateway that fell back by itself agree again after ``forgive`` and one look at the directory.
    """

    def __init__(self, window: float = 15.0, forgive: float = 6.0) -> None:
        self._window = window
        self._forgive = forgive
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
        """What failed and is not forgiven yet."""
        self._failed = {node: at for node, at in self._failed.items() if now - at <= self._forgive}
        return frozenset(self._failed)
