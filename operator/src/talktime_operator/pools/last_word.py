"""Where a pool's new rooms went by the last decision. The status tells it, unless it could not be written."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from talktime_ledger.client import LedgerError
from talktime_ledger.resources.pool import FallbackMode, SFUPoolSpec

from talktime_operator.ledger_sync import LedgerSync
from talktime_operator.names import Key
from talktime_operator.observed import Resource
from talktime_operator.pools.failover import Active, recall


class LastWord:
    """A switch is told to the gateways before it is written, so without the API server the status is behind: what this
    operator decided it remembers, what the one before decided it asks the ledger for."""

    def __init__(self, ledger: LedgerSync) -> None:
        self._ledger = ledger
        self._decided: dict[Key, tuple[str, Active]] = {}

    async def of(
        self, resource: Resource[SFUPoolSpec], spec: SFUPoolSpec, now: datetime
    ) -> tuple[Resource[SFUPoolSpec], bool]:
        """The pool as if its status had been written, and whether that is known: while the ledger is not heard nothing
        may be pushed, because what it holds may be the only trace of a switch."""
        uid, active = self._decided.get(resource.key, ("", None))
        if active is not None and uid == resource.uid:
            return _as_if(resource, active), True
        told = Active.parse(resource.status.get("active") or {}, now)
        if told.target == "Fallback" or spec.fallback.mode is FallbackMode.NEVER:
            return resource, True
        try:
            pushed = await self._ledger.pool(resource.key)
        except LedgerError:
            return resource, False
        recalled = recall(told, pushed.active if pushed is not None else None, now)
        return (resource if recalled is told else _as_if(resource, recalled)), True

    def keep(self, resource: Resource[SFUPoolSpec], active: Active) -> None:
        """This was decided."""
        self._decided[resource.key] = (resource.uid, active)

    def forget(self, key: Key) -> None:
        """The pool is gone."""
        self._decided.pop(key, None)


def _as_if(resource: Resource[SFUPoolSpec], active: Active) -> Resource[SFUPoolSpec]:
    return replace(resource, status={**resource.status, "active": active.render()})
