"""How many grants a second the ledger gives through HTTP, on one hot Project and over many, beside pgbench running the
identical transaction on the same PostgreSQL in the same run.

Real parts: Debian's PostgreSQL with fsync and synchronous commit, the ledger in processes of its own, HTTP with
ServiceAccount-like tokens. One grant = one `use`: dedupe, one metered response posted, the grant renewed. The bare
figure replays the statements the ledger really sent for one such call (PostgreSQL's log, ledger_load/bare.py). pgbench
and the ledger take turns. That the generator is not the bottleneck is measured: its own CPU share of one core, and what
it asks a server that does nothing. At the end the balances are recomputed from the entries. Last line `RESULT {json}`.

    python -m bench.ledger            about 3 minutes
    python -m bench.ledger --small    a sample for `make test`, about 20 s
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from bench.issuer import Issuer
from bench.ledger_load.bare import SENTINEL, Statement, captured, pgbench, script
from bench.ledger_load.load import Agent, Measured, at_intervals, serve_trivially, without_pause
from bench.ledger_load.stand import (
    Database,
    House,
    Server,
    adds_up,
    cpu_seconds,
    free_port,
    ledgers,
    listens,
    postgres,
)

BARS = {"hot_ratio": ">= 0.7", "p99_ms_500": "< 50", "adds_up": "== True"}
EVERY_SEC = 20.0
PGBENCH_CLIENTS = 16
# pgbench's clients work on sessions 10 to 25 (two digits, so that a client number can stand for them).
FIRST_BARE = 10


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything. Times in seconds."""

    clients: tuple[int, ...]
    projects: int
    sessions: int
    seconds: float
    warm_sec: float
    rounds: int
    paced_sec: float
    servers: int


FULL = Size((1, 16, 64, 500), 100, 500, 5, 1, 3, 20, 2)
SMALL = Size((16,), 4, 40, 2, 0.5, 1, 3, 1)


@dataclass(frozen=True, slots=True)
class People:
    """Attached sessions: on the hot Project, over many Projects, and those that pgbench works on."""

    hot: Sequence[Agent]
    many: Sequence[Agent]
    bare: Sequence[Agent]


async def filled(ports: Sequence[int], issuer: Issuer, size: Size) -> People:
    """Prices, Projects and sessions."""
    names = [f"p{index}" for index in range(size.projects)]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{ports[0]}") as http:
        house = House(http, issuer)
        await house.price()
        for name in ("bare", "hot", *names):
            await house.project(name)
        bare = await house.agents(["bare"], FIRST_BARE + PGBENCH_CLIENTS + 1)
        return People(await house.agents(["hot"], size.sessions), await house.agents(names, size.sessions), bare)


class Bench:
    """One run on one PostgreSQL."""

    def __init__(self, database: Database, servers: Sequence[Server], home: Path, size: Size) -> None:
        self._database, self._servers, self._home, self._size = database, servers, home, size
        self._ports = [server.port for server in servers]
        self._next_n = SENTINEL + 1000

    def run(self, people: People) -> dict[str, Any]:
        """All figures. Turns are taken: what else the machine does then hits both."""
        size, result = self._size, dict[str, Any]()
        *others, last = sorted(people.bare, key=lambda one: one.session_id)
        statements = uvloop.run(captured(self._database, self._ports, last, others))
        print("one use is:", *(" ".join(one.sql.split())[:100] for one in statements), sep="\n  ", flush=True)
        result["statements_per_use"] = len(statements)
        bare, hot = [], []
        for _ in range(size.rounds):
            bare.append(self._bare(statements, people.bare))
            hot.append(self._unpaused("hot", people.hot[:PGBENCH_CLIENTS], result))
        result["bare_sql_per_s"] = round(statistics.median(bare), 1)
        result["hot_grants_per_s"] = round(statistics.median(one.per_second for one in hot), 1)
        result["hot_ratio"] = round(result["hot_grants_per_s"] / result["bare_sql_per_s"], 3)
        result["hot_p99_ms"] = round(statistics.median(one.p99_ms for one in hot), 1)
        result["generator_cpu_share"] = round(max(one.cpu_share for one in hot), 2)
        for clients in size.clients:
            if clients != PGBENCH_CLIENTS:
                self._noted(f"hot_{clients}", self._unpaused("hot", people.hot[:clients], {}), result)
            many = self._unpaused("many", people.many[:clients], {})
            self._noted(f"many_{clients}", many, result)
            if clients == PGBENCH_CLIENTS:
                result["many_grants_per_s"] = round(many.per_second, 1)
        paced = uvloop.run(at_intervals(self._ports, people.hot, EVERY_SEC, size.paced_sec, random.Random(1)))
        result[f"p99_ms_{size.sessions}"] = round(paced.p99_ms, 1)
        result["paced_p50_ms"], result["paced_worst_ms"] = round(paced.p50_ms, 1), round(paced.worst_ms, 1)
        result["paced_calls"] = paced.calls
        result["generator_per_s"] = round(self._generator(people.hot[:PGBENCH_CLIENTS]).per_second)
        result["generator_headroom"] = round(result["generator_per_s"] / result["hot_grants_per_s"], 1)
        return result

    def _bare(self, statements: Sequence[Statement], agents: Sequence[Agent]) -> float:
        """Grants a second of pgbench."""
        self._next_n += 10_000_000
        text = script(statements, max(agent.session_id for agent in agents), FIRST_BARE)
        found = pgbench(
            self._database, text, self._home, PGBENCH_CLIENTS, max(1, round(self._size.seconds)), self._next_n
        )
        print(f"pgbench {PGBENCH_CLIENTS}: {found}", flush=True)
        return found.per_second

    def _unpaused(self, name: str, agents: Sequence[Agent], costs: dict[str, Any]) -> Measured:
        pids = [self._database.pid, *(server.pid for server in self._servers)]
        before, begun = [cpu_seconds(pid) for pid in pids], time.monotonic()
        found = uvloop.run(without_pause(self._ports, agents, self._size.warm_sec, self._size.seconds))
        used = [cpu_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]
        # The warm-up is in the CPU seconds: its calls are taken at the same rate.
        calls = found.per_second * (time.monotonic() - begun)
        costs["postgres_cpu_ms"] = round(used[0] * 1000 / calls, 3)
        costs["ledger_cpu_ms"] = round(sum(used[1:]) * 1000 / calls, 3)
        print(f"{name} {len(agents)}: {found} {costs}", flush=True)
        return found

    @staticmethod
    def _noted(name: str, found: Measured, result: dict[str, Any]) -> None:
        result[f"{name}_per_s"], result[f"{name}_p99_ms"] = round(found.per_second, 1), round(found.p99_ms, 1)

    def _generator(self, agents: Sequence[Agent]) -> Measured:
        """The same generator against a server that does nothing, in a process of its own."""
        port = free_port()
        process = get_context("spawn").Process(target=_trivial, args=(port,), daemon=True)
        process.start()
        try:
            while not listens(port):
                time.sleep(0.05)
            copies = [Agent(agent.session_id, agent.token) for agent in agents]
            return uvloop.run(without_pause([port], copies, 0.5, min(3.0, self._size.seconds)))
        finally:
            process.terminate()
            process.join(5)


def _trivial(port: int) -> None:
    uvloop.run(serve_trivially(port))


def main() -> int:
    """Entry point; exit 1 when the money does not add up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--small", action="store_true", help="a sample")
    parser.add_argument("--servers", type=int, help="ledger processes")
    args = parser.parse_args()
    # Stopped by a signal, it still stops its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    size = SMALL if args.small else FULL
    home = Path(tempfile.mkdtemp(prefix="talktime-bench-"))
    try:
        issuer = Issuer(home)
        count = args.servers or size.servers
        with postgres(home) as database, ledgers(database.dsn, issuer, count) as servers:
            people = asyncio.run(filled([server.port for server in servers], issuer, size))
            result = Bench(database, servers, home, size).run(people)
            result |= {"ledger_processes": count, "cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1)}
            result["told_to_wait"] = sum(agent.told_to_wait for agent in (*people.hot, *people.many))
            result["adds_up"] = asyncio.run(adds_up(database.dsn, "bare"))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print("RESULT", json.dumps(result))
    return 0 if result["adds_up"] else 1


if __name__ == "__main__":
    sys.exit(main())
