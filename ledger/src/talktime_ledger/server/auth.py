"""Who calls: ServiceAccount tokens, verified offline against a JWKS, mapped to a role by subject."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
import jwt

from talktime_ledger.desk.errors import DeskError
from talktime_ledger.server.settings import Settings
from talktime_ledger.store.database import Pool
from talktime_ledger.wire import ProblemReason

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA")
REFRESH_SEC = 300.0
# An unknown key id makes us look again, but not more often than this.
MISS_PAUSE_SEC = 10.0
# Checking a signature costs more than most calls; tokens are few (one per pod).
REMEMBER_SEC = 60.0
MAX_REMEMBERED = 10_000


class Role(StrEnum):
    """What a caller may do."""

    OPERATOR = "operator"
    GATEWAY = "gateway"
    CONSOLE = "console"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified caller; namespace and project are set for agents: the only Project they may touch."""

    role: Role
    subject: str
    namespace: str = ""
    project: str = ""

    def may_touch(self, namespace: str, project: str) -> bool:
        """Agents: their own Project only."""
        return self.role is not Role.AGENT or (self.namespace, self.project) == (namespace, project)


def caller_of(subject: str, settings: Settings) -> Caller | None:
    """The role of a subject, None if it has none."""
    own = {
        settings.subject("operator", settings.operator_subject): Role.OPERATOR,
        settings.subject("gateway", settings.gateway_subject): Role.GATEWAY,
        settings.subject("console", settings.console_subject): Role.CONSOLE,
    }
    if subject in own:
        return Caller(own[subject], subject)
    parts = subject.split(":")
    if len(parts) == 4 and parts[:2] == ["system", "serviceaccount"]:
        namespace, account = parts[2:]
        project = account.removeprefix(settings.agent_account_prefix)
        if account.startswith(settings.agent_account_prefix) and project:
            return Caller(Role.AGENT, subject, namespace, project)
    return None


class KeyRing:
    """The JWKS: from a file or the API server; the last good one is kept in PostgreSQL and survives both."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self._settings = settings
        self._pool = pool
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._issuer = settings.jwt_issuer
        self._looked_at = float("-inf")
        self._verified: dict[str, tuple[str, float]] = {}
        self._lock = asyncio.Lock()

    @property
    def known(self) -> bool:
        """Whether any key and the issuer are known: without them nobody can call."""
        return bool(self._keys) and self._issuer is not None

    async def refresh(self) -> None:
        """Reads the source; falls back to the kept JWKS while none is known. Never raises."""
        self._looked_at = time.monotonic()
        if self._issuer is None:
            self._issuer = own_issuer(self._settings.jwks_token_file)
        try:
            raw = await self._fetch()
            keys = parse_jwks(raw)
            if keys.keys() != self._keys.keys():
                self._verified.clear()
            self._keys = keys
            if self._issuer:
                await self._pool.execute(
                    """INSERT INTO jwks_cache (issuer, jwks) VALUES ($1, $2)
                       ON CONFLICT (issuer) DO UPDATE SET jwks = $2, fetched_at = NOW()""",
                    self._issuer,
                    raw,
                )
        except Exception as error:
            log.warning("JWKS not read: %s", error)
            if not self._keys:
                await self._recall()

    async def _recall(self) -> None:
        try:
            raw = await self._pool.fetchval("SELECT jwks FROM jwks_cache WHERE issuer = $1", self._issuer or "")
            if raw:
                self._keys = parse_jwks(raw)
        except Exception as error:
            log.warning("kept JWKS not read: %s", error)

    async def _fetch(self) -> dict[str, Any]:
        if self._settings.jwks_file is not None:
            text = await asyncio.to_thread(self._settings.jwks_file.read_text)
        elif self._settings.jwks_url is not None:
            text = await self._download(self._settings.jwks_url)
        else:
            raise RuntimeError("neither TALKTIME_JWKS_URL nor TALKTIME_JWKS_FILE is set")
        raw: dict[str, Any] = json.loads(text)
        return raw

    async def _download(self, url: str) -> str:
        ca, token = self._settings.jwks_ca_file, self._settings.jwks_token_file
        verify = ssl.create_default_context(cafile=str(ca)) if ca.exists() else True
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}
        async with httpx.AsyncClient(verify=verify, timeout=5) as client:
            response = await client.get(url, headers=headers)
            response.raise_for_status()
            return response.text

    async def verify(self, token: str) -> str:
        """The subject; DeskError Unauthorized with a cause that names no secret. Remembered for at most a minute."""
        remembered = self._verified.get(token)
        if remembered is not None and remembered[1] > time.time():
            return remembered[0]
        subject, expires = await self._check(token)
        if len(self._verified) >= MAX_REMEMBERED:
            self._verified.clear()
        self._verified[token] = (subject, min(expires, time.time() + REMEMBER_SEC))
        return subject

    async def _check(self, token: str) -> tuple[str, float]:
        try:
            kid = jwt.get_unverified_header(token).get("kid", "")
        except jwt.PyJWTError as error:
            raise DeskError(ProblemReason.UNAUTHORIZED, "the token is not a JWT") from error
        key = self._keys.get(kid)
        if key is None and time.monotonic() - self._looked_at > MISS_PAUSE_SEC:
            async with self._lock:
                if kid not in self._keys and time.monotonic() - self._looked_at > MISS_PAUSE_SEC:
                    await self.refresh()
            key = self._keys.get(kid)
        if key is None or self._issuer is None:
            raise DeskError(ProblemReason.UNAUTHORIZED, "the token was signed by an unknown key")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._settings.jwt_audience,
                issuer=self._issuer,
                leeway=10,
                options={"require": ["exp", "sub", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise DeskError(ProblemReason.UNAUTHORIZED, f"the token is not valid: {error}") from error
        return str(claims["sub"]), float(claims["exp"])


def parse_jwks(raw: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """Keys by id; ValueError when there is none."""
    keys = {str(key.get("kid", "")): jwt.PyJWK.from_dict(key) for key in raw.get("keys", [])}
    if not keys:
        raise ValueError("the JWKS has no keys")
    return keys


def own_issuer(token_file: Path) -> str | None:
    """The `iss` of the ledger's own token, which the kubelet put there: the cluster's issuer."""
    try:
        claims = jwt.decode(token_file.read_text().strip(), options={"verify_signature": False})
    except (OSError, jwt.PyJWTError):
        return None
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else None
