"""The pool: at most 16 connections, JSON and timeouts set, synchronous commit for everything that is money."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import asyncpg  # type: ignore[import-untyped] # ships no types

Connection: TypeAlias = Any
Pool: TypeAlias = Any
Record: TypeAlias = Any

STATEMENT_TIMEOUT_MS = 5_000


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def _as_it_is(_: Any) -> None:
    """No session state is ever set on a pooled connection, so giving it back needs no round trip."""


async def connect_pool(url: str, size: int = 16) -> Pool:
    """A pool of at most `size` connections; statements and idle transactions are bounded in time."""
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        init=_prepare,
        reset=_as_it_is,
        command_timeout=10,
        timeout=5,
        server_settings={
            "application_name": "talktime-ledger",
            "statement_timeout": str(STATEMENT_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": "10000",
            "timezone": "UTC",
        },
    )


async def connect(url: str) -> Connection:
    """One connection outside the pool (LISTEN)."""
    connection = await asyncpg.connect(url, timeout=5, command_timeout=10)
    await _prepare(connection)
    return connection


def snapshot(connection: Connection) -> Any:
    """A transaction for reports: all its queries see the same moment, and it writes nothing."""
    return connection.transaction(isolation="repeatable_read", readonly=True)
