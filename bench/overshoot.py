"""Never over budget, side by side: the published enforcer, its order mended, a polled counter, and the ledger.

Every run draws a trace (who comes, what each response truly costs, which agents die, which replies are lost) and puts
it through all four. Ours is the real ledger over a real PostgreSQL in compressed time (bench/enforcers/database.py);
some runs go through its HTTP server, which is killed with SIGKILL on the way. No fsync: the ledger dies, the database
does not. Last line: `RESULT {json}`; peers mean and worst per run, ours worst. Exit 1 when a bar of ours is missed.

    python -m bench.overshoot --runs 100 --sessions 500 --http-runs 10 --seed 1 --processes 2
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvloop

from bench import bars
from bench.enforcers import database, peers, worker

PROGRESS_SEC = 10.0
BARS = {
    "runs": ">= 100",
    "sessions": ">= 50000",
    "http_runs": ">= 10",
    "ours_overshoot_usd": "== 0",
    "usable_ratio": ">= 0.99",
    "false_refusals": "== 0",
    "reserved_after_usd": "== 0",
    "seconds": "<= 1200",
}


def jobs(runs: int, sessions: int, http_runs: int, seed: int) -> list[worker.Job]:
    """All runs; those through HTTP take longest and go first."""
    return [worker.Job(order, seed + order, sessions, http=order < http_runs) for order in range(runs)]


def work(job: worker.Job, dsn: str) -> worker.Result:
    """In a process of the pool: its own database per run."""
    logging.disable(logging.WARNING)

    async def whole() -> worker.Result:
        return await worker.run(job, await database.make(dsn, f"run_{job.order}"))

    return uvloop.run(whole())


def results(todo: Sequence[worker.Job], dsn: str, processes: int) -> Iterator[worker.Result]:
    """Results as they come, with a line of progress on stderr every ten seconds."""
    begun, told, done, transactions = time.monotonic(), 0.0, 0, 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting: set[Future[worker.Result]] = {pool.submit(work, job, dsn) for job in todo}
        while waiting:
            finished, waiting = wait(waiting, PROGRESS_SEC, FIRST_COMPLETED)
            for one in finished:
                result = one.result()
                done, transactions = done + 1, transactions + result.transactions
                yield result
            elapsed = time.monotonic() - begun
            if elapsed - told >= PROGRESS_SEC or not waiting:
                told = elapsed
                line = f"{done}/{len(todo)} runs, {transactions} transactions, {elapsed:.0f} s"
                print(line, file=sys.stderr, flush=True)


def figures(found: Sequence[worker.Result], seconds: float) -> dict[str, Any]:
    """What RESULT says (pure). USD."""
    ours = [one.ours for one in found]
    counted = [one.counted for one in ours]
    told: dict[str, Any] = {
        "runs": len(found),
        "sessions": sum(one.job.sessions for one in found),
        "http_runs": sum(one.job.http for one in found),
        "server_kills": sum(one.server_kills for one in found),
    }
    for name in peers.PEERS:
        overs = [one.peers[name] for one in found]
        told[f"{name}_overshoot_usd"] = _money(sum(overs, Decimal(0)) / len(overs))
        told[f"{name}_overshoot_worst_usd"] = _money(max(overs))
    usable = [one.usable for one in counted if one.usable is not None]
    told |= {
        "ours_overshoot_usd": _exact(max(one.overshoot for one in ours)),
        "usable_ratio": float(round(min(usable, default=Decimal(0)), 5)),
        "usable_runs": len(usable),
        "false_refusals": sum(one.false_refusals for one in counted),
        "reserved_after_usd": _exact(sum((one.reserved_after for one in ours), Decimal(0))),
        "admitted": sum(one.admitted for one in counted),
        "refused": sum(one.refused for one in counted),
        "ended_by_budget": sum(one.ended_by_budget for one in counted),
        "crashes": sum(one.crashes for one in counted),
        "repeats": sum(one.repeats for one in counted),
        "differing_replies": sum(one.differing_replies for one in counted),
        "unmetered_usd": _money(sum((one.unmetered for one in ours), Decimal(0)) / len(ours)),
        "billed_truth_usd": _money(sum((one.truth for one in counted), Decimal(0)) / len(counted)),
        "posted_usd": _money(sum((one.posted for one in ours), Decimal(0)) / len(ours)),
        "books_add_up": all(one.adds_up for one in ours),
        "transactions": sum(one.transactions for one in found),
        "seconds": round(seconds, 1),
    }
    return told


def missed(told: dict[str, Any], problems: Sequence[str]) -> list[str]:
    """The bars of ours that were missed, in words (pure); how much is run is the caller's choice."""

    def kept(figure: str) -> bool:
        return bars.met(told[figure], BARS[figure])

    found = {
        "overshoot": kept("ours_overshoot_usd"),
        "false refusals": kept("false_refusals"),
        "usable ratio": told["usable_runs"] > 0 and kept("usable_ratio"),
        "reserved after": kept("reserved_after_usd"),
        "a repeat got another reply": told["differing_replies"] == 0,
        "books": told["books_add_up"],
        "posted is not what was billed": not problems,
    }
    return [name for name, good in found.items() if not good]


def _money(amount: Decimal) -> float:
    return float(round(amount, 2))


def _exact(amount: Decimal) -> str:
    """Not rounded: a billionth over is over."""
    return f"{amount.normalize():f}" if amount else "0"


def commit() -> str:
    """The commit measured."""
    asked = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--sessions", type=int, default=500, help="arrivals per run")
    parser.add_argument("--http-runs", type=int, default=10, help="of the runs, through the server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster is stopped on the way out
    measured, begun = commit(), time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="talktime-overshoot-"))
    try:
        with database.postgres(home) as dsn:
            todo = jobs(args.runs, args.sessions, args.http_runs, args.seed)
            found = list(results(todo, dsn, args.processes))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    told = figures(found, time.monotonic() - begun)
    problems = [f"seed {one.job.seed}: {text}" for one in found for text in one.ours.counted.problems]
    for text in problems[:20]:
        print(text)
    bad = missed(told, problems)
    print("missed:" if bad else "all bars kept", ", ".join(bad))
    told |= {"cpus": os.cpu_count(), "commit": measured}
    print("RESULT", json.dumps(told))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
