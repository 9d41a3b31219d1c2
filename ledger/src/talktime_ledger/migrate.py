"""`python -m talktime_ledger migrate`: brings the schema to the newest revision; safe to run twice and at once."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

_HERE = Path(__file__).parent / "migrations"


def config(database_url: str = "") -> Config:
    """Alembic's configuration, without a file."""
    result = Config()
    result.set_main_option("script_location", str(_HERE))
    result.attributes["url"] = sqlalchemy_url(database_url)
    return result


def sqlalchemy_url(database_url: str) -> str:
    """The URL with the asyncpg driver named."""
    return database_url.replace("postgres://", "postgresql://", 1).replace("postgresql://", "postgresql+asyncpg://", 1)


def head() -> str:
    """The newest revision in the code."""
    return ScriptDirectory.from_config(config()).get_current_head() or ""


def suffices(revision: str | None) -> bool:
    """Whether this code can work on a schema of that revision: its own or a later one.

    Revisions are numbered with four digits, and each only adds to what the release before it reads: while an upgrade
    rolls, and after `helm rollback`, older replicas go on with the newer schema.
    """
    return (revision or "") >= head()


def migrate(database_url: str, revision: str = "head") -> None:
    """Upgrades (blocking; must not run inside an event loop)."""
    command.upgrade(config(database_url), revision)


def unmigrate(database_url: str) -> None:
    """Takes everything down; for tests."""
    command.downgrade(config(database_url), "base")
