"""Keeps pools' LiveKit keys: reads each Secret again and again, takes a step of a rotation, writes both copies."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from talktime_operator import names
from talktime_operator.children.sfu_keys import AGGREGATE, STATE, SfuKeys, build_aggregate, build_sfu_keys, entries
from talktime_operator.kube import Kube, KubeError, digest
from talktime_operator.names import HASH_ANNOTATION, Key, Owner
from talktime_operator.pools.rotation import CLIENTS_FOLLOW, Asked, Keys, Pair, Step, Users, recovered, step, told

logger = logging.getLogger(__name__)

LOOK = 20.0
"""Seconds. Secrets are not watched (that would be a right to all of them): a change is noticed at the next look."""


@dataclass
class _Known:
    """`data`: the Secret's entries as read or last written, None when it was deleted."""

    sfu: SfuKeys
    data: Mapping[str, str] | None
    looked: float

    @property
    def asked(self) -> Pair | None:
        return None if self.data is None else Pair(self.data.get("api-key", ""), self.data.get("api-secret", ""))


def fresh_pair() -> Pair:
    return Pair("API" + secrets.token_hex(8), secrets.token_urlsafe(32))


class PoolKeys:
    """All pools' keys; the Secret is the memory, so that a new operator goes on where the old one stopped."""

    def __init__(
        self,
        kube: Kube,
        seed: bytes,
        follow: timedelta = CLIENTS_FOLLOW,
        clock: Callable[[], float] = time.monotonic,
        fresh: Callable[[], Pair] = fresh_pair,
    ) -> None:
        self._kube = kube
        self._seed = seed
        self._follow = follow
        self._clock = clock
        self._fresh = fresh
        self._known: dict[Key, _Known] = {}
        self._written = ""

    def of(self, key: Key) -> Keys | None:
        """None before the first look."""
        known = self._known.get(key)
        return known.sfu.keys if known is not None else None

    def forget(self, key: Key) -> None:
        """The pool is gone."""
        self._known.pop(key, None)

    async def advance(
        self, key: Key, owner: Owner, annotation: str, users: Callable[[Keys], Users], now: datetime
    ) -> Step:
        """Reads the Secret when it is time to, and takes a step. Returned `again` includes the next look. While the API
        server is away what is known stays: where rooms go must not wait for it. Raises KubeError when nothing is."""
        known = self._known.get(key)
        try:
            if known is None or self._clock() - known.looked >= LOOK:
                known = await self._look(key, owner, now)
            keys = known.sfu.keys
            taken = step(keys, Asked(annotation, known.asked), users(keys), self._fresh(), now, self._follow)
            sfu = SfuKeys(taken.keys, known.sfu.redis_password)
            wanted = entries(sfu)
            if known.data is None or not wanted.items() <= known.data.items():
                await self._kube.apply(build_sfu_keys(key, owner, sfu))
        except KubeError as error:
            if (kept := self.of(key)) is None:
                raise
            logger.warning("keys of pool %s: %s", key, error)
            return Step(kept, told(kept, Asked("", kept.active), users(kept)), LOOK)
        self._known[key] = _Known(sfu, wanted, known.looked)
        return Step(taken.keys, taken.finding, min(taken.again or LOOK, LOOK))

    async def write_aggregate(self, namespace: str, pools: Mapping[Key, Keys]) -> None:
        """One Secret for the gateway, written when it differs."""
        manifest = build_aggregate(namespace, pools)
        wanted = digest(manifest)
        if not self._written:
            body = await self._kube.get("Secret", Key(namespace, AGGREGATE))
            self._written = ((body or {}).get("metadata", {}).get("annotations") or {}).get(HASH_ANNOTATION, "")
        if self._written != wanted:
            await self._kube.apply(manifest)
            self._written = wanted

    async def _look(self, key: Key, owner: Owner, now: datetime) -> _Known:
        body = await self._kube.get("Secret", Key(key.namespace, f"{names.sfu(key.name)}-keys"))
        before = self._known.get(key)
        if body is None:
            return await self._missing(key, owner, before, now)
        data = _decoded(body)
        pair = Pair(data.get("api-key", ""), data.get("api-secret", ""))
        # An old copy that somebody put back is a request for its pair, not the state.
        keys = before.sfu.keys if before is not None else Keys.parse(data.get(STATE, "")) or Keys(pair)
        return _Known(SfuKeys(keys, data.get("redis-password") or self._redis_password(owner)), data, self._clock())

    async def _missing(self, key: Key, owner: Owner, before: _Known | None, now: datetime) -> _Known:
        """Deleted, which asks for other keys; or a new pool."""
        if before is not None:
            return _Known(before.sfu, None, self._clock())
        copy = await self._kube.get("Secret", Key(key.namespace, AGGREGATE))
        entry = _decoded(copy or {}).get(f"{key.namespace}.{key.name}.json")
        keys = recovered(json.loads(entry), now) if entry else None
        password = self._redis_password(owner)
        if keys is not None:
            return _Known(SfuKeys(keys, password), None, self._clock())
        sfu = SfuKeys(Keys(self._fresh()), password)
        await self._kube.apply(build_sfu_keys(key, owner, sfu))
        return _Known(sfu, entries(sfu), self._clock())

    def _redis_password(self, owner: Owner) -> str:
        """Derived, because nodes and Redis that run keep theirs when the Secret is deleted."""
        return hmac.new(self._seed, f"redis/{owner.uid}".encode(), "sha256").hexdigest()[:40]


def _decoded(body: Mapping[str, Any]) -> dict[str, str]:
    return {k: base64.b64decode(v).decode() for k, v in (body.get("data") or {}).items()}
