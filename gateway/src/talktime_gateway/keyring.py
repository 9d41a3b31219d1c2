"""LiveKit keys per pool, mounted from the aggregate Secret: ``<namespace>.<pool>.json`` = ``{apiKey, apiSecret}``
and, while they are rotated, ``also`` = ``{<key>: <secret>}``.

Those of a pool's fallback are in ``<namespace>.<pool>_fallback.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

from .tokens import SfuKeys


class KeyRing:
    """Reads a pool's key file when it changed (the kubelet swaps the mounted files when a Secret changes)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cache: dict[str, tuple[tuple[int, int, int], SfuKeys]] = {}

    def of(self, namespace: str, pool: str) -> SfuKeys | None:
        """The pool's keys; None when there are none (yet), or the file cannot be read as keys."""
        name = f"{namespace}.{pool}.json"
        path = self._directory / name
        try:
            stat = path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            cached = self._cache.get(name)
            if cached is not None and cached[0] == seen:
                return cached[1]
            data = json.loads(path.read_text())
            also = tuple((str(key), str(secret)) for key, secret in (data.get("also") or {}).items())
            keys = SfuKeys(str(data["apiKey"]), str(data["apiSecret"]), also)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        self._cache[name] = (seen, keys)
        return keys
