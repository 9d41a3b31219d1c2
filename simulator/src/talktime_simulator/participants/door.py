"""The front door of a Project, as any platform's backend or invited browser meets it: LiveKit's token endpoint."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

WAIT_STATUSES = (425, 429, 503)


class RefusedError(Exception):
    """The gateway did not hand out a token. `body` is its answer."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"token endpoint answered {status}: {body[:300]}")
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Entry:
    """A token answer, with the claims that everybody who holds the token can read."""

    server_url: str
    token: str
    claims: dict[str, Any]
    waited: float

    @property
    def room(self) -> str:
        return str(self.claims.get("video", {}).get("room", ""))


async def ask(http: aiohttp.ClientSession, url: str, key: str, body: dict[str, Any], patience: float) -> Entry:
    """POST `body` to the token endpoint, waiting as told by Retry-After for at most `patience` seconds.

    Raises RefusedError for any other refusal and when patience ran out; connection errors count as 503.
    """
    clock = asyncio.get_running_loop()
    started = clock.time()
    while True:
        try:
            async with http.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as answer:
                status, text = answer.status, await answer.text()
                wait = retry_after(answer.headers.get("Retry-After"))
        except aiohttp.ClientConnectionError as error:
            status, text, wait = 503, f"{type(error).__name__}: {error}", 1.0
        waited = clock.time() - started
        if status in (200, 201):
            given = json.loads(text)
            return Entry(given["server_url"], given["participant_token"], claims_of(given["participant_token"]), waited)
        if status not in WAIT_STATUSES or waited + wait > patience:
            raise RefusedError(status, text)
        await asyncio.sleep(wait)


def retry_after(header: str | None) -> float:
    """Seconds to wait; 1 when the header is missing or no number, never under 0.2."""
    try:
        return max(0.2, float(header or 1))
    except ValueError:
        return 1.0


def claims_of(token: str) -> dict[str, Any]:
    """The payload of a JWT, unverified: what a participant can see."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims
