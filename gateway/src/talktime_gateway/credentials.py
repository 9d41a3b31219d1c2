"""The three credentials: server key, observer key, ticket. Pure; only SHA-256 digests are compared or sent on."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Kind(StrEnum):
    """Who presents the credential."""

    SERVER = "server"
    OBSERVER = "observer"
    TICKET = "ticket"


PREFIXES = {"tts_": Kind.SERVER, "tto_": Kind.OBSERVER, "ttt_": Kind.TICKET}
_SESSION_ID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_SHAPE = re.compile(r"^(tt[sot]_)[A-Za-z0-9_\-]{16,200}$")


class StoredKey(Protocol):
    """A key as the directory knows it."""

    @property
    def kind(self) -> str: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True)
class Presented:
    """What a caller showed: its kind by prefix, and its digest. The credential itself is not kept."""

    kind: Kind
    sha256: str


def digest(credential: str) -> str:
    """Hex SHA-256 of the whole credential, prefix included; what the operator pushes and tickets are stored as."""
    return hashlib.sha256(credential.encode()).hexdigest()


def parse(authorization: str | None, ticket: str | None) -> Presented | None:
    """The credential of a request: ``Authorization: Bearer ...`` wins over ``?ticket=``. None when there is none."""
    scheme, _, value = (authorization or "").strip().partition(" ")
    text = value.strip() if scheme.lower() == "bearer" else ""
    text = text or (ticket or "").strip()
    shape = _SHAPE.match(text)
    if shape is None:
        return None
    kind = PREFIXES[shape.group(1)]
    if not authorization and kind is not Kind.TICKET:
        return None  # a key in an address would end up in logs and histories
    return Presented(kind, digest(text))


def matches(presented: Presented, keys: Iterable[StoredKey]) -> bool:
    """Whether one of the keys is the presented one. Looks at every key, in constant time each."""
    found = False
    for key in keys:
        same = hmac.compare_digest(key.sha256.lower().encode(), presented.sha256.encode())
        found |= same and key.kind == presented.kind.value
    return found


def new_ticket() -> str:
    """A fresh ticket, 256 bits."""
    return "ttt_" + secrets.token_urlsafe(32)


def new_session_id() -> str:
    """A fresh session id, which is also the room name: 128 random bits in the form of a lower-case UUID."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16)))


def is_session_id(text: str) -> bool:
    """Whether a room name has the form of our session ids (others share a LiveKit, probes for one)."""
    return _SESSION_ID.match(text) is not None
