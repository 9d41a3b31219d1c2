"""Keeps the directory: a look every so often, and one more when somebody needs to know now."""

from __future__ import annotations

import asyncio
import time

from talktime_ledger.client import LedgerClient, LedgerError

from .directory import Cache, View

FRESH_SEC = 0.2
"""So old a directory is new enough for somebody who waits."""

PATIENCE_SEC = 1.0
"""Somebody who waits goes on with the last good directory after that."""


class Following:
    """One look at a time, shared by all who want one: an older answer never replaces a newer one."""

    def __init__(self, ledger: LedgerClient, cache: Cache) -> None:
        self._ledger = ledger
        self._cache = cache
        self._looking: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Asks the ledger. LedgerError when it cannot be asked: the last good directory stays in use."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
            # Nobody may be left to hear that it failed.
            self._looking.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._looking)

    async def view_now(self) -> View:
        """The directory as the ledger has it now, or the last good one."""
        age = self._cache.age(time.monotonic())
        if age is None or age > FRESH_SEC:
            try:
                async with asyncio.timeout(PATIENCE_SEC):
                    await self.look()
            except (LedgerError, TimeoutError):
                pass
        assert self._cache.view is not None, "nobody is let in before the first directory"
        return self._cache.view

    async def _look(self) -> None:
        answer = await self._ledger.directory(self._cache.etag)
        if answer is None:
            self._cache.confirm(time.monotonic())
        else:
            etag, directory = answer
            self._cache.replace(directory, etag or None, time.monotonic())
