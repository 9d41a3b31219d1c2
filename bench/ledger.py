"""How many grants a second the ledger gives through HTTP, on one hot Project and over many, beside pgbench running the
identical transaction on the same PostgreSQL in the same run.

Real parts: Debian's PostgreSQL with fsync and synchronous commit, the ledger in processes of its own, HTTP with
ServiceAccount-like tokens. One grant = one `use`: dedupe, one metered response posted, the grant renewed. The bare
figure replays the statements the ledger really sent for one such call (PostgreSQL's log, ledger_load/bare.py). pgbench
and the ledger take turns, and so does the ledger on a Project whose soft limit is latched, with many closed sessions
(ledger_load/latched.py). That the generator is not the bottleneck is measured: its own CPU share of one core, and what
it asks a server that does nothing. At the end the balances are recomputed from the entries. Last line `RESULT {json}`;
exit 1 when a bar is missed.

    python -m bench.ledger            about 5 minutes
    python -m bench.ledger --small    a sample for `make test`, about 40 s; of the bars only the books
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

from bench import bars
from bench.issuer import Issuer
from bench.ledger_load.bare import SENTINEL, Statement, captured, pgbench, script
from bench.ledger_load.latched import add_closed, latch_soft
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
    transactions,
)

BARS = {"hot_ratio": ">= 0.7", "p99_ms_500": "< 50", "adds_up": "== True"}
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
    every_sec: float
    servers: int
    closed: int


# Of each session's renewals in the paced part.
INTERVALS = 3
FULL = Size((1, 16, 64, 500), 100, 500, 5, 1, 3, 20, 2, 50_000)
SMALL = Size((16,), 4, 40, 2, 0.5, 3, 3, 1, 20_000)


@dataclass(frozen=True, slots=True)
class People:
    """Attached sessions: on the hot Project, on the one at its soft limit, over many Projects, and those that pgbench
    works on.
    """

    hot: Sequence[Agent]
    soft: Sequence[Agent]
    many: Sequence[Agent]
    bare: Sequence[Agent]


async def filled(ports: Sequence[int], issuer: Issuer, size: Size) -> People:
    """Prices, Projects and sessions."""
    names = [f"p{index}" for index in range(size.projects)]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{ports[0]}") as http:
        house = House(http, issuer)
        await house.price()
        for name in ("bare", "hot", "soft", *names):
            await house.project(name)
        bare = await house.agents(["bare"], FIRST_BARE + PGBENCH_CLIENTS + 1)
        hot, soft = await house.agents(["hot"], size.sessions), await house.agents(["soft"], size.sessions)
        return People(hot, soft, await house.agents(names, size.sessions), bare)


@dataclass(frozen=True, slots=True)
class Unpaused:
    """A run without pauses, and what one grant cost: CPU in ms, and how many shared a transaction."""

    found: Measured
    postgres_cpu_ms: float
    ledger_cpu_ms: float
    grants_per_commit: float


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
        uvloop.run(add_closed(self._database.dsn, "soft", size.closed))
        uvloop.run(latch_soft(self._database.dsn, "soft"))
        self._in_turns(statements, people, result)
        for clients in size.clients:
            if clients != PGBENCH_CLIENTS:
                self._noted(f"hot_{clients}", self._unpaused("hot", people.hot[:clients]).found, result)
            many = self._unpaused("many", people.many[:clients]).found
            self._noted(f"many_{clients}", many, result)
            if clients == PGBENCH_CLIENTS:
                result["many_grants_per_s"] = round(many.per_second, 1)
        every = size.every_sec
        paced = uvloop.run(at_intervals(self._ports, people.hot, every, INTERVALS * every, random.Random(1)))
        result[f"p99_ms_{size.sessions}"] = round(paced.p99_ms, 1)
        result["paced_p50_ms"], result["paced_worst_ms"] = round(paced.p50_ms, 1), round(paced.worst_ms, 1)
        result["paced_calls"] = paced.calls
        result["generator_per_s"] = round(self._generator(people.hot[:PGBENCH_CLIENTS]).per_second)
        result["generator_headroom"] = round(result["generator_per_s"] / result["hot_grants_per_s"], 1)
        return result

    def _in_turns(self, statements: Sequence[Statement], people: People, result: dict[str, Any]) -> None:
        """pgbench, the hot Project, the one at its soft limit, and again; ratios are those of neighbours."""
        bare, hot, soft = [], [], []
        for _ in range(self._size.rounds):
            bare.append(self._bare(statements, people.bare))
            hot.append(self._unpaused("hot", people.hot[:PGBENCH_CLIENTS]))
            soft.append(self._unpaused("soft", people.soft[:PGBENCH_CLIENTS]))
        grants, latched = ([one.found.per_second for one in runs] for runs in (hot, soft))
        ratios = _ratios(grants, bare)
        result |= {
            "postgres_cpu_ms": round(statistics.median(one.postgres_cpu_ms for one in hot), 3),
            "ledger_cpu_ms": round(statistics.median(one.ledger_cpu_ms for one in hot), 3),
            "grants_per_commit": round(statistics.median(one.grants_per_commit for one in hot), 1),
            "bare_sql_per_s": round(statistics.median(bare), 1),
            "hot_grants_per_s": round(statistics.median(grants), 1),
            "hot_ratio": round(statistics.median(ratios), 3),
            "hot_ratio_best": round(max(ratios), 3),
            "hot_p99_ms": round(statistics.median(one.found.p99_ms for one in hot), 1),
            "soft_latched_per_s": round(statistics.median(latched), 1),
            "soft_latched_ratio": round(statistics.median(_ratios(latched, grants)), 3),
            "soft_latched_postgres_cpu_ms": round(statistics.median(one.postgres_cpu_ms for one in soft), 3),
            "soft_latched_closed": self._size.closed,
            "generator_cpu_share": round(max(one.found.cpu_share for one in hot), 2),
        }

    def _bare(self, statements: Sequence[Statement], agents: Sequence[Agent]) -> float:
        """Grants a second of pgbench."""
        self._next_n += 10_000_000
        text = script(statements, max(agent.session_id for agent in agents), FIRST_BARE)
        found = pgbench(
            self._database, text, self._home, PGBENCH_CLIENTS, max(1, round(self._size.seconds)), self._next_n
        )
        print(f"pgbench {PGBENCH_CLIENTS}: {found}", flush=True)
        return found.per_second

    def _unpaused(self, name: str, agents: Sequence[Agent]) -> Unpaused:
        pids = [self._database.pid, *(server.pid for server in self._servers)]
        dsn = self._database.dsn
        asked, commits = sum(agent.n for agent in agents), uvloop.run(transactions(dsn))
        before = [cpu_seconds(pid) for pid in pids]
        found = uvloop.run(without_pause(self._ports, agents, self._size.warm_sec, self._size.seconds))
        used = [cpu_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]
        # All of this has the warm-up in it.
        calls, commits = sum(agent.n for agent in agents) - asked, uvloop.run(transactions(dsn)) - commits
        told = Unpaused(found, used[0] * 1000 / calls, sum(used[1:]) * 1000 / calls, calls / commits)
        print(f"{name} {len(agents)}: {told}", flush=True)
        return told

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


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def missed(told: dict[str, Any], *, small: bool = False) -> list[str]:
    """The bars that were missed or not measured, in words (pure). A sample runs beside other work: it has its books."""
    asked = {"adds_up": BARS["adds_up"]} if small else BARS
    found = ((path, bars.figure(told, path), bar) for path, bar in asked.items())
    return [f"{path} {value}, bar {bar}" for path, value, bar in found if not bars.met(value, bar)]


def _trivial(port: int) -> None:
    uvloop.run(serve_trivially(port))


def main() -> int:
    """Entry point; exit 1 when a bar is missed."""
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
            result["told_to_wait"] = sum(agent.told_to_wait for agent in (*people.hot, *people.soft, *people.many))
            result["adds_up"] = asyncio.run(adds_up(database.dsn, "bare"))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    bad = missed(result, small=args.small)
    print("missed:" if bad else "all bars kept", ", ".join(bad))
    print("RESULT", json.dumps(result))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
