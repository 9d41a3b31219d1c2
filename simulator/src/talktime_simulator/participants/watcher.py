"""An observer of a session: sees the cost updates that participants never see."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from livekit import rtc

from .door import Entry
from .received import COST_TOPIC, Received, reason_name


class Watcher:
    """Joins hidden, subscribes to nothing, keeps every data message."""

    def __init__(self) -> None:
        self._room = rtc.Room()
        self.received = Received(self._room)
        self.disconnect_reason: str | None = None
        self._gone = asyncio.Event()
        self._room.on("disconnected", self._on_disconnected)

    async def join(self, entry: Entry, server_url: str | None = None) -> None:
        """Raises rtc.ConnectError."""
        options = rtc.RoomOptions(auto_subscribe=False)
        await self._room.connect(server_url or entry.server_url, entry.token, options)
        self.received.note("joined")

    def _on_disconnected(self, reason: Any) -> None:
        self.disconnect_reason = reason_name(reason)
        self._gone.set()

    async def leave(self, linger: float) -> None:
        """Waits up to `linger` seconds for the last update (the room's end ends the wait), then leaves."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), linger)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._room.disconnect(), 10)

    def cost_updates(self) -> list[dict[str, Any]]:
        """The cost updates, in order, each with its time of arrival `received_at`."""
        updates = []
        for message in self.received.data:
            if message["topic"] == COST_TOPIC:
                with contextlib.suppress(json.JSONDecodeError):
                    updates.append({**json.loads(message["data"]), "received_at": message["at"]})
        return updates
