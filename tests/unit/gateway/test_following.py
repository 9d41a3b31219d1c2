"""The directory, asked for by many at the same time."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from talktime_gateway.directory import Cache
from talktime_gateway.following import Following
from talktime_ledger.client import LedgerClient, LedgerError
from talktime_ledger.wire import Directory

EMPTY = Directory.model_validate({"projects": [], "pools": []})


class Ledger:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.may = asyncio.Event()
        self.away = False

    async def directory(self, etag: str | None) -> tuple[str, Directory] | None:
        self.asked.append(etag)
        await self.may.wait()
        if self.away:
            raise LedgerError("away")
        return (f"v{len(self.asked)}", EMPTY) if etag is None else None


async def test_who_wants_it_at_the_same_time_shares_one_look() -> None:
    ledger, cache = Ledger(), Cache()
    following = Following(cast(LedgerClient, ledger), cache)
    waiting = [asyncio.create_task(following.view_now()) for _ in range(50)]
    await asyncio.sleep(0)
    ledger.may.set()
    assert len({id(view) for view in await asyncio.gather(*waiting)}) == 1
    await following.view_now()
    assert ledger.asked == [None], "a moment later it is new enough"


async def test_without_a_ledger_the_last_good_one_is_gone_on_with() -> None:
    ledger, cache = Ledger(), Cache()
    ledger.may.set()
    following = Following(cast(LedgerClient, ledger), cache)
    before = await following.view_now()
    ledger.away, cache.confirmed_at = True, 0.0
    assert await following.view_now() is before
    with pytest.raises(LedgerError):
        await following.look()
    assert ledger.asked == [None, "v1", "v1"]
