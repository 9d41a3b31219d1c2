"""What is asked of a pool's livekit-servers, and what one of them answered."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from talktime_ledger.resources.pool import Ports

from talktime_operator.media_watch import INTERVAL as MEDIA_INTERVAL
from talktime_operator.names import Key
from talktime_operator.observed import Pod
from talktime_operator.pools.health import Answer
from talktime_operator.redis_probe import RedisAt
from talktime_operator.sfu_probe import LiveKitAt

SIGNAL = {"service": "Signal", "method": "RelaySignal", "role": "client"}


@dataclass(frozen=True)
class Target:
    """One pod and how it is to be judged. `takes`: new rooms may go there (it does not drain)."""

    pod: Pod
    pool: Key
    ports: Ports
    failure_threshold: int
    takes: bool = True

    @property
    def takes_rooms(self) -> bool:
        """And it is not about to end."""
        return self.takes and self.pod.live


@dataclass(frozen=True)
class PoolTarget:
    """One pool. `interval` in seconds; `keys`: API key and secret, None while not known; `proven`: it was good before
    this operator came; `media_interval`: seconds between two looks at a media path that is good."""

    key: Key
    nodes: tuple[Target, ...]
    interval: float
    failure_threshold: int
    keys: tuple[str, str] | None = None
    redis: RedisAt | None = None
    fallback: LiveKitAt | None = None
    proven: bool = False
    media: bool = False
    media_proven: bool = False
    media_interval: float = MEDIA_INTERVAL


@dataclass(frozen=True)
class Reading:
    """One node's answer. `looks`: as how many rounds it counts; where UDP is lost, as many as just saw that."""

    answer: Answer
    node_id: str = ""
    rooms: int | None = None
    signals: int = 0
    looks: int = 1


def parse_metrics(text: str) -> tuple[str, int | None, int]:
    """(node id, rooms, clients' signal connections) of livekit-server's metrics; rooms None when the gauge is missing.

    A signal connection is a stream from the node that the client came to, to the node of its room, be that the same.
    """
    node_id, rooms, signals = "", None, 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            node_id = node_id or sample.labels.get("node_id", "")
            if sample.name == "livekit_room_total":
                rooms = (rooms or 0) + int(sample.value)
            if sample.name == "livekit_psrpc_stream_count" and sample.labels.items() >= SIGNAL.items():
                signals += int(sample.value)
    return node_id, rooms, signals
