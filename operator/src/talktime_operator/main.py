"""The operator process: wait for the Lease, then watch, reconcile, poll and follow the ledger until told to stop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import aiohttp
import httpx
import kopf
from kubernetes.aio import client
from prometheus_client import REGISTRY
from talktime_ledger import logs
from talktime_ledger.client import LedgerClient

from talktime_operator import handlers, kube, names, pushed
from talktime_operator.applier import Applier
from talktime_operator.cluster import Cluster
from talktime_operator.election import Election, LeaseLost
from talktime_operator.handlers import Item
from talktime_operator.ledger_sync import LedgerSync
from talktime_operator.login import login
from talktime_operator.media_probe import MediaProbe
from talktime_operator.media_watch import MediaWatch
from talktime_operator.metrics import TalktimeCollector, reconcile_seconds, reconciles_total
from talktime_operator.names import Key
from talktime_operator.pools.health import Answer
from talktime_operator.pools.reconcile import Pools
from talktime_operator.projects.reconcile import Projects
from talktime_operator.pushed import Pushed
from talktime_operator.rate_cards import RateCards
from talktime_operator.settings import OperatorSettings
from talktime_operator.sfu_health import SfuHealth
from talktime_operator.sfu_probe import Probe
from talktime_operator.sfu_targets import pool_targets
from talktime_operator.surface import Pulse, Surface
from talktime_operator.workers import WorkerLoads, worker_url
from talktime_operator.workqueue import WorkQueue

logger = logging.getLogger("talktime_operator")

SEED_SECRET = "talktime-operator-seed"  # noqa: S105 - a name
SPEND_REFRESH = 15.0
MINUTES_REFRESH = 300.0
SFU_TICK = 0.1
"""Seconds between two looks at which pool's turn it is."""


class Operator:
    """The acting replica."""

    def __init__(
        self,
        settings: OperatorSettings,
        calls: kube.Kube,
        ledger_client: LedgerClient,
        http: httpx.AsyncClient,
        sockets: aiohttp.ClientSession,
        seed: bytes,
        pulse: Pulse,
        resolve_worker: Callable[..., str | None] = worker_url,
    ) -> None:
        self.settings = settings
        self.cluster = Cluster()
        self._pulse = pulse
        self._warming = asyncio.Lock()
        self._warm = False
        self._queue: WorkQueue[Item] = WorkQueue(self._reconcile, settings.reconcile_workers)
        self.ledger = LedgerSync(ledger_client, settings.ledger_grace, self._project_changed, self._look_at_all)
        self._loads = WorkerLoads(http, settings.worker_stale, resolve_worker)
        self._calls = calls
        self._probe = Probe(http)
        media = MediaWatch(MediaProbe(http, sockets))
        self._sfus = SfuHealth(self._probe, settings.sfu_stale, self._network_works, media=media)
        self._applier = Applier(calls, self.cluster, settings.amounts_interval)
        self._pushed = Pushed(calls, settings.namespace)
        self._pools = Pools(
            self.cluster,
            calls,
            self._applier,
            self.ledger,
            self._sfus,
            self._pushed,
            settings,
            seed,
            self._pool_changed,
        )
        self._projects = Projects(
            self.cluster, calls, self._applier, self.ledger, self._loads, self._pools, settings, seed
        )
        self._cards = RateCards(self.cluster, calls, self._applier, self.ledger, self._pushed)
        self.collectors = (TalktimeCollector(self.cluster, self.ledger, lambda: len(self._queue)), self._sfus)

    async def run(self) -> None:
        """Until kopf ends (a signal, or an error in a watch)."""
        await self._pushed.load()
        registry = handlers.build_registry(self.cluster, self._queue.add, self._applier.forget_child)
        kopf_settings = kopf.OperatorSettings()
        handlers.configure(kopf_settings)
        kopf.on.login(registry=registry)(login(self.settings))
        background = [
            self._queue.run(),
            self.ledger.follow(),
            _every(self.settings.ledger_grace / 3, self.ledger.refresh),
            _every(SPEND_REFRESH, self.ledger.refresh_spend),
            _every(MINUTES_REFRESH, self.ledger.refresh_minutes),
            _every(self.settings.worker_poll, self._poll_workers),
            _every(SFU_TICK, self._poll_sfus),
            _every(SFU_TICK, self._poll_fallbacks),
            _every(self.settings.resync, self._resync),
        ]
        tasks = [asyncio.create_task(work) for work in background]
        watching = asyncio.create_task(
            kopf.operator(
                registry=registry,
                settings=kopf_settings,
                clusterwide=True,
                standalone=True,
                # Given, because kopf's own guess looks up the user's name and a container's uid has none.
                identity=cast("Any", self.settings.pod_name),
            )
        )
        try:
            done, _ = await asyncio.wait([watching, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, watching):
                task.cancel()
            await asyncio.gather(*tasks, watching, return_exceptions=True)

    async def _reconcile(self, item: Item) -> None:
        work: dict[str, Callable[[Key], Awaitable[float]]] = {
            "project": self._projects.reconcile,
            "pool": self._pools.reconcile,
            "card": self._cards.reconcile,
        }
        await self._warm_up()
        result = "error"
        started = time.perf_counter()
        try:
            again = await work[item.kind](item.key)
            result = "ok"
        finally:
            reconciles_total.labels(item.kind, result).inc()
            reconcile_seconds.labels(item.kind).observe(time.perf_counter() - started)
        if again > 0:
            self._queue.add(item, again)

    async def _warm_up(self) -> None:
        """One round over agents and nodes before the first decision, so that a restart is no loss of data."""
        async with self._warming:
            if not self._warm:
                await self._poll_workers()
                await self._poll_sfus()
                self._warm = True
                # Also what was deleted while nobody looked.
                self._look_at_all()

    def _project_changed(self, key: Key) -> None:
        if self.cluster.complete:
            self._queue.add(Item("project", key))

    def _pool_changed(self, pool: Key) -> None:
        for project in self.cluster.projects():
            if project.spec is not None and project.spec.media.pool_ref.name == pool.name:
                self._queue.add(Item("project", project.key))

    def _look_at_all(self) -> None:
        if not self.cluster.complete:
            return
        for pool in self.cluster.pools():
            self._queue.add(Item("pool", pool.key))
        for card in self.cluster.cards():
            self._queue.add(Item("card", card.key))
        for kind, key in self._pushed.entries:
            self._queue.add(Item(kind, key))
        known = {project.key for project in self.cluster.projects()}
        # Deleted while nobody looked: the ledger or a ServiceAccount still knows them.
        known |= {key for key, status in self.ledger.statuses.items() if not status.deleted}
        known |= {Key(a.key.namespace, a.project) for a in self.cluster.children("ServiceAccount") if a.project}
        for key in known:
            self._queue.add(Item("project", key))

    async def _resync(self) -> None:
        self._look_at_all()

    async def _poll_workers(self) -> None:
        self._pulse.beat()
        for key in await self._loads.round(self.cluster.pods("project")):
            self._queue.add(Item("project", key))

    async def _poll_sfus(self) -> None:
        for key in await self._sfus.round(pool_targets(self.cluster, self._pools, self.settings.namespace)):
            self._queue.add(Item("pool", key))

    async def _poll_fallbacks(self) -> None:
        for key in await self._sfus.ask_fallbacks(pool_targets(self.cluster, self._pools, self.settings.namespace)):
            self._queue.add(Item("pool", key))

    async def _network_works(self) -> bool:
        """Whether ledger or API server can be reached: else a silence of all nodes may be our own."""
        if (await self._probe.get(f"{self.settings.ledger_url}/healthz", 1.0)).answer is not Answer.SILENT:
            return True
        try:
            async with asyncio.timeout(1.0):
                await self._calls.get("ConfigMap", Key(self.settings.namespace, pushed.NAME))
        except TimeoutError:
            return False
        except kube.KubeError as error:
            return error.status != 0
        return True


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Endless; a failed round is logged and the next one comes."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("a round failed")
        await asyncio.sleep(seconds)


async def load_seed(calls: kube.Kube, namespace: str) -> bytes:
    """The secret from which access keys are derived; made once."""
    where = Key(namespace, SEED_SECRET)
    for _ in range(2):
        body = await calls.get("Secret", where)
        if body is not None:
            return base64.b64decode(body["data"]["seed"])
        fresh = base64.b64encode(secrets.token_bytes(32)).decode()
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": names.metadata(where, dict(names.MANAGED_BY), None),
            "type": "Opaque",
            "data": {"seed": fresh},
        }
        await calls.create(manifest)
    raise RuntimeError(f"Secret {where} can be neither read nor made")


async def lead(settings: OperatorSettings, api: client.ApiClient, pulse: Pulse, acting: list[Operator]) -> None:
    """What the replica that holds the Lease does."""
    calls = kube.Kube(api)
    seed = await load_seed(calls, settings.namespace)
    async with (
        LedgerClient(settings.ledger_url, token_path=settings.token_path, patience_sec=2.0) as ledger,
        httpx.AsyncClient(timeout=settings.poll_timeout, trust_env=False) as http,
        aiohttp.ClientSession() as sockets,
    ):
        operator = Operator(settings, calls, ledger, http, sockets, seed, pulse)
        for collector in operator.collectors:
            REGISTRY.register(collector)
        acting.append(operator)
        try:
            await operator.run()
        finally:
            acting.clear()
            for collector in operator.collectors:
                REGISTRY.unregister(collector)


async def serve(settings: OperatorSettings) -> int:
    """The process; returns its exit code."""
    pulse = Pulse()
    acting: list[Operator] = []

    def ready() -> tuple[bool, str]:
        if not acting:
            return True, "follower: waiting for the Lease"
        return acting[0].cluster.complete, "leader" if acting[0].cluster.complete else "leader: reading the cluster"

    surface = await Surface(REGISTRY, pulse, ready).start(settings.listen_host, settings.listen_port)
    api = await kube.connect(settings)
    election = Election(api, settings)
    main = asyncio.create_task(election.run(lambda: lead(settings, api, pulse, acting)))
    beating = asyncio.create_task(_every(5.0, _beat(pulse)))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main.cancel)
    try:
        await main
    except asyncio.CancelledError:
        return 0
    except LeaseLost as error:
        logger.error("%s", error)
        return 1
    finally:
        beating.cancel()
        await surface.cleanup()
        await api.close()  # type: ignore[no-untyped-call]
    return 0


def _beat(pulse: Pulse) -> Callable[[], Awaitable[None]]:
    async def beat() -> None:
        pulse.beat()

    return beat


def main() -> None:
    """Entry point of `python -m talktime_operator`."""
    settings = OperatorSettings()
    logs.configure("operator", settings.log_level)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(serve(settings)))
