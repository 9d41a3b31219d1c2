"""What the agent needs of the ledger. `talktime_ledger.client.LedgerClient` is one; tests bring another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol
from uuid import UUID

from talktime_ledger.wire import (
    Attach,
    Attachment,
    Close,
    CostList,
    Grant,
    ProviderReport,
    PushEvent,
    Session,
    Use,
)
from talktime_ledger.wire.resume import Checkpoint, Lost


class LedgerPort(Protocol):
    """The agent's calls; errors are those of `talktime_ledger.client`."""

    async def attach(self, session_id: str | UUID, request: Attach) -> Attachment: ...

    async def use(self, session_id: str | UUID, request: Use, *, patience_sec: float | None = None) -> Grant: ...

    async def close(self, session_id: str | UUID, request: Close) -> CostList: ...

    async def lose(self, session_id: str | UUID, request: Lost) -> Session: ...

    async def put_context(self, session_id: str | UUID, checkpoint: Checkpoint) -> bool: ...

    async def context(self, session_id: str | UUID) -> Checkpoint: ...

    async def report_provider(self, namespace: str, name: str, report: ProviderReport) -> None: ...

    async def clip(self, namespace: str, name: str, key: str) -> bytes | None: ...

    async def put_clip(self, namespace: str, name: str, key: str, pcm: bytes) -> None: ...

    def push(self, namespace: str, name: str) -> AsyncIterator[PushEvent]: ...
