"""One small PostgreSQL of the bench's own kind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.enforcers import database


@pytest.fixture(scope="session")
def bench_postgres() -> Iterator[str]:
    """DSN without a database."""
    home = Path(tempfile.mkdtemp(prefix="talktime-overshoot-"))
    try:
        with database.postgres(home) as dsn:
            yield dsn
    finally:
        shutil.rmtree(home, ignore_errors=True)
