"""Fan-out of events to streams, over all replicas: state is in tables, NOTIFY only wakes, a lost connection ends in a
resync.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from talktime_ledger.store import database
from talktime_ledger.store.database import Connection, Pool

log = logging.getLogger(__name__)

CHANNEL = "talktime"
PING_SEC = 15.0
# A reader this far behind is disconnected; it resyncs when it comes back.
QUEUE = 1000

Address = str
"""`push:<ns>/<name>` for agents of a Project, `changes` for operators."""


async def notify(connection: Connection, address: Address, event: str, data: dict[str, Any]) -> None:
    """Tells all replicas, when the transaction commits."""
    await connection.execute(
        "SELECT pg_notify($1, $2)", CHANNEL, json.dumps({"to": address, "event": event, "data": data})
    )


class Hub:
    """Streams of this replica, and the Projects whose money changed since the last flush."""

    def __init__(self, database_url: str, changes_every_sec: float) -> None:
        self._url = database_url
        self._every = changes_every_sec
        self._queues: dict[Address, set[asyncio.Queue[str | None]]] = {}
        self._dirty: set[tuple[str, str]] = set()
        self.connected = False

    def changed(self, namespace: str, name: str) -> None:
        """A ProjectStatus may have changed; told with the next flush."""
        self._dirty.add((namespace, name))

    async def events(self, address: Address) -> AsyncIterator[str]:
        """Server-sent events as text, pings when quiet; ends when the reader fell behind or the database was lost."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(QUEUE)
        self._queues.setdefault(address, set()).add(queue)
        try:
            yield sse("ping", {})
            while True:
                try:
                    item = await asyncio.wait_for(queue.get(), PING_SEC)
                except TimeoutError:
                    item = sse("ping", {})
                if item is None:
                    return
                yield item
        finally:
            self._queues[address].discard(queue)
            if not self._queues[address]:
                del self._queues[address]

    def close_streams(self) -> None:
        """Ends every stream; readers reconnect and resync."""
        for queues in self._queues.values():
            for queue in queues:
                while queue.full():
                    queue.get_nowait()
                queue.put_nowait(None)

    def deliver(self, payload: str) -> None:
        """One notification from PostgreSQL to the streams it is for."""
        message = json.loads(payload)
        item = sse(message["event"], message["data"])
        for queue in self._queues.get(message["to"], ()):
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(item)

    async def listen(self) -> None:
        """Task: holds the LISTEN connection; when it was lost, streams are ended because something may have been
        missed.
        """
        while True:
            lost: asyncio.Event = asyncio.Event()
            try:
                connection = await database.connect(self._url)
            except Exception as error:
                log.warning("hub: no database: %s", error)
                await asyncio.sleep(1)
                continue
            try:
                connection.add_termination_listener(_setter(lost))
                await connection.add_listener(CHANNEL, lambda *args: self.deliver(args[3]))
                self.connected = True
                await lost.wait()
            except Exception as error:
                log.warning("hub: %s", error)
            finally:
                self.connected = False
                self.close_streams()
                with contextlib.suppress(Exception):
                    await connection.close(timeout=1)
            await asyncio.sleep(0.5)

    async def flush(self, pool: Pool) -> None:
        """Task: once per interval tells all replicas whose money changed."""
        while True:
            await asyncio.sleep(self._every)
            dirty, self._dirty = self._dirty, set()
            if not dirty:
                continue
            try:
                async with pool.acquire() as connection, connection.transaction():
                    for namespace, name in sorted(dirty):
                        await notify(connection, "changes", "project", {"namespace": namespace, "name": name})
            except Exception as error:
                self._dirty |= dirty
                log.warning("hub: changes not told: %s", error)


def sse(event: str, data: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"event: {event}\ndata: {json.dumps(data)}\n\n"


def _setter(event: asyncio.Event) -> Callable[..., None]:
    return lambda *_: event.set()
