"""Loads of agent pods: one shared round over every pod's `/worker` (livekit-agents), never a task per object."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import httpx

from talktime_operator.children.agent_deployment import WORKER_PORT
from talktime_operator.names import Key
from talktime_operator.observed import Pod

PARALLEL = 32


def worker_url(pod: Pod) -> str | None:
    """Where a pod tells its active jobs; None without an address."""
    host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
    return f"http://{host}:{WORKER_PORT}/worker" if pod.ip else None


def active_jobs(answer: object) -> int | None:
    """`active_jobs` of an answer of `/worker`; absent is 0 (protobuf drops zeros), anything odd is unknown."""
    if not isinstance(answer, dict):
        return None
    jobs = answer.get("active_jobs", answer.get("activeJobs", 0))
    return jobs if isinstance(jobs, int) and not isinstance(jobs, bool) and jobs >= 0 else None


class WorkerLoads:
    """Last known jobs by pod uid; an answer older than `stale` seconds is unknown."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        stale: float,
        resolve: Callable[[Pod], str | None] = worker_url,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._stale = stale
        self._resolve = resolve
        self._clock = clock
        self._told: dict[str, int | None] = {}
        self._known: dict[str, tuple[int, float]] = {}

    def jobs(self, uid: str) -> int | None:
        """Active jobs, None = unknown."""
        known = self._known.get(uid)
        if known is None or self._clock() - known[1] > self._stale:
            return None
        return known[0]

    async def round(self, pods: Iterable[Pod]) -> set[Key]:
        """Asks every running pod once; returns the Projects whose picture changed."""
        pods = [p for p in pods if p.phase == "Running"]
        gate = asyncio.Semaphore(PARALLEL)
        await asyncio.gather(*(self._ask(p, gate) for p in pods))
        alive = {p.uid for p in pods}
        self._known = {uid: value for uid, value in self._known.items() if uid in alive}
        # Against what was told last, because an answer also turns unknown between two rounds, by age alone.
        before, self._told = self._told, {p.uid: self.jobs(p.uid) for p in pods}
        return {Key(p.key.namespace, p.project) for p in pods if self._told[p.uid] != before.get(p.uid)}

    async def _ask(self, pod: Pod, gate: asyncio.Semaphore) -> None:
        url = self._resolve(pod)
        if url is None:
            return
        async with gate:
            try:
                response = await self._client.get(url)
                jobs = active_jobs(response.json()) if response.status_code == 200 else None
            except (httpx.HTTPError, ValueError):
                return
        if jobs is not None:
            self._known[pod.uid] = (jobs, self._clock())
