"""A participant asks again: back into the room, wait, or go on elsewhere. Pure; times are monotonic seconds.

What a client says about its connection decides nothing; what the gateway sees and the operator says does. One silent
look decides nothing: a livekit-server that is restarted at once keeps its sessions. So the gateway looks again before
it answers, rather than to let somebody who hears nothing ask again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from talktime_ledger.wire import DirectoryPool, NodeState

UNREACHABLE_SEC = 3.0
"""The room's LiveKit did not answer for so long: its room is lost, if there is another place for it. Who asks does so
3 s after the connection broke; a kubelet has a killed livekit-server answering again 2 s after its death, later on a
loaded machine. Every further second is one of silence for those whose server stays down."""

TOLD_SEC = 1.0
"""The same, where the operator says that it is lost: its third bad round may come in the very moment in which a server
that was restarted at once answers again."""

MISSING_SEC = 4.0
"""The LiveKit answers and the room is not there: after a restart its clients bring it back within this."""

AGAIN_SEC = 0.5
"""Between two looks within one request."""

HELD_SEC = 3.0
"""Who hears nothing in a room that is there is answered after so long at the most: the operator knows of UDP that is
lost 2 to 3 s after it, and a connection that is not yet known to be lost is worth waiting on."""

HELD_AGAIN_SEC = 0.25

MEMORY_SEC = 60.0

LAPSE_SEC = 4.0
"""A LiveKit nobody looked at for so long may have answered meanwhile: its silence begins anew."""


class Way(Enum):
    """What the participant is told."""

    HERE = auto()
    WAIT = auto()
    MOVE = auto()


@dataclass(frozen=True)
class Look:
    """``exists``: the room, None when its LiveKit did not answer; ``for_sec``: for how long (0 when it exists).

    ``cut``: its node is being emptied, or was a moment ago; ``sick``: the operator says so of its node; ``pool_down``:
    of the whole pool; ``elsewhere``: the next room would be made on another LiveKit or node.
    """

    exists: bool | None
    for_sec: float
    cut: bool
    sick: bool
    pool_down: bool
    elsewhere: bool


def way(look: Look) -> Way:
    """A room that is there is gone back to, unless its node is known to be lost: Redis remembers dead nodes' rooms."""
    lost = look.cut or look.sick
    if look.exists:
        return Way.MOVE if lost and look.elsewhere else Way.HERE
    if look.exists is False:
        return Way.MOVE if lost or look.for_sec >= MISSING_SEC else Way.WAIT
    if not look.elsewhere:
        return Way.WAIT
    return Way.MOVE if look.cut or look.for_sec >= silence_sec(look) else Way.WAIT


def silence_sec(look: Look) -> float:
    """How long the room's LiveKit must have been silent."""
    return TOLD_SEC if look.sick or look.pool_down else UNREACHABLE_SEC


def again_in(look: Look, held_sec: float | None = None) -> float:
    """Seconds until another look within the same request may decide otherwise; 0: answer what is known.

    A silence that is still too young is waited for: a room that comes back needs longer than a request may take.
    ``held_sec``: for how long somebody has been held who hears nothing; None: the connection is lost, so the room that
    is there is all there is to say.
    """
    if look.exists is None and look.elsewhere and way(look) is Way.WAIT:
        return min(AGAIN_SEC, silence_sec(look) - look.for_sec)
    if held_sec is not None and way(look) is Way.HERE:
        return max(0.0, min(HELD_AGAIN_SEC, HELD_SEC - held_sec))
    return 0.0


def sick(pool: DirectoryPool | None, node_id: str, *, answers: bool) -> bool:
    """Whether the operator says that the node is lost; a node nobody knows of is unknown.

    ``answers``: the room's LiveKit has just done so. Of a pool of one node that was the node, whose silence is over.
    """
    if pool is None:
        return False
    back = answers and len(pool.nodes) == 1
    return any(
        node.nodeID == node_id and node.state is NodeState.SICK and not (back and node.silent) for node in pool.nodes
    )


def pool_down(pool: DirectoryPool) -> bool:
    """Whether the operator says that none of its nodes serves anybody.

    That new rooms go to the fallback is no such word: they do so for a while after the nodes answer again, and by plan.
    A node that came back answers the operator some seconds before its Service leads to it.
    """
    return pool.active == "Fallback" and pool.health != "good"


class Missed:
    """Since when some rooms, LiveKits or dispatches were not found by this replica. Forgets what nobody asks for."""

    def __init__(self, memory_sec: float = MEMORY_SEC) -> None:
        self._memory_sec = memory_sec
        self._seen: dict[str, tuple[float, float]] = {}

    def note(self, name: str, found: bool, now: float) -> float:
        """One look; how long it has not been found."""
        self._seen = {key: seen for key, seen in self._seen.items() if now - seen[1] <= self._memory_sec}
        if found:
            self._seen.pop(name, None)
            return 0.0
        first = self._seen.get(name, (now, now))[0]
        self._seen[name] = (first, now)
        return now - first
