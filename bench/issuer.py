"""Signs ServiceAccount tokens like an API server, for a ledger that trusts this bench."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER = "https://bench.local"


class Issuer:
    """One key, told to the ledger as a JWKS file (`jwks_file`)."""

    def __init__(self, home: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        self.jwks_file = home / "jwks.json"
        self.jwks_file.write_text(json.dumps({"keys": [{**public, "kid": "k", "use": "sig", "alg": "RS256"}]}))

    def token(self, subject: str) -> str:
        """A token of two hours."""
        claims = {"iss": ISSUER, "sub": subject, "aud": ["talktime-ledger"], "exp": int(time.time()) + 7200}
        return jwt.encode(claims, self._key, "RS256", headers={"kid": "k"})
