"""The stored form of price snapshots, made once each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from talktime_ledger.cards import snapshot_wire
from talktime_ledger.core.rates import RateSnapshot
from talktime_ledger.store.usages import snapshot_key


@dataclass(frozen=True, slots=True)
class Stored:
    """Content address and body of a snapshot."""

    id: str
    body: dict[str, Any]


class Snapshots:
    """What one process has made of snapshots, and which are known to be in the database (rows stay for ever)."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._made: dict[tuple[object, ...], tuple[RateSnapshot, Stored]] = {}
        self._saved: set[str] = set()

    def stored(self, rates: RateSnapshot) -> Stored:
        """The stored form; the same object again while the prices are the same."""
        name = (rates.card, rates.vendor, rates.model, rates.effective_from)
        made = self._made.get(name)
        if made is not None and made[0] == rates:
            return made[1]
        if len(self._made) >= self._most:
            self._made.clear()
        stored = Stored(snapshot_key(rates), snapshot_wire(rates).model_dump(mode="json"))
        self._made[name] = (rates, stored)
        return stored

    def unsaved(self, ids: Iterable[str]) -> set[str]:
        """Those that may not be in the database yet."""
        return set(ids) - self._saved

    def saved(self, ids: Iterable[str]) -> None:
        """A transaction that holds them is committed."""
        if len(self._saved) >= self._most:
            self._saved.clear()
        self._saved |= set(ids)
