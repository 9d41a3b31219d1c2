"""Keys of pools' fallbacks, from the Secrets an SRE made in the release namespace.

The operator reads Secrets of the release namespace only (the chart's Role): its own, and those that an SFUPool names as
`fallback.secretRef`. It copies them for the gateway and, per Project, for standby agents.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from talktime_ledger.resources.pool import SFUPoolSpec

from talktime_operator.children.livekit_secret import LiveKitAccess
from talktime_operator.kube import Kube, KubeError
from talktime_operator.names import Key
from talktime_operator.pools.switching import Second

logger = logging.getLogger(__name__)

CACHE = 20.0
"""Seconds. Secrets are not watched (that would be a right to all of them): a new key is noticed at the next look."""


@dataclass(frozen=True)
class Standby:
    """Where standby agents register, and how many are kept while their Project has sessions."""

    access: LiveKitAccess
    replicas: int


@dataclass(frozen=True)
class _Look:
    reference: tuple[str, str]
    at: float
    access: LiveKitAccess | None
    problem: str


class FallbackKeys:
    """Looks at most every `CACHE` seconds; a Secret that cannot be read now keeps what was read before."""

    def __init__(self, kube: Kube, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._looks: dict[Key, _Look] = {}

    def access(self, key: Key) -> LiveKitAccess | None:
        """URL and keys as last seen."""
        look = self._looks.get(key)
        return look.access if look is not None else None

    def looked(self, key: Key, spec: SFUPoolSpec | None) -> bool:
        """Whether the pool's fallback, if it has one, was looked at."""
        return spec is None or _reference(spec) is None or key in self._looks

    def forget(self, key: Key) -> None:
        """The pool is gone."""
        self._looks.pop(key, None)

    async def look(self, key: Key, spec: SFUPoolSpec) -> Second:
        """The fallback as far as it can be used."""
        reference = _reference(spec)
        if reference is None:
            self._looks.pop(key, None)
            return Second()
        known = self._looks.get(key)
        if known is None or known.reference != reference or self._clock() - known.at >= CACHE:
            try:
                known = await self._read(key, reference)
            except KubeError as error:
                if known is None or known.reference != reference:
                    raise
                logger.warning("keys of the fallback of pool %s: %s", key, error)
                return Second(reference[0], known.problem)
            self._looks[key] = known
        return Second(reference[0], known.problem)

    async def _read(self, key: Key, reference: tuple[str, str]) -> _Look:
        url, name = reference
        body = await self._kube.get("Secret", Key(key.namespace, name))
        field = "spec.fallback.secretRef.name"
        if body is None:
            problem = f"{field}: no Secret {name!r} in namespace {key.namespace!r}; create it with the keys"
            return _Look(reference, self._clock(), None, f"{problem} 'api-key' and 'api-secret'")
        data = body.get("data") or {}
        missing = [entry for entry in ("api-key", "api-secret") if not data.get(entry)]
        if missing:
            problem = f"{field}: Secret {name!r} has no key {missing[0]!r}; add it"
            return _Look(reference, self._clock(), None, problem)
        key_pair = [base64.b64decode(data[entry]).decode().strip() for entry in ("api-key", "api-secret")]
        return _Look(reference, self._clock(), LiveKitAccess(url, *key_pair), "")


def _reference(spec: SFUPoolSpec) -> tuple[str, str] | None:
    """URL and Secret of the fallback."""
    fallback = spec.fallback
    return (fallback.url, fallback.secret_ref.name) if fallback.url and fallback.secret_ref else None
