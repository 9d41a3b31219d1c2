"""RateCards: pushed to the ledger, which judges them; the verdict stands on the resource."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from talktime_ledger.client import Conflict, Invalid, LedgerError
from talktime_ledger.resources.kinds import GROUP, VERSION
from talktime_ledger.resources.rate_card import RateCardSpec

from talktime_operator import conditions
from talktime_operator.applier import Applier
from talktime_operator.cluster import Cluster
from talktime_operator.conditions import Finding
from talktime_operator.kube import Kube
from talktime_operator.ledger_sync import LedgerSync
from talktime_operator.names import Key, Owner
from talktime_operator.observed import Resource
from talktime_operator.pushed import Pushed

logger = logging.getLogger(__name__)
RETRY_LEDGER = 5.0


def card_status(resource: Resource[RateCardSpec], ready: Finding, now: datetime) -> dict[str, Any]:
    """The status of a card; `effectiveFrom` is the entry in force."""
    spec = resource.spec
    before = resource.status.get("conditions") or ()
    out: dict[str, Any] = {
        "observedGeneration": resource.generation,
        "entries": len(spec.entries) if spec is not None else 0,
        "conditions": conditions.with_times([ready], before, resource.generation, now),
    }
    started = [e.effective_from for e in spec.entries if e.effective_from <= now] if spec is not None else []
    if started:
        out["effectiveFrom"] = max(started).strftime("%Y-%m-%dT%H:%M:%SZ")
    return out


class RateCards:
    """Reconciles RateCards."""

    def __init__(self, cluster: Cluster, kube: Kube, applier: Applier, ledger: LedgerSync, pushed: Pushed) -> None:
        self._cluster = cluster
        self._kube = kube
        self._applier = applier
        self._ledger = ledger
        self._pushed = pushed

    async def reconcile(self, key: Key) -> float:
        """Returns seconds until it should be looked at again, 0 = not before something changes."""
        resource = self._cluster.card(key)
        if resource is None:
            return await self._gone(key)
        resource = replace(resource, status=self._applier.status(resource.uid, resource.status))
        ready, retry = await self._push(resource)
        owner = Owner(f"{GROUP}/{VERSION}", "RateCard", key.name, resource.uid)
        wanted = card_status(resource, ready, datetime.now(UTC))
        rest = await self._applier.write_status(owner, key, resource.status, wanted)
        return min((s for s in (retry, rest) if s > 0), default=0.0)

    async def _push(self, resource: Resource[RateCardSpec]) -> tuple[Finding, float]:
        if resource.spec is None:
            return conditions.spec_invalid(resource.problem), 0.0
        await self._pushed.remember("card", resource.key)
        try:
            await self._ledger.push_card(resource.key, resource.spec)
        except (Invalid, Conflict) as error:
            return Finding("Ready", "False", "CardRefused", f"spec.entries: {error}"[:1900]), RETRY_LEDGER * 6
        except LedgerError as error:
            logger.warning("rate card %s not pushed: %s", resource.key, error)
            return Finding("Ready", "Unknown", "LedgerUnreachable", "the ledger does not answer"), RETRY_LEDGER
        return Finding("Ready", "True", "InForce"), 0.0

    async def _gone(self, key: Key) -> float:
        if await self._kube.get("RateCard", key) is not None:
            return RETRY_LEDGER
        try:
            await self._ledger.delete_card(key)
        except LedgerError as error:
            logger.warning("deletion of rate card %s not told yet: %s", key, error)
            return RETRY_LEDGER
        await self._pushed.forget("card", key)
        return 0.0
