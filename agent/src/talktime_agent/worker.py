"""The worker main: takes jobs from LiveKit, runs each in a process of its own, and looks after what they leave."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from livekit import api
from livekit.agents import AgentServer, JobExecutorType, JobRequest
from talktime_ledger.client import LedgerClient

from talktime_agent.entrypoint import entrypoint
from talktime_agent.gemini_hook import check_plugin
from talktime_agent.heartbeat import Heartbeat
from talktime_agent.joins import JoinPace
from talktime_agent.metrics import AgentMetrics
from talktime_agent.push import PushRelay
from talktime_agent.recovery import Recovery
from talktime_agent.settings import AgentSettings

logger = logging.getLogger("talktime.agent.worker")

# Settling may take its 10 s of waiting for usage, and the ledger's patience on top.
JOB_SHUTDOWN_SECONDS = 60.0
# What processes are forked from imports for 3.6 s of CPU; on a starved node more than the SDK's 10 s, after which it
# gives up the process, and soon the job.
WARM_UP_SECONDS = 60.0
RESTART_SECONDS = 2.0


FULL_LOAD = 0.7
"""livekit-server gives no job to a worker above its `agents.target_load`, and LiveKit Cloud none above 0.7, whatever
the worker's own threshold says: so a pod at its capacity says 0.7, not 1."""


def load(sessions_per_replica: int) -> Callable[[AgentServer], float]:
    """Load by sessions of the capacity: CPU says little about realtime sessions, which mostly wait."""

    def load_fnc(server: AgentServer) -> float:
        return FULL_LOAD * (len(server.active_jobs) / sessions_per_replica)

    return load_fnc


def accepting(
    pace: JoinPace, sleep: Callable[[float], Awaitable[None]], cut_off: Callable[[], bool]
) -> Callable[[JobRequest], Awaitable[None]]:
    """Accepts jobs at the pod's pace; declines (another pod may take it) when that would take too long, or when the
    pod is ``cut_off`` from the ledger: the session may come from here, its agent replaced for that very reason.
    """

    async def on_request(request: JobRequest) -> None:
        if cut_off():
            logger.warning("a job is declined: the ledger does not hear this pod")
            await request.reject(terminate=False)
            return
        wait = pace.slot(resumed=epoch_of(request.job.metadata) > 1)
        if wait is None:
            await request.reject(terminate=False)
            return
        if wait:
            await sleep(wait)
        await request.accept()

    return on_request


def epoch_of(metadata: str) -> int:
    """The epoch a dispatch is for; 1 for metadata that is not ours (the entry point will say so)."""
    try:
        return int(json.loads(metadata)["epoch"])
    except (ValueError, TypeError, KeyError):
        return 1


def ready_once_registered(server: AgentServer) -> None:
    """Lets `/` answer 503, so that the pod is not ready, until LiveKit knows the worker.

    The SDK opens `/` before it has warmed its processes (3.6 s of CPU) and registers after that; LiveKit drops a
    dispatch for which there is no worker. The flag is the SDK's own, for a LiveKit that cannot be reached.
    """
    server._connection_failed = True

    def registered(*_: object) -> None:
        server._connection_failed = False

    server.on("worker_registered", registered)


def build_server(settings: AgentSettings, cut_off: Callable[[], bool]) -> AgentServer:
    """The livekit worker of one Project; it declines jobs while it is ``cut_off`` from the ledger."""
    server = AgentServer(
        job_executor_type=JobExecutorType.PROCESS,
        load_fnc=load(settings.sessions_per_replica),
        # Full exactly at capacity; jobs accepted and not yet running count, too.
        load_threshold=FULL_LOAD,
        num_idle_processes=settings.warm_processes,
        initialize_process_timeout=WARM_UP_SECONDS,
        drain_timeout=settings.drain_seconds,
        shutdown_process_timeout=JOB_SHUTDOWN_SECONDS,
        preload_modules=["talktime_agent.entrypoint", "talktime_agent.preload"],
        ws_url=settings.livekit_url,
        api_key=settings.livekit_api_key,
        api_secret=settings.livekit_api_secret.get_secret_value(),
        host=settings.http_host,
        port=settings.http_port,
        prometheus_port=settings.metrics_port,
        log_level="INFO",
    )
    ready_once_registered(server)
    pace = JoinPace(settings.join_interval, time.monotonic)
    server.rtc_session(entrypoint, agent_name=settings.agent_name, on_request=accepting(pace, asyncio.sleep, cut_off))
    return server


async def serve(settings: AgentSettings) -> int:
    """Until SIGTERM and the end of every session. The exit code: 1 when LiveKit was lost for good.

    PluginChangedError, before anything is registered, when the Google plugin is not the one that can be metered.

    A second SIGTERM changes nothing: whoever sends it means the drain that is going on already.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    check_plugin()
    settings.spool_dir.mkdir(parents=True, exist_ok=True)
    metrics = AgentMetrics()
    async with (
        LedgerClient(settings.ledger_url, token_path=settings.token_file) as ledger,
        api.LiveKitAPI(
            settings.livekit_url, settings.livekit_api_key, settings.livekit_api_secret.get_secret_value()
        ) as livekit,
    ):

        async def delete_room(name: str) -> None:
            try:
                await livekit.room.delete_room(api.DeleteRoomRequest(room=name))
            except (api.TwirpError, OSError, TimeoutError) as error:
                logger.info("the room was not deleted", extra={"session": name, "why": str(error)})

        heartbeat = Heartbeat(lambda: ledger.beat(settings.namespace, settings.name, settings.pod), time.monotonic)
        server = build_server(settings, lambda: heartbeat.cut_off)
        recovery = Recovery(
            ledger, settings.spool_dir, delete_room=delete_room, replayed=lambda: metrics.count("replayed")
        )
        relay = PushRelay(settings.spool_dir, metrics)
        helpers = [
            asyncio.create_task(_kept("recovery", recovery.run)),
            asyncio.create_task(_kept("heartbeat", heartbeat.run)),
            asyncio.create_task(
                _kept("push", lambda: relay.run(lambda: ledger.push(settings.namespace, settings.name)))
            ),
        ]
        running = asyncio.create_task(server.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        lost = running.done() and not running.cancelled() and running.exception() is not None
        if lost:
            logger.error("LiveKit was lost for good", exc_info=running.exception())
        stopping.cancel()
        # Sessions have connections of their own: they go on to their end, also when the worker's is lost.
        try:
            await server.drain()
        except TimeoutError:
            logger.error("the drain deadline was reached with sessions still live")
        await server.aclose()
        await recovery.once()
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, running, return_exceptions=True)
    return 1 if lost else 0


async def _kept(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A helper that fails is started again: the sessions do not depend on it, but later ones want it."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("a helper failed", extra={"helper": name})
        await asyncio.sleep(RESTART_SECONDS)
