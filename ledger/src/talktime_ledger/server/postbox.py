"""Delivers the outbox as CloudEvents (structured mode), at least once, in no transaction of ours."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime

import httpx

from talktime_ledger.server.settings import Settings
from talktime_ledger.store import outbox
from talktime_ledger.store.database import Pool
from talktime_ledger.store.outbox import Letter

log = logging.getLogger(__name__)

# Longer than the HTTP timeout, so that a letter is never sent by two replicas at once.
LEASE_SEC = 60.0


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


async def deliver_due(pool: Pool, client: httpx.AsyncClient) -> int:
    """Sends what is due; returns how many were taken."""
    async with pool.acquire() as connection:
        letters = await outbox.take(connection, LEASE_SEC)
    await asyncio.gather(*(_deliver(pool, client, letter) for letter in letters))
    return len(letters)


async def _deliver(pool: Pool, client: httpx.AsyncClient, letter: Letter) -> None:
    body = json.dumps(cloud_event(letter, datetime.now(UTC)))
    try:
        response = await client.post(letter.url, content=body, headers={"Content-Type": "application/cloudevents+json"})
        error = "" if response.is_success else f"HTTP {response.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as failure:
        error = f"{type(failure).__name__}: {failure}"
    async with pool.acquire() as connection:
        if error:
            await outbox.failed(connection, letter, error)
            log.warning("webhook failed: %s", error, extra={"session": str(letter.session_id)})
        else:
            await outbox.delivered(connection, letter.id)


async def run(pool: Pool, settings: Settings) -> None:
    """Task."""
    async with httpx.AsyncClient(timeout=10, follow_redirects=False) as client:
        while True:
            try:
                taken = await deliver_due(pool, client)
            except Exception as error:
                taken = 0
                log.warning("outbox failed: %s", error)
            if not taken:
                await asyncio.sleep(settings.outbox_every_sec)
