"""A throw-away PostgreSQL whose clock is ours: virtual time without a change to the ledger's code, and a witness.

The ledger asks PostgreSQL what time it is (NOW, clock_timestamp). Functions of those names in a schema that comes first
in the search path answer from a row the bench moves. The witness is a trigger: it sees every version of every balance
and of every session, inside its transaction, and notes each that is over its budget or limit.

No fsync and no synchronous commit: nobody pulls this machine's plug, and only the ledger's process is killed.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from talktime_ledger.desk.pushing import push_project
from talktime_ledger.migrate import migrate
from talktime_ledger.store import database, projects
from talktime_ledger.store.database import Connection

from bench.enforcers import study

TEMPLATE = "migrated"

VIRTUAL = """
CREATE SCHEMA virtual;
CREATE TABLE virtual.clock (at timestamptz NOT NULL);
INSERT INTO virtual.clock VALUES ('2026-01-01T00:00:00Z');
CREATE FUNCTION virtual.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM virtual.clock';
CREATE FUNCTION virtual.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM virtual.clock';
CREATE TABLE virtual.witness (what text NOT NULL, over_usd numeric(18,9) NOT NULL);
CREATE FUNCTION virtual.note_account() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO virtual.witness VALUES (NEW.kind, NEW.posted + NEW.reserved - NEW.budget); RETURN NULL; END $$;
CREATE FUNCTION virtual.note_session() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO virtual.witness VALUES ('session', NEW.posted + NEW.reserved - NEW.limit_usd); RETURN NULL; END $$;
CREATE TRIGGER witness AFTER INSERT OR UPDATE ON public.accounts FOR EACH ROW
  WHEN (NEW.posted + NEW.reserved > NEW.budget) EXECUTE FUNCTION virtual.note_account();
CREATE TRIGGER witness AFTER INSERT OR UPDATE ON public.sessions FOR EACH ROW
  WHEN (NEW.posted + NEW.reserved > NEW.limit_usd) EXECUTE FUNCTION virtual.note_session();
"""


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """DSN without a database, of a server with a migrated template."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    if account:
        os.chown(home, account.pw_uid, account.pw_gid)
    prefix = ["runuser", "-u", "postgres", "--"] if account else []
    port, data = free_port(), home / "data"
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": home}
    initdb = [str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync"]
    subprocess.run([*prefix, *initdb, "--no-instructions"], **quiet)
    control = [*prefix, str(binaries / "pg_ctl"), "-D", str(data), "-w", "-t", "60"]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c max_connections=60"
    options += " -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    subprocess.run([*control, "-o", options, "-l", str(home / "log"), "start"], **quiet)
    try:
        dsn = f"postgresql://postgres@127.0.0.1:{port}"
        asyncio.run(execute(f"{dsn}/postgres", f"CREATE DATABASE {TEMPLATE}"))
        migrate(f"{dsn}/{TEMPLATE}")
        yield dsn
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], stdout=subprocess.DEVNULL, cwd=home, check=False)


async def execute(dsn: str, *statements: str) -> None:
    connection = await database.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def make(dsn: str, name: str) -> str:
    """DSN of a new ledger database with virtual clock, witness and rate cards."""
    await execute(f"{dsn}/postgres", f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    url = f"{dsn}/{name}"
    path = f"ALTER DATABASE {name} SET search_path = virtual, pg_catalog, public"
    await execute(url, VIRTUAL, path)
    connection = await database.connect(url)
    try:
        for card, spec in study.cards().items():
            body = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
            await connection.execute("INSERT INTO public.rate_cards (name, spec) VALUES ($1, $2)", card, body)
        await projects.bump(connection, "rates")
    finally:
        await connection.close()
    return url


async def tick(connection: Connection, at: datetime) -> None:
    """Moves the clock. A second ledger is said to beat all the time: compressed time is no downtime."""
    await connection.execute("WITH moved AS (UPDATE virtual.clock SET at = $1) UPDATE heartbeat SET alive_at = $1", at)


async def found_study(connection: Connection, project: str, spent: Decimal, at: datetime) -> int:
    """A Project of which sessions before our time have spent this much, USD; returns its account."""
    await tick(connection, at)
    async with connection.transaction():
        found, _ = await push_project(connection, study.NAMESPACE, project, study.push(), "bench", at)
    account = await connection.fetchval(
        "UPDATE accounts SET posted = $2 WHERE project_id = $1 AND kind = 'project' RETURNING id",
        found.id,
        spent,
    )
    await connection.execute("DELETE FROM virtual.witness")
    return int(account)


async def worst_over(connection: Connection) -> Decimal:
    """The most that any balance or session was ever over its budget or limit since the study was founded, USD."""
    value: Decimal = await connection.fetchval("SELECT COALESCE(MAX(over_usd), 0) FROM virtual.witness")
    return value


async def books(connection: Connection, account: int, spent: Decimal) -> dict[str, Any]:
    """How an account stands; `adds_up`: every balance is the sum of its rows."""
    row = await connection.fetchrow(
        """SELECT a.budget, a.posted, a.reserved, a.open_sessions,
             (SELECT COUNT(*) FROM sessions s WHERE s.account_id = a.id AND s.state = 'open') AS open,
             (SELECT COALESCE(SUM(c.unmetered_usd), 0) FROM session_costs c WHERE c.project_id = a.project_id)
               AS unmetered,
             a.posted = $2 + (SELECT COALESCE(SUM(e.amount_usd), 0) FROM entries e WHERE e.account_id = a.id)
             AND a.reserved = (SELECT COALESCE(SUM(s.reserved), 0) FROM sessions s WHERE s.account_id = a.id)
             AND a.open_sessions = (SELECT COUNT(*) FROM sessions s WHERE s.account_id = a.id AND s.state = 'open')
             AND (SELECT COALESCE(SUM(s.posted), 0) FROM sessions s WHERE s.account_id = a.id)
               = (SELECT COALESCE(SUM(e.amount_usd), 0) FROM entries e WHERE e.account_id = a.id) AS adds_up
           FROM accounts a WHERE a.id = $1""",
        account,
        spent,
    )
    return dict(row)
