"""The pod's socket: one push stream per pod from the ledger, passed on to the job processes; back come their counts.

A push event only says "ask again": the answer to the next `use` is the truth, so a lost event costs one interval.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from talktime_ledger.client import LedgerError
from talktime_ledger.wire import PushEvent

from talktime_agent.metrics import Telemetry

logger = logging.getLogger("talktime.agent.push")

SOCKET = "push.sock"
RETRY_SECONDS = 2.0


class PushRelay:
    """In the worker main: everything the ledger says goes to every job."""

    def __init__(self, directory: Path, telemetry: Telemetry) -> None:
        self._path = directory / SOCKET
        self._telemetry = telemetry
        self._jobs: set[asyncio.StreamWriter] = set()

    async def run(self, subscribe: Callable[[], AsyncIterator[PushEvent]]) -> None:
        """Until cancelled. ``subscribe`` opens the ledger's stream; it is opened again when it fails."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, self._path)
        try:
            while True:
                try:
                    async for event in subscribe():
                        self._pass_on(event)
                except LedgerError as error:
                    logger.warning("no push events", extra={"why": str(error)})
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            server.close()
            for job in list(self._jobs):
                job.close()

    def _pass_on(self, event: PushEvent) -> None:
        line = (event.model_dump_json() + "\n").encode()
        for job in list(self._jobs):
            job.write(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._jobs.add(writer)
        try:
            while line := await reader.readline():
                told = json.loads(line)
                self._telemetry.count(str(told["name"]), str(told["label"]), int(told["amount"]))
        except (ValueError, KeyError, ConnectionError) as error:
            logger.warning("a job was not understood", extra={"why": str(error)})
        finally:
            self._jobs.discard(writer)
            writer.close()


class PodLink:
    """In a job: the way to the worker main. Lost counts and events are no harm."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / SOCKET
        self._writer: asyncio.StreamWriter | None = None

    def count(self, name: str, label: str = "", amount: int = 1) -> None:
        """Counts in the pod's metrics."""
        if self._writer is not None:
            self._writer.write((json.dumps({"name": name, "label": label, "amount": amount}) + "\n").encode())

    async def events(self) -> AsyncIterator[PushEvent]:
        """The relay's events; waits for the relay and returns to it for ever."""
        while True:
            with contextlib.suppress(OSError):
                reader, self._writer = await asyncio.open_unix_connection(self._path)
                try:
                    while line := await reader.readline():
                        yield PushEvent.model_validate_json(line)
                finally:
                    self._writer.close()
                    self._writer = None
            await asyncio.sleep(RETRY_SECONDS)


def concerns(event: PushEvent, session_id: str) -> bool:
    """Whether a session should ask again: events without a session concern all."""
    told = event.data.get("session_id")
    return told is None or told == session_id
