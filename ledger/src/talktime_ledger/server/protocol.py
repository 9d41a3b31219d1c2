"""HTTP on the wire, as uvicorn speaks it, and a bound for clients that stall before their request is there.

Bodies and answers are bounded by the guards; uvicorn itself waits for ever for a request line and headers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS_SEC = 15.0


class PatientProtocol(HttpToolsProtocol):
    """Hangs up on a connection that does not send a whole head in time; kept-alive ones are uvicorn's to close."""

    headers_sec = HEADERS_SEC
    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._due is None:
            self._due = self.loop.call_later(self.headers_sec, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


class PoliteServer(uvicorn.Server):
    """Before it waits for requests to end it ends those that never would: streams; their readers go to another one."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_streams()
        # Stops listening before it awaits anything: nobody comes back to this one.
        await super().shutdown(sockets)


def uvicorn_options() -> dict[str, Any]:
    """What the ledger's server is run with."""
    return {
        "http": PatientProtocol,
        "log_config": None,
        "access_log": False,
        "timeout_keep_alive": 75,
    }
