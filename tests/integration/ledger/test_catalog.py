"""What the database itself says about the schema (pg_catalog)."""

from __future__ import annotations

import asyncpg
import pytest
from talktime_ledger.migrate import migrate, unmigrate
from talktime_ledger.schema import head

from .conftest import Stand, opening

# The published columns with their types; money is exact to 1e-9.
PUBLISHED = {
    "id": "uuid",
    "session_id": "uuid",
    "project_id": "uuid",
    "provider": "character varying(50)",
    "audio_in_tokens": "bigint",
    "audio_out_tokens": "bigint",
    "text_tokens": "bigint",
    "ai_cost_usd": "numeric(18,9)",
    "transport_cost": "numeric(18,9)",
    "total_cost_usd": "numeric(18,9)",
    "duration_sec": "integer",
    "created_at": "timestamp with time zone",
    "rate_snapshot": "jsonb",
}


async def test_session_costs_has_the_published_columns_and_both_indexes(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        columns = await connection.fetch(
            """SELECT attname, format_type(atttypid, atttypmod) AS type, attnotnull FROM pg_attribute
               WHERE attrelid = 'session_costs'::regclass AND attnum > 0 ORDER BY attnum"""
        )
        first = columns[: len(PUBLISHED)]
        assert {row["attname"]: row["type"] for row in first} == PUBLISHED
        assert all(row["attnotnull"] for row in first)
        indexes = {
            row["def"]
            for row in await connection.fetch(
                "SELECT pg_get_indexdef(indexrelid) AS def FROM pg_index WHERE indrelid = 'session_costs'::regclass"
            )
        }
        for wanted in ("(project_id, created_at)", "(provider, created_at)", "(session_id, provider, model)"):
            assert any(text.endswith(wanted) for text in indexes), wanted
        keys = await connection.fetch(
            """SELECT pg_get_constraintdef(oid) AS def FROM pg_constraint
               WHERE conrelid = 'session_costs'::regclass AND contype = 'f'"""
        )
        assert {row["def"] for row in keys} == {
            "FOREIGN KEY (session_id) REFERENCES sessions(id)",
            "FOREIGN KEY (project_id) REFERENCES projects(id)",
        }
    finally:
        await connection.close()


async def test_every_amount_of_money_is_exact(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            """SELECT c.relname, a.attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute a
               JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'public' AND c.relkind = 'r' AND attnum > 0 AND NOT attisdropped
                 AND atttypid IN ('numeric'::regtype, 'float4'::regtype, 'float8'::regtype)
                 AND attname <> 'quantity' -- of tokens, on a bill"""
        )
        assert len(rows) > 15
        assert {row["type"] for row in rows} == {"numeric(18,9)"}
    finally:
        await connection.close()


async def test_the_database_refuses_what_the_code_should_never_do(stand: Stand) -> None:
    from .conftest import GATEWAY

    await stand.client(GATEWAY).open_session(opening())
    await stand.sql("INSERT INTO budget_audit (project_id, who, what) SELECT id, 'x', 'y' FROM projects")
    for statement in (
        "UPDATE accounts SET reserved = budget + 1",
        "UPDATE accounts SET reserved = -1",
        "UPDATE accounts SET posted = -1",
        "UPDATE sessions SET state = 'closed'",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await stand.sql(statement)
    for statement in ("UPDATE budget_audit SET who = 'z'", "DELETE FROM budget_audit"):
        with pytest.raises(asyncpg.RaiseError):
            await stand.sql(statement)


def test_migrations_run_twice_and_back(own_postgres: str) -> None:
    from .conftest import _run_sql

    _run_sql(f"{own_postgres}/postgres", "CREATE DATABASE updown")
    url = f"{own_postgres}/updown"
    migrate(url)
    migrate(url)
    unmigrate(url)
    migrate(url)
    _run_sql(url, f"DO $$ BEGIN ASSERT (SELECT version_num FROM alembic_version) = '{head()}'; END $$")
    _run_sql(url, "UPDATE alembic_version SET version_num = '9999'")
    migrate(url)  # a release rolled back leaves the newer schema alone
    _run_sql(url, "DO $$ BEGIN ASSERT (SELECT version_num FROM alembic_version) = '9999'; END $$")
    _run_sql(f"{own_postgres}/postgres", "DROP DATABASE updown WITH (FORCE)")
