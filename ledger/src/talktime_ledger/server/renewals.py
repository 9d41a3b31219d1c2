"""Renewals that wait at the same time are committed together: one transaction per Project at a time in this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import asyncpg  # type: ignore[import-untyped] # ships no types

from talktime_ledger.desk.errors import GrantRaceError
from talktime_ledger.desk.together import Ask, Desk, Together, use_together
from talktime_ledger.server.hub import notify
from talktime_ledger.store.database import Connection

Transaction: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]
Names: TypeAlias = tuple[str, str]
"""(namespace, Project)."""

# Enough that a sync is shared by many, few enough that nobody waits long for the others' statements.
MOST_TOGETHER = 32


class Renewals:
    """The queue of each Project."""

    def __init__(self, transaction: Transaction, desk: Desk) -> None:
        self._transaction, self._desk = transaction, desk
        self._waiting: dict[Names, deque[tuple[Ask, asyncio.Future[str | None]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def use(self, names: Names, ask: Ask) -> str | None:
        """The grant as JSON, committed; None: this one must be tried alone. Raises what the database raised."""
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.get(names)
        if queue is not None:
            queue.append((ask, future))
        else:
            self._waiting[names] = deque([(ask, future)])
            task = asyncio.create_task(self._serve(names))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _serve(self, names: Names) -> None:
        queue = self._waiting[names]
        try:
            while queue:
                taken = [queue.popleft() for _ in range(min(len(queue), MOST_TOGETHER))]
                # Who gave up waiting (time is bounded) asks again.
                wanted = [one for one in taken if not one[1].done()]
                if wanted:
                    await self._settle(names, wanted)
        finally:
            del self._waiting[names]

    async def _settle(self, names: Names, taken: list[tuple[Ask, asyncio.Future[str | None]]]) -> None:
        asks, futures = [ask for ask, _ in taken], [future for _, future in taken]
        try:
            answers = (await self._commit(names, asks)).answers
        except (GrantRaceError, asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
            answers = [None] * len(asks)
        except BaseException as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for future, answer in zip(futures, answers, strict=True):
            # Who gave up waiting asks again with the same number and finds the answer.
            if not future.done():
                future.set_result(answer)

    async def _commit(self, names: Names, asks: list[Ask]) -> Together:
        async with self._transaction() as connection:
            together = await use_together(connection, asks, names, self._desk)
            if together.latched:
                await notify(connection, f"push:{names[0]}/{names[1]}", "limits", {"reason": "ProjectSoft"})
        self._desk.snapshots.saved(together.snapshots)
        return together
