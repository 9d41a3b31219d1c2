"""Delivers the outbox as CloudEvents (structured mode), at least once, in no transaction of ours."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from uuid import UUID

import httpx

from talktime_ledger.server.settings import Settings
from talktime_ledger.store import outbox
from talktime_ledger.store.database import Pool
from talktime_ledger.store.outbox import Letter

log = logging.getLogger(__name__)

# All of one attempt. The client's own timeout is for each read only: a receiver that drips would never end.
ATTEMPT_SEC = 30.0
# Longer than an attempt, so that a letter is never sent by two replicas at once.
LEASE_SEC = 60.0
# Letters on their way from this replica, and of one Project among them.
ON_THE_WAY = 64
PER_PROJECT = 4


def cloud_event(letter: Letter, now: datetime) -> dict[str, object]:
    """CloudEvents 1.0; `id` is the same in every attempt, so that receivers can drop repeats."""
    return {
        "specversion": "1.0",
        "id": str(letter.id),
        "type": letter.kind,
        "source": f"/talktime/projects/{letter.body.get('namespace')}/{letter.body.get('project')}",
        "subject": str(letter.session_id),
        "time": letter.body.get("closed_at") or now.isoformat(),
        "datacontenttype": "application/json",
        "data": letter.body,
    }


class Postbox:
    """What is on its way. A receiver that hangs keeps its own Project's letters waiting and nobody else's."""

    def __init__(self, pool: Pool, client: httpx.AsyncClient) -> None:
        self._pool = pool
        self._client = client
        self._on_the_way: dict[asyncio.Task[None], UUID] = {}

    async def run(self, every_sec: float) -> None:
        """Forever. What is on its way when it is cancelled is sent again when its lease is over."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    letters = await self._take()
                except Exception as error:
                    letters = []
                    log.warning("outbox failed: %s", error)
                for letter in letters:
                    task = group.create_task(self._deliver(letter))
                    self._on_the_way[task] = letter.project_id
                    task.add_done_callback(self._on_the_way.pop)
                if not letters:
                    await self._next(every_sec)

    async def _take(self) -> list[Letter]:
        free = ON_THE_WAY - len(self._on_the_way)
        if free <= 0:
            return []
        async with self._pool.acquire() as connection:
            busy = set(self._on_the_way.values())
            return await outbox.take(connection, LEASE_SEC, limit=free, per_project=PER_PROJECT, busy=busy)

    async def _next(self, every_sec: float) -> None:
        """Until something was delivered, or it is time to look again."""
        if self._on_the_way:
            await asyncio.wait(self._on_the_way, timeout=every_sec, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(every_sec)

    async def _deliver(self, letter: Letter) -> None:
        error = await post(self._client, letter)
        try:
            async with self._pool.acquire() as connection:
                if error:
                    await outbox.failed(connection, letter, error)
                    log.warning("webhook failed: %s", error, extra={"session": str(letter.session_id)})
                else:
                    await outbox.delivered(connection, letter.id)
        except Exception as failure:
            log.warning("delivery not noted, it will be repeated: %s", failure)


async def post(client: httpx.AsyncClient, letter: Letter) -> str:
    """One attempt; what went wrong, or nothing. The answer's status is all that counts: its body is not read."""
    body = json.dumps(cloud_event(letter, datetime.now(UTC)))
    headers = {"Content-Type": "application/cloudevents+json"}
    try:
        async with (
            asyncio.timeout(ATTEMPT_SEC),
            client.stream("POST", letter.url, content=body, headers=headers) as response,
        ):
            return "" if response.is_success else f"HTTP {response.status_code}"
    except TimeoutError:
        return f"no answer within {ATTEMPT_SEC:g} s"
    except (httpx.HTTPError, httpx.InvalidURL) as failure:
        return f"{type(failure).__name__}: {failure}"


async def run(pool: Pool, settings: Settings) -> None:
    """Task."""
    async with httpx.AsyncClient(timeout=10, follow_redirects=False) as client:
        await Postbox(pool, client).run(settings.outbox_every_sec)
