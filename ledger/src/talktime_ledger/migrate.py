"""`python -m talktime_ledger migrate`: brings the schema to the newest revision; safe to run twice and at once."""

from __future__ import annotations

from alembic import command
from alembic.config import Config

from talktime_ledger.schema import MIGRATIONS


def config(database_url: str = "") -> Config:
    """Alembic's configuration, without a file."""
    result = Config()
    result.set_main_option("script_location", str(MIGRATIONS))
    result.attributes["url"] = sqlalchemy_url(database_url)
    return result


def sqlalchemy_url(database_url: str) -> str:
    """The URL with the asyncpg driver named."""
    return database_url.replace("postgres://", "postgresql://", 1).replace("postgresql://", "postgresql+asyncpg://", 1)


def migrate(database_url: str, revision: str = "head") -> None:
    """Upgrades (blocking; must not run inside an event loop)."""
    command.upgrade(config(database_url), revision)


def unmigrate(database_url: str) -> None:
    """Takes everything down; for tests."""
    command.downgrade(config(database_url), "base")
