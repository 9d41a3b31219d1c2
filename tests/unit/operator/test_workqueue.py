"""No item twice at once, none forgotten, failures come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

from talktime_operator import workqueue
from talktime_operator.workqueue import WorkQueue


@asynccontextmanager
async def running(queue: WorkQueue[str]):  # type: ignore[no-untyped-def]
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settle(queue: WorkQueue[str], finished: int) -> None:
    async with asyncio.timeout(60):
        while queue.finished < finished:  # noqa: ASYNC110 - a few turns of the loop, no event to wait for
            await asyncio.sleep(0)


def recorder(done: list[str]) -> Callable[[str], Awaitable[None]]:
    async def work(item: str) -> None:
        done.append(item)

    return work


async def test_waiting_items_coalesce() -> None:
    done: list[str] = []
    queue = WorkQueue(recorder(done), workers=2)
    for _ in range(5):
        queue.add("a")
    queue.add("b")
    async with running(queue):
        await settle(queue, 2)
    assert sorted(done) == ["a", "b"]


async def test_an_item_added_while_it_is_worked_on_runs_once_more_and_never_in_parallel() -> None:
    gate, active, most, count = asyncio.Event(), 0, 0, 0

    async def work(_: str) -> None:
        nonlocal active, most, count
        active, count = active + 1, count + 1
        most = max(most, active)
        await gate.wait()
        active -= 1

    queue = WorkQueue(work, workers=3)
    async with running(queue):
        queue.add("a")
        while count == 0:  # noqa: ASYNC110
            await asyncio.sleep(0)
        queue.add("a")
        queue.add("a")
        gate.set()
        await settle(queue, 2)
    assert (most, count) == (1, 2)


async def test_a_failure_comes_back(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(workqueue, "FIRST_PAUSE", 0.001)
    tries = 0

    async def work(_: str) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise RuntimeError("not yet")

    queue = WorkQueue(work, workers=1)
    async with running(queue):
        queue.add("a")
        await settle(queue, 3)
    assert tries == 3


async def test_the_earlier_timer_wins() -> None:
    done: list[str] = []
    queue = WorkQueue(recorder(done), workers=1)
    async with running(queue):
        queue.add("a", 30)
        queue.add("a", 0.01)
        queue.add("a", 60)
        await settle(queue, 1)
    assert done == ["a"]
