"""Which revision of the schema this code needs. Without alembic: a server that restarts under live sessions has few
seconds, and importing that takes more than a third of its start."""

from __future__ import annotations

from functools import cache
from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"


@cache
def head() -> str:
    """The newest revision in the code: its modules are named after it."""
    return max(module.name.split("_")[0] for module in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def suffices(revision: str | None) -> bool:
    """Whether this code can work on a schema of that revision: its own or a later one.

    Revisions are numbered with four digits, and each only adds to what the release before it reads: while an upgrade
    rolls, and after `helm rollback`, older replicas go on with the newer schema.
    """
    return (revision or "") >= head()
