"""SFU nodes go under live interviews, again and again: does anybody notice?

On a cluster of its own (hack/cluster): two SFU nodes, real WebRTC guests that talk with real agents, the simulator as
provider. Each round: three interviews, on both nodes; then a scale-down, an upgrade (both nodes, one after the other)
or `kubectl drain`; the guests of the node that drains talk on, a newcomer asks meanwhile, then they hang up and the
node has to go. The other node's guests talk on until after it could have gone: their signals may come through it. At
the end the books are checked against what the simulator billed.

    CLUSTER_NAME=drains python -m bench.drains --scale-downs 20 --upgrades 5 --drains 5 [--minutes 35] [--keep]

Every sample is printed; the last line is `RESULT {json}`. An interview is cut when its guest had to reconnect or was
put out before it hung up, or when the ledger says that it lost its agent, moved, or ended otherwise.
Exit 1 when one was cut or anything else was wrong.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

from bench.drain_rounds import acts, figures, stand
from bench.drain_rounds.figures import Sample
from bench.drain_rounds.rounds import once
from bench.failover import OVER_SECONDS, commit
from bench.failovers.crowd import Crowd
from bench.failovers.stand import node
from hack.chaos import books
from hack.chaos.house import House, eventually
from hack.chaos.interviews import Tell
from hack.cluster import lifecycle
from hack.cluster.layout import cluster_named
from hack.demo.__main__ import LOCK


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.drains", description=__doc__)
    parser.add_argument("--scale-downs", type=int, default=20)
    parser.add_argument("--upgrades", type=int, default=5)
    parser.add_argument("--drains", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="no new round begins later than this")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    options = parser.parse_args(argv)
    name = os.environ.get("CLUSTER_NAME", "drains")
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:6.1f}s] {line}", flush=True)

    try:
        house = stand.built(name, tell)
        with LOCK.open("w") as lock, ExitStack() as stack:
            fcntl.flock(lock, fcntl.LOCK_EX)
            network = node(house, stand.HOME).network_namespace
            crowd = stack.enter_context(Crowd(network, *stand.front_door(house), house.folder / "guests.log"))
            samples: list[Sample] = []
            undone: list[str] = []
            for number, act in enumerate(acts.order(options.scale_downs, options.upgrades, options.drains), 1):
                if time.monotonic() - began > options.minutes * 60:
                    tell("out of time")
                    break
                try:
                    samples.append(once(house, crowd, act, f"{act.name}{number}"))
                except (RuntimeError, TimeoutError, AssertionError, LookupError) as error:
                    # What was measured before counts all the same.
                    undone.append(f"{act.name}{number} could not be measured: {error}")
                    tell(undone[-1])
                    crowd.leave()
                    break
                tell(f"{act.name}{number}: {shown(samples[-1])}")
            result, wrong = settled(house, samples, tell)
            wrong += undone
    except (RuntimeError, TimeoutError, OSError, AssertionError, LookupError) as error:
        print(f"bench-drains: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            lifecycle.down(cluster_named(name))
    for line in wrong:
        tell(f"WRONG: {line}")
    print(f"RESULT {json.dumps(result | {'commit': commit()})}")
    return 1 if wrong else 0


def shown(one: Sample) -> str:
    """A sample in one line."""
    told = []
    for each in one.drained:
        done = "never gone" if each.done_s is None else f"done {each.done_s:.1f} s after they left"
        silent = f", silent: {', '.join(each.silent)}" if each.silent else ""
        done += " (it waited for signals of rooms elsewhere)" if each.held else ""
        begun = f"began after {each.began - one.at:.1f} s, {each.rooms} rooms"
        told.append(f"{each.node} ({each.why}) {begun}, {done}{silent}")
    astray = f"{len(one.astray)} of {len(one.newcomers)} newcomers on a draining node"
    cut = ", ".join(f"{who} {'+'.join(kinds)}" for who, kinds in one.cut.items()) or "nobody"
    refused = f"; {one.refused} evictions refused" if one.refused else ""
    return f"{'; '.join(told)}; {astray}; cut: {cut}{refused}; {one.took:.0f} s"


def settled(house: House, samples: list[Sample], tell: Tell) -> tuple[dict[str, Any], list[str]]:
    """The RESULT, and what was wrong, once every session is over."""
    tell("waiting until every session is over")
    eventually("every session is over", lambda: not any(r["state"] == "open" for r in stand.ends(house)), OVER_SECONDS)
    book = books.read(house)
    ended = figures.cut_off(stand.ends(house), [s for one in samples for s in one.sessions.values()])
    money = {
        "lost": sum((one.lost_usd for one in book.sessions), book.unowned_usd),
        "double": sum((one.double_posted_usd for one in book.sessions), Decimal(0)),
    }
    result = figures.result(samples, ended, money)
    events = stand.told(house)
    wrong = [*book.wrong(), *(f"{session}: {text}" for session, text in ended.items())]
    for number, one in enumerate(samples, 1):
        where = f"round {number} ({one.act})"
        wrong += [f"{where}: {text}" for text in one.wrong]
        wrong += [f"{where}: cut: {who} {'+'.join(kinds)}" for who, kinds in one.cut.items()]
        wrong += [f"{where}: {who} came to a node that drains" for who in one.astray]
        wrong += [f"{where}: {who} did not talk on" for each in one.drained for who in each.silent]
    if events.get("Drained", 0) < result["nodes_drained"] or events.get("DrainDeadlinePassed"):
        wrong.append(f"events of the pool: {events}, nodes drained: {result['nodes_drained']}")
    return result, wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
