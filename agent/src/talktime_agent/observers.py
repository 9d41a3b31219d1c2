"""Live cost for observers, and for nobody else (law 8).

Always addressed to the session's fixed observer identities: an empty list would broadcast to the participant, and
hidden observers are invisible to the agent, so it cannot ask who is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO

TOPIC = "talktime.cost"


class Publisher(Protocol):
    """The part of LiveKit's local participant that is used here."""

    async def publish_data(
        self, payload: bytes | str, *, reliable: bool, destination_identities: list[str], topic: str
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class CostNow:
    """What an observer is told. USD, tokens (audio in including cached), seconds."""

    total: Decimal
    audio_in_tokens: int
    audio_out_tokens: int
    elapsed_sec: float
    budget: Decimal
    limit_state: str


def audio_tokens(meters: Mapping[Meter, int]) -> tuple[int, int]:
    """(in, out) audio tokens of a usage, cached ones included."""
    return (
        meters.get(Meter.AUDIO_IN, 0) + meters.get(Meter.AUDIO_CACHED_IN, 0),
        meters.get(Meter.AUDIO_OUT, 0),
    )


def cost_update(now: CostNow) -> bytes:
    """The `cost_update` message: numbers with 4 decimals, elapsed with 1 (docs/contracts.md, "Agent")."""
    per_minute = now.total * 60 / Decimal(now.elapsed_sec) if now.elapsed_sec > 0 else ZERO
    return json.dumps(
        {
            "type": "cost_update",
            "total_usd": round(float(now.total), 4),
            "per_minute_usd": round(float(per_minute), 4),
            "audio_in_tokens": now.audio_in_tokens,
            "audio_out_tokens": now.audio_out_tokens,
            "elapsed_sec": round(now.elapsed_sec, 1),
            "budget_usd": round(float(now.budget), 4),
            "limit_state": now.limit_state,
        },
        separators=(",", ":"),
    ).encode()


class ObserverChannel:
    """Sends to the observers of one session. ValueError when there are none to address."""

    def __init__(self, publisher: Publisher, identities: Sequence[str]) -> None:
        if not identities or not all(identities):
            raise ValueError("the observer identities are empty: a message would be broadcast to the participant")
        self._publisher = publisher
        self._identities = list(identities)

    async def send(self, now: CostNow) -> None:
        """One reliable message to exactly the observers."""
        await self._publisher.publish_data(
            cost_update(now), reliable=True, destination_identities=list(self._identities), topic=TOPIC
        )
