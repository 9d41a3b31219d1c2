"""How long a connection to a room lasted, and how many of its seconds are billed. Pure.

Three things are learned of a connection, in any order and more than once: it was seen to last `seen` seconds (polling
LiveKit, a lower bound), it was known to be over `gone` seconds after its join (polling too, an upper bound), and it
left after exactly `left` seconds (a signed webhook). Between `seen` and `gone` nobody looked: that time is *lost*. It
is billed by LiveKit all the same, so it is posted at its bound as unmetered, until the webhook tells the exact time.

LiveKit Cloud rounds each connection up to a whole minute (docs.livekit.io/deploy/admin/billing); an own SFU costs its
seconds. Examples, billed seconds of one connection:

==============  ===========  =====
lasted          self-hosted  Cloud
==============  ===========  =====
0 s (it joined)           0     60
10 s                     10     60
60 s                     60     60
61 s                     61    120
==============  ===========  =====

So a participant who loses the connection after 50 s and is back for 10 s costs 60 s on an own SFU, 120 s on Cloud.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MINUTE = 60


@dataclass(frozen=True, slots=True)
class Connection:
    """What is known of one connection; whole seconds since its join. `cloud`: it is one to LiveKit Cloud."""

    seen: int = 0
    gone: int | None = None
    left: int | None = None
    cloud: bool = False

    @property
    def lasted(self) -> int:
        """Seconds that are known for sure. Never falls, whatever else is learned."""
        return max(self.seen, self.left or 0)

    @property
    def metered(self) -> int:
        """Billed seconds of what is known for sure."""
        return billed(self.lasted, cloud=self.cloud)

    @property
    def lost(self) -> int:
        """Billed seconds, at most, of the time in which nobody looked; 0 once the leave was told."""
        if self.left is not None or self.gone is None:
            return 0
        return max(0, billed(self.gone, cloud=self.cloud) - self.metered)


def billed(seconds: int, *, cloud: bool) -> int:
    """What a connection of so many seconds is billed: all of them, on Cloud the begun minute in full."""
    return max(1, -(-seconds // MINUTE)) * MINUTE if cloud else seconds


def merged(one: Connection, other: Connection) -> Connection:
    """Both together: the longest sighting, the earliest absence, the latest leave.

    An absence before a sighting was none (a list that missed somebody), so it is dropped. The medium is the one of
    `one`: a connection does not move.
    """
    seen = max(one.seen, other.seen)
    gone = min((gone for gone in (one.gone, other.gone) if gone is not None and gone >= seen), default=None)
    left = max((left for left in (one.left, other.left) if left is not None), default=None)
    return Connection(seen, gone, left, one.cloud)


def metered(connections: Iterable[Connection], *, cloud: bool) -> int:
    """Billed seconds of all connections to one medium, as far as they are known for sure."""
    return sum(c.metered for c in connections if c.cloud == cloud)
