"""Conversations at rest: AES-256-GCM under a key that is not in the database, bound to their session.

Key: `TALKTIME_CONTEXT_KEYS`, base64 of 32 bytes, newest first, separated by commas: the first seals, all open. Without
one nothing is kept.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
KEY_BYTES = 32


class Sealer:
    """Seals and opens the bytes of one session."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = [AESGCM(key) for key in keys]

    @classmethod
    def of(cls, text: str) -> Sealer:
        """From the setting. ValueError names what is wrong with it, never a key."""
        keys = []
        for index, part in enumerate(filter(None, (part.strip() for part in text.split(",")))):
            try:
                key = base64.b64decode(part, validate=True)
            except ValueError as error:
                raise ValueError(f"TALKTIME_CONTEXT_KEYS: key {index + 1} is not base64") from error
            if len(key) != KEY_BYTES:
                raise ValueError(f"TALKTIME_CONTEXT_KEYS: key {index + 1} has {len(key)} bytes, {KEY_BYTES} are needed")
            keys.append(key)
        return cls(keys)

    @property
    def able(self) -> bool:
        """Whether there is a key."""
        return bool(self._ciphers)

    def seal(self, session: UUID, plain: bytes) -> bytes:
        """Nonce and ciphertext; only for this session they can be opened."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, plain, session.bytes)

    def open(self, session: UUID, sealed: bytes) -> bytes | None:
        """The plain bytes; None when no key of ours fits."""
        nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, body, session.bytes)
            except InvalidTag:
                continue
        return None
