"""A set of keys to look at again: no key twice at once, delays, growing pauses after failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)
logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class WorkQueue(Generic[Item]):
    """Adding an item that waits does nothing; adding one that is being worked on makes it run once more after."""

    def __init__(self, work: Callable[[Item], Awaitable[None]], workers: int) -> None:
        self._work = work
        self._workers = workers
        self._ready: asyncio.Queue[Item] = asyncio.Queue()
        self._waiting: set[Item] = set()
        self._running: set[Item] = set()
        self._again: set[Item] = set()
        self._timers: dict[Item, asyncio.TimerHandle] = {}
        self._failures: dict[Item, int] = {}
        self.finished = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    def add(self, item: Item, delay: float = 0.0) -> None:
        """`delay` in seconds; an earlier timer of the same item wins."""
        if delay > 0:
            loop = asyncio.get_running_loop()
            timer = self._timers.get(item)
            if timer is not None and timer.when() <= loop.time() + delay:
                return
            if timer is not None:
                timer.cancel()
            self._timers[item] = loop.call_later(delay, self._due, item)
        elif item in self._running:
            self._again.add(item)
        elif item not in self._waiting:
            self._waiting.add(item)
            self._ready.put_nowait(item)

    def _due(self, item: Item) -> None:
        self._timers.pop(item, None)
        self.add(item)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            item = await self._ready.get()
            self._waiting.discard(item)
            self._running.add(item)
            try:
                await self._work(item)
                self._failures.pop(item, None)
            except Exception as error:
                count = self._failures[item] = self._failures.get(item, 0) + 1
                pause = min(FIRST_PAUSE * 2 ** (count - 1), LONGEST_PAUSE)
                extra = {"object": str(item)}
                logger.warning("failed, again in %.1f s: %s", pause, error, extra=extra, exc_info=count == 1)
                self.add(item, pause)
            finally:
                self.finished += 1
                self._running.discard(item)
                if item in self._again:
                    self._again.discard(item)
                    self.add(item)
