"""Secrets of the release namespace that an SRE named in an SFUPool: certificate of TURN, password and CA of Redis.

Nodes read them when they start. The operator reads them to know when they changed (nodes then drain one by one, as for
any update) and to ask Redis in the same way as the nodes do.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from talktime_ledger.resources.pool import SFUPoolSpec

from talktime_operator.conditions import Finding
from talktime_operator.kube import Kube, KubeError
from talktime_operator.names import Key

logger = logging.getLogger(__name__)

LOOK = 20.0
"""Seconds; as for LiveKit keys, Secrets are not watched."""


@dataclass(frozen=True)
class Wanted:
    """One Secret the spec names, and the entries it must have."""

    path: str
    name: str
    entries: tuple[str, ...]


@dataclass(frozen=True)
class Given:
    """What the SRE gave. `problem`: what is missing, in words; `password`, `ca`: for Redis, empty without."""

    fingerprint: str = ""
    problem: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""

    def fingerprint_or(self, running: Iterable[str]) -> str:
        """What nodes should have: while something is missing what they have, because nobody drains on missing data."""
        return self.fingerprint if not self.problem else next((f for f in running if f), "")

    def findings(self) -> list[Finding]:
        """Said only where it is wrong."""
        return [Finding("SecretsFound", "False", "SecretMissing", self.problem)] if self.problem else []


def wanted(spec: SFUPoolSpec) -> list[Wanted]:
    """All Secrets the spec names for its nodes."""
    out = []
    if spec.network.turn is not None and spec.network.tls_secret_ref is not None:
        out.append(Wanted("network.tlsSecretRef", spec.network.tls_secret_ref.name, ("tls.crt", "tls.key")))
    if spec.redis.address is not None and spec.redis.password_secret_ref is not None:
        out.append(Wanted("redis.passwordSecretRef", spec.redis.password_secret_ref.name, ("password",)))
    if spec.redis.ca_secret_ref is not None:
        out.append(Wanted("redis.caSecretRef", spec.redis.ca_secret_ref.name, ("ca.crt",)))
    return out


def given(found: Iterable[tuple[Wanted, dict[str, str] | None]], namespace: str) -> Given:
    """`found`: the entries of each Secret, None when there is no such Secret."""
    values: dict[str, str] = {}
    for want, data in found:
        missing = [entry for entry in want.entries if not (data or {}).get(entry)]
        if missing:
            keys = " and ".join(repr(entry) for entry in missing)
            what = f"there is no Secret {want.name!r} in namespace {namespace!r}: create it with {keys}"
            if data is not None:
                what = f"Secret {want.name!r} has no {keys}: add it"
            return Given(problem=f"spec.{want.path}.name: {what}; nodes keep what they have")
        values |= {f"{want.path}/{entry}": (data or {})[entry] for entry in want.entries}
    text = "\0".join(f"{k}\0{v}" for k, v in sorted(values.items()))
    return Given(
        hashlib.sha256(text.encode()).hexdigest()[:16] if values else "",
        "",
        values.get("redis.passwordSecretRef/password", ""),
        values.get("redis.caSecretRef/ca.crt", ""),
    )


class PoolSecrets:
    """Looks at most every `LOOK` seconds, at once when the spec names others."""

    def __init__(self, kube: Kube, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._looks: dict[Key, tuple[list[Wanted], float, Given]] = {}

    def of(self, key: Key) -> Given:
        """As last seen."""
        look = self._looks.get(key)
        return look[2] if look is not None else Given()

    def forget(self, key: Key) -> None:
        """The pool is gone."""
        self._looks.pop(key, None)

    async def look(self, key: Key, spec: SFUPoolSpec) -> Given:
        """What the SRE gave for this pool; what was read stays while the API server is away. Raises KubeError."""
        wants = wanted(spec)
        known = self._looks.get(key)
        if known is None or known[0] != wants or self._clock() - known[1] >= LOOK:
            try:
                found = [(want, await self._read(Key(key.namespace, want.name))) for want in wants]
            except KubeError as error:
                if known is None or known[0] != wants:
                    raise
                logger.warning("Secrets of pool %s: %s", key, error)
                return known[2]
            self._looks[key] = known = (wants, self._clock(), given(found, key.namespace))
        return known[2]

    async def _read(self, where: Key) -> dict[str, str] | None:
        body = await self._kube.get("Secret", where)
        if body is None:
            return None
        return {k: base64.b64decode(v).decode(errors="replace") for k, v in (body.get("data") or {}).items()}
