"""The identical transaction without us: the statements the ledger really sent for one `use`, taken from PostgreSQL's
own log with their parameters, replayed by pgbench. So the two cannot drift apart.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg  # type: ignore[import-untyped] # ships no types

from bench.ledger_load.load import Agent, answered, connected
from bench.ledger_load.stand import Database, binaries

# A request number no other call has: wherever it stands in a parameter, pgbench counts on.
SENTINEL = 777_001
_EXECUTED = re.compile(r"execute [^:]+: (.*)", re.DOTALL)
# asyncpg asks what a type is when a connection meets it first: three statements, once; on a busy machine the warm-up
# does not reach every connection.
_ASKS_FOR_TYPES = re.compile(r"WITH RECURSIVE typeinfo_tree|set_config\('jit'")
_PARAMETER = re.compile(r"\$\d+ = (NULL|'(?:[^']|'')*')", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and its parameters as literals; no parameters and no preparation for BEGIN and COMMIT."""

    sql: str
    literals: tuple[str, ...] = ()
    prepared: bool = True


async def captured(database: Database, ports: Sequence[int], agent: Agent, others: Sequence[Agent]) -> list[Statement]:
    """What the ledger sends for one `use` of the agent, from BEGIN to COMMIT. `others`: more agents of its account."""
    connection = await asyncpg.connect(database.dsn)
    lines = await connected(ports[:1], 1 + len(others))
    try:
        # Steady state: plans prepared, a burn known. All at once wait for one account, each on a connection of the
        # ledger's pool.
        for _ in range(5):
            await asyncio.gather(*(answered(*one) for one in zip(lines, [agent, *others], strict=True)))
        await connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        await connection.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(0.5)
        agent.n = SENTINEL - 1
        await answered(lines[0], agent)
        await connection.execute("ALTER SYSTEM SET log_statement = 'none'")
        await connection.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(0.5)
    finally:
        for line in lines:
            line.close()
        await connection.close()
    records = [json.loads(text) for path in sorted(database.logs.glob("*.json")) for text in path.open()]
    return transaction(records)


def transaction(records: Sequence[dict[str, object]]) -> list[Statement]:
    """The transaction in which the sentinel was written (pure): of that backend, from its BEGIN to its COMMIT."""
    marked = next(index for index, one in enumerate(records) if f"resp_{SENTINEL}" in str(one.get("detail", "")))
    mine = [one for one in records if one["pid"] == records[marked]["pid"]]
    at = mine.index(records[marked])
    begin = max(index for index in range(at) if "BEGIN" in str(mine[index]["message"]))
    found = []
    for one in mine[begin:]:
        message = str(one["message"])
        executed = _EXECUTED.fullmatch(message)
        if executed and _ASKS_FOR_TYPES.search(executed[1]):
            continue
        if executed:
            literals = _PARAMETER.findall(str(one.get("detail", "")).removeprefix("parameters: "))
            found.append(Statement(executed[1], tuple(literals)))
        else:
            found.append(Statement(message.removeprefix("statement: ").rstrip("; \n"), (), prepared=False))
        if "COMMIT" in message:
            return found
    raise AssertionError("no COMMIT after the sentinel")


def script(statements: Sequence[Statement], session_id: str, first_session: int) -> str:
    """A pgbench script (pure): client k works on session first_session + k, every run with the next number and key."""
    head, body = ["\\if :prepared = 0"], []
    for index, one in enumerate(statements):
        if not one.prepared:
            body.append(f"{one.sql};")
            continue
        head.append(f"PREPARE s{index} AS {one.sql};")
        literals = ", ".join(one.literals).replace(session_id, f"{session_id[:-2]}:s")
        # In JSON a blank goes before the variable: pgbench takes `::` for a cast.
        literals = literals.replace(f":{SENTINEL}", ": :n").replace(str(SENTINEL), ":n")
        body.append(f"EXECUTE s{index}({literals});" if one.literals else f"EXECUTE s{index};")
    head += [f"\\set s :client_id + {first_session}", "\\set prepared 1", "\\endif", "\\set n :n + 1"]
    return "\n".join([*head, *body, ""])


@dataclass(frozen=True, slots=True)
class Bare:
    """What pgbench found."""

    per_second: float
    latency_ms: float
    transactions: int


def pgbench(database: Database, text: str, home: Path, clients: int, seconds: int, first_n: int) -> Bare:
    """Runs the script; AssertionError when a transaction failed."""
    path = home / "use.sql"
    path.write_text(text)
    where = urlsplit(database.dsn)
    command = [str(binaries() / "pgbench"), "-h", "127.0.0.1", "-p", str(where.port), "-U", "postgres", "-n"]
    command += ["-M", "simple", "-f", str(path), "-c", str(clients), "-j", "2", "-T", str(seconds)]
    command += ["-D", "prepared=0", "-D", f"n={first_n}", "postgres"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "aborted" not in done.stderr, done.stderr[-2000:]

    def figure(pattern: str) -> float:
        found = re.search(pattern, done.stdout)
        assert found, done.stdout
        return float(found[1])

    failed = figure(r"number of failed transactions: (\d+)")
    assert failed == 0, done.stdout
    return Bare(
        figure(r"tps = ([\d.]+)"),
        figure(r"latency average = ([\d.]+)"),
        int(figure(r"transactions actually processed: (\d+)")),
    )
