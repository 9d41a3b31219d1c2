"""Health of SFU nodes: one shared round over `/` and the Prometheus metrics of every livekit-server pod."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families
from talktime_ledger.resources.pool import Ports

from talktime_operator.names import Key
from talktime_operator.observed import Pod
from talktime_operator.pools.nodes import NodeHealth

PARALLEL = 16
STALE_STATS = 406


@dataclass(frozen=True)
class Target:
    """One pod and how it is to be judged."""

    pod: Pod
    pool: Key
    ports: Ports
    failure_threshold: int


@dataclass(frozen=True)
class Reading:
    """One answer. `code` 0 = no connection."""

    code: int
    node_id: str
    rooms: int | None


def parse_metrics(text: str) -> tuple[str, int | None]:
    """(node id, rooms) of livekit-server's metrics; rooms None when the gauge is missing."""
    node_id, rooms = "", None
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            node_id = node_id or sample.labels.get("node_id", "")
            if sample.name == "livekit_room_total":
                rooms = (rooms or 0) + int(sample.value)
    return node_id, rooms


@dataclass
class _History:
    failures: int = 0
    last: Reading | None = None
    last_good: Reading | None = None
    at: float = 0.0


class SfuHealth:
    """Three-valued health by pod uid: good at the first good answer, bad after so many bad ones in a row."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        stale: float,
        resolve: Callable[[Pod], str] = lambda pod: pod.host_ip or pod.ip,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._stale = stale
        self._resolve = resolve
        self._clock = clock
        self._histories: dict[str, _History] = {}
        self._thresholds: dict[str, int] = {}

    def nodes(self, uids: Iterable[str]) -> Mapping[str, NodeHealth]:
        """Health of these pods; absent ones were never asked."""
        return {uid: self._judge(uid) for uid in uids if uid in self._histories}

    def _judge(self, uid: str) -> NodeHealth:
        history = self._histories[uid]
        if history.last is None or self._clock() - history.at > self._stale:
            return NodeHealth("unknown")
        known = history.last_good
        node_id, rooms = (known.node_id, known.rooms) if known is not None else ("", None)
        if history.failures == 0:
            return NodeHealth("good", node_id, rooms)
        if history.failures >= self._thresholds.get(uid, 3):
            return NodeHealth("bad", node_id, history.last.rooms, stale=history.last.code == STALE_STATS)
        return NodeHealth("good" if known is not None else "unknown", node_id, rooms, counted=False)

    async def round(self, targets: Iterable[Target]) -> set[Key]:
        """Asks every running node once; returns the pools whose picture changed."""
        targets = [t for t in targets if t.pod.phase == "Running" and self._resolve(t.pod)]
        uids = [t.pod.uid for t in targets]
        before = self.nodes(uids)
        gate = asyncio.Semaphore(PARALLEL)
        await asyncio.gather(*(self._ask(t, gate) for t in targets))
        gone = set(self._histories) - set(uids)
        for uid in gone:
            del self._histories[uid]
        after = self.nodes(uids)
        return {t.pool for t in targets if before.get(t.pod.uid) != after.get(t.pod.uid)}

    async def _ask(self, target: Target, gate: asyncio.Semaphore) -> None:
        async with gate:
            reading = await self._read(self._resolve(target.pod), target.ports)
        history = self._histories.setdefault(target.pod.uid, _History())
        self._thresholds[target.pod.uid] = target.failure_threshold
        history.last, history.at = reading, self._clock()
        if reading.code == 200 and reading.node_id:
            history.failures, history.last_good = 0, reading
        else:
            history.failures += 1

    async def _read(self, address: str, ports: Ports) -> Reading:
        host = f"[{address}]" if ":" in address else address
        code, node_id, rooms = 0, "", None
        try:
            code = (await self._client.get(f"http://{host}:{ports.http}/")).status_code
            metrics = await self._client.get(f"http://{host}:{ports.metrics}/metrics")
            if metrics.status_code == 200:
                node_id, rooms = parse_metrics(metrics.text)
        except (httpx.HTTPError, ValueError):
            pass
        return Reading(code, node_id, rooms)
