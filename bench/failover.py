"""The only SFU dies under three live interviews, again and again: where do new ones go, and when do the old ones go on?

On a cluster of its own (hack/cluster): real pods, real WebRTC guests with the client helper of clients/, the simulator
as provider, a second LiveKit as fallback. Each fault: three interviews talk, the fault, at once one new interview; then
everybody hangs up, the fault is mended and new ones come home again, as the front doors say. Also without any fault of
the SFU: an agent's process, an agent's pod. At the end the books of all sessions are checked against what the simulator
billed.

    CLUSTER_NAME=failover python -m bench.failover --kills 20 [--variant killed --variant udp:5 ...] [--interviews 1]

Every sample is printed; the last line is `RESULT {json}`: the figures of each variant under its name. Seconds count
from the fault: `new` until a new guest and an agent are in a room, `again` until each guest hears an agent's words
again, `restaffed` until the next agent is in the room. Exit 1 when money, an agent or a place was wrong, a bar was
missed, or less was done than was asked for.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

from bench import asked, bars
from bench.failovers import figures, stand, verdict
from bench.failovers.crowd import Crowd
from bench.failovers.door import at_home_again
from bench.failovers.figures import Sample
from bench.failovers.rounds import once, shown
from bench.failovers.variants import VARIANTS, Place, Variant
from hack.chaos import books
from hack.chaos.house import House, eventually
from hack.cluster import lifecycle
from hack.cluster.layout import REPOSITORY, cluster_named
from hack.demo.__main__ import LOCK

Tell = Callable[[str], None]
OVER_SECONDS = 420.0
"""Sessions whose agent vanished are swept after their validity."""
BARS = {
    "kills": ">= 20",
    "new_session_p95_s": "<= 5",
    "resume_p95_s": "<= 12",
    "lost_usd": "== 0",
    "double_agents": "== 0",
    "killed.agreed_p95_s": "<= 10",
    "killed.not_resumed": "== 0",
    "killed.ended": "== 0",
    "killed.double_posted_usd": "== 0",
    "restarted.kills": ">= 5",
    "restarted.moved": "== 0",
    "restarted.not_resumed": "== 0",
    "frozen.kills": ">= 5",
    "frozen.resume_p95_s": "<= 25",
    "udp.kills": ">= 5",
    "udp.new_session_p95_s": "<= 5",
    "udp.resume_p95_s": "<= 12",
    "udp.not_resumed": "== 0",
    "redis.kills": ">= 5",
    "redis.pool_switches": "== 0",
    "redis.sfu_restarts": "== 0",
    "redis.disturbed": "== 0",
    "apiserver.kills": ">= 5",
    "apiserver.not_resumed": "== 0",
    "operator.kills": ">= 5",
    "operator.not_resumed": "== 0",
    "gateway.kills": ">= 5",
    "gateway.double_agents": "== 0",
    "job.kills": ">= 5",
    "job.restaffed_p95_s": "<= 5",
    "job.double_agents": "== 0",
    "pod.kills": ">= 5",
    "pod.restaffed_p95_s": "<= 10",
    "pod.double_agents": "== 0",
}
"""Of the issue. How many faults there are is for who keeps the result: a few for trying are no fault themselves."""
COUNT = "kills"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each variant that names no number of its own")
    variants = f"NAME or NAME:KILLS, repeatable; default killed. {', '.join(VARIANTS)}"
    parser.add_argument("--variant", action="append", type=chosen, help=variants)
    interviews = (
        f"that go on when the fault comes; the bars are for {stand.GUESTS}, fewer tell what the machine's cores cost"
    )
    parser.add_argument(
        "--interviews", type=int, default=stand.GUESTS, choices=range(1, stand.GUESTS + 1), help=interviews
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="no new fault begins later than this")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    options = parser.parse_args(argv)
    name = os.environ.get("CLUSTER_NAME", "failover")
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:6.1f}s] {line}", flush=True)

    todo = [(variant, own or options.kills) for variant, own in options.variant or [chosen("killed")]]
    try:
        house = stand.built(name, tell)
        with LOCK.open("w") as lock, ExitStack() as stack:
            fcntl.flock(lock, fcntl.LOCK_EX)
            network = stand.node(house, stand.HOME).network_namespace
            crowd = stack.enter_context(Crowd(network, *stand.front_door(house), house.folder / "guests.log"))
            at_home_again(house, crowd, "first")
            until = began + options.minutes * 60
            found, undone = done(house, crowd, todo, options.interviews, until, tell)
            result, wrong = settled(house, found, tell)
    except (RuntimeError, TimeoutError, OSError, AssertionError, LookupError) as error:
        print(f"bench-failover: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            lifecycle.down(cluster_named(name))
    short = asked.short(wanted(todo), {variant: len(samples) for variant, samples in found.items()})
    wrong += undone + asked.in_words(short) + missed(result)
    for line in wrong:
        tell(f"WRONG: {line}")
    print(f"RESULT {json.dumps({'commit': commit(), 'at_once': options.interviews} | result | {'short': short})}")
    return 1 if wrong else 0


def wanted(todo: list[tuple[Variant, int]]) -> dict[str, int]:
    """How many of each; one that is named twice has as many as its larger number."""
    counts: dict[str, int] = {}
    for variant, count in todo:
        counts[variant.name] = max(counts.get(variant.name, 0), count)
    return counts


def missed(result: dict[str, Any]) -> list[str]:
    """Bars of what was run."""
    asked_of = {path: bar for path, bar in BARS.items() if path.rpartition(".")[2] != COUNT}
    return [f"bar missed: {line}" for line in bars.missed(result, asked_of)]


def done(
    house: House, crowd: Crowd, todo: list[tuple[Variant, int]], interviews: int, until: float, tell: Tell
) -> tuple[dict[str, list[Sample]], list[str]]:
    """Samples by variant, and what could not be measured. `until`: monotonic, no new fault begins later."""
    found: dict[str, list[Sample]] = {}
    undone = []
    for variant, count in todo:
        samples = found.setdefault(variant.name, [])
        while len(samples) < count and time.monotonic() < until:
            name = f"{variant.name}{len(samples) + 1}"
            try:
                samples.append(once(house, crowd, variant, name, interviews))
            except (RuntimeError, TimeoutError, AssertionError, LookupError) as error:
                # What was measured before counts all the same.
                undone.append(f"{name} could not be measured: {error}")
                tell(undone[-1])
                crowd.leave()
                try:
                    at_home_again(house, crowd, f"{name}-after")
                except (RuntimeError, AssertionError) as still:
                    tell(f"after {name}: {still}")
                break
            tell(f"{name}: {shown(samples[-1])}")
    return found, undone


def commit() -> str:
    """What was measured; it may be older than what is checked out when the result is kept."""
    asked = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()


def chosen(text: str) -> tuple[Variant, int]:
    """NAME or NAME:KILLS; 0: as many as of the others. Raises ArgumentTypeError."""
    name, _, count = text.partition(":")
    if name not in VARIANTS or (count and not count.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}: a variant is one of {', '.join(VARIANTS)}, or NAME:KILLS")
    return VARIANTS[name], int(count or 0)


def settled(house: House, found: dict[str, list[Sample]], tell: Tell) -> tuple[dict[str, Any], list[str]]:
    """The RESULT, and what was wrong, once every session is over."""
    tell("waiting until every session is over")
    eventually("every session is over", lambda: nothing_open(house), OVER_SECONDS, every=3)
    book = books.read(house)
    log = house.simulator_log()
    owner = {usage["key"].rpartition("/")[0]: one.session for one in book.sessions for usage in one.row["usages"]}
    double = figures.answered_after_being_replaced(log, owner)
    given = figures.restored(log, owner)
    wrong = [*book.wrong(), *(f"{session}: an agent went on after its successor had begun" for session in double)]
    home, fallback = stand.url_of(house, stand.AWAY), stand.url_of(house, stand.HOME)
    places: dict[str, Place] = {home: "pool", fallback: "fallback"}
    results = {}
    for name, samples in ((name, samples) for name, samples in found.items() if samples):
        variant = VARIANTS[name]
        mine = {session for one in samples for session in one.sessions.values()}
        of_mine = book.of(mine)
        money = {
            "lost": sum((one.lost_usd for one in of_mine), book.unowned_usd),
            "double": sum((one.double_posted_usd for one in of_mine), Decimal(0)),
        }
        results[name] = figures.result(
            samples, len(double & mine), len(given & mine), money, home, agrees=variant.agrees
        )
        epochs = [int(one.row["epoch"]) for one in of_mine]
        results[name] |= {"claims": sum(epoch - 1 for epoch in epochs)}
        wrong += verdict.wrong(variant, samples, places, given)
    return figures.whole(results), wrong


def nothing_open(house: House) -> bool:
    return not house.rows("SELECT id::text AS id FROM sessions WHERE state = 'open'")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
