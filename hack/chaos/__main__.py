"""`make chaos`: real interviews on a cluster of its own, faults in the middle of them, and what that did to the money.

python3 -m hack.chaos [--rounds N] [--seed N] [--without-long-outage] [--keep]
The last line is `RESULT {json}`. Exit 1 when a cent was lost, counted twice or is still held. About 20 minutes.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from hack.chaos import books, projects, rounds, verdict
from hack.chaos.books import Books
from hack.chaos.house import House, eventually
from hack.chaos.rounds import Chronicle
from hack.cluster import lifecycle
from hack.cluster.layout import cluster_named, state_root
from hack.demo import clusters, release
from hack.demo.__main__ import LOCK
from hack.demo.release import NAMESPACE

VALUES = Path(__file__).with_name("values.yaml")
SWEPT_SECONDS = 600
"""Validity 300 s, sweep 60 s after it, and the ledger's own downtime on top."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m hack.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("CHAOS_ROUNDS") or 1))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("CHAOS_SEED") or time.time()))
    parser.add_argument(
        "--without-long-outage", action="store_true", help="leave out the ten minutes without PostgreSQL"
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    options = parser.parse_args(argv)
    name = os.environ.get("CLUSTER_NAME", "chaos")
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:6.1f}s] {line}", flush=True)

    tell(f"seed {options.seed}, {options.rounds} rounds, cluster {name!r}")
    try:
        house = built(name, tell)
        with LOCK.open("w") as lock:
            tell("waiting for other real sessions on this machine to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
            chronicle = suffer(house, options.seed, options.rounds, not options.without_long_outage, tell)
            found = settled(house, tell)
    except (RuntimeError, TimeoutError, OSError, AssertionError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            lifecycle.down(cluster_named(name))
    wrong = verdict.unkept(chronicle, found)
    for line in wrong:
        tell(f"WRONG: {line}")
    figures = {"seed": options.seed, "rounds": options.rounds, "seconds": round(time.monotonic() - began)}
    print(f"RESULT {json.dumps(result(figures, chronicle, found, wrong))}")
    return 1 if wrong else 0


def built(name: str, tell: Callable[[str], None]) -> House:
    """Talktime with the ledger's own times (validity 300 s), two SFU nodes, and the Projects that will suffer."""
    kube, images = clusters.local(name)
    folder = state_root() / "chaos"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    house = House(cluster_named(name), kube, images, folder, (release.VALUES, VALUES))
    tell("installing Talktime")
    house.install()
    release.apply_examples(kube)
    kube("--namespace", NAMESPACE, "scale", "sfu/eu", "--replicas=2")
    tell("waiting for the Projects to be Ready")
    projects.place(house)
    return house


def suffer(house: House, seed: int, count: int, with_long_outage: bool, tell: Callable[[str], None]) -> Chronicle:
    """All rounds, in the seed's order."""
    chance = random.Random(seed)
    chronicle = Chronicle()
    plan: list[Callable[..., None]] = [rounds.crashes, rounds.outages] * count
    plan += [rounds.long_outage] if with_long_outage else []
    chance.shuffle(plan)
    for number, act in enumerate(plan, start=1):
        tell(f"--- {number} of {len(plan)}: {act.__name__}")
        act(house, chance, house.folder / f"{number}-{act.__name__}", chronicle, tell)
    return chronicle


def settled(house: House, tell: Callable[[str], None]) -> Books:
    """The books once every session is over; what a lost agent left open is swept after its validity."""
    tell("waiting until every session is over")
    with_nothing_open = partial(_nothing_open, house)
    eventually("every session is over", with_nothing_open, SWEPT_SECONDS, every=5)
    return books.read(house)


def _nothing_open(house: House) -> bool:
    return not house.rows("SELECT id::text AS id FROM sessions WHERE state = 'open'")


def result(figures: dict[str, Any], chronicle: Chronicle, found: Books, wrong: list[str]) -> dict[str, Any]:
    """The RESULT line (pure)."""
    by_fault = verdict.verdicts(chronicle, found)
    total = {
        "sessions": len(found.sessions),
        "posted_usd": f"{sum((one.ai_usd for one in found.sessions), Decimal(0)):f}",
        "billed_usd": f"{sum((one.truth_usd for one in found.sessions), found.unowned_usd):f}",
        "lost_usd": f"{sum((one.lost_usd for one in found.sessions), found.unowned_usd):f}",
        "double_posted_usd": f"{sum((one.double_posted_usd for one in found.sessions), Decimal(0)):f}",
        "phantom_reserved_usd": f"{found.reserved_usd:f}",
        "wrong": len(wrong),
    }
    return {**figures, **total, **{fault: one.figures() for fault, one in by_fault.items()}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
