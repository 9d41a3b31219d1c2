"""What the ledger was told about, so that a deletion while the operator was dead is told after its restart.

Projects need none of this (the ledger lists them); pools and RateCards are remembered in one ConfigMap of the release
namespace, written before the first push of each and after its deletion.
"""

from __future__ import annotations

import asyncio
import json
from typing import Literal

from talktime_operator import names
from talktime_operator.kube import Kube
from talktime_operator.names import Key, Manifest

NAME = "talktime-operator-pushed"
Kind = Literal["pool", "card"]


def build_pushed(namespace: str, entries: frozenset[tuple[Kind, Key]]) -> Manifest:
    listed = sorted([kind, *key] for kind, key in entries)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.metadata(Key(namespace, NAME), dict(names.MANAGED_BY), None),
        "data": {"entries.json": json.dumps(listed)},
    }


def parse_pushed(data: dict[str, str]) -> frozenset[tuple[Kind, Key]]:
    """An unreadable list is an empty one: everything that exists is pushed and remembered again."""
    try:
        return frozenset((kind, Key(namespace, name)) for kind, namespace, name in json.loads(data["entries.json"]))
    except (KeyError, ValueError, TypeError):
        return frozenset()


class Pushed:
    """The remembered names; one writer, so a lock and no conflict."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._entries: frozenset[tuple[Kind, Key]] = frozenset()
        self._lock = asyncio.Lock()

    @property
    def entries(self) -> frozenset[tuple[Kind, Key]]:
        return self._entries

    async def load(self) -> None:
        """Reads the list, or makes an empty one: in a cluster without any Project it is the one object whose sight
        tells that every index is complete (kopf says so to handlers only)."""
        body = await self._kube.get("ConfigMap", Key(self._namespace, NAME))
        if body is None:
            await self._kube.apply(build_pushed(self._namespace, self._entries))
        else:
            self._entries = parse_pushed(body.get("data") or {})

    async def remember(self, kind: Kind, key: Key) -> None:
        await self._change(self._entries | {(kind, key)})

    async def forget(self, kind: Kind, key: Key) -> None:
        await self._change(self._entries - {(kind, key)})

    async def _change(self, wanted: frozenset[tuple[Kind, Key]]) -> None:
        added, removed = wanted - self._entries, self._entries - wanted
        if not added and not removed:
            return
        async with self._lock:
            entries = (self._entries | added) - removed
            await self._kube.apply(build_pushed(self._namespace, entries))
            self._entries = entries
