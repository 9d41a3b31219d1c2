"""SFU nodes go under live interviews, again and again: does anybody notice?

On a cluster of its own (hack/cluster): two SFU nodes, real WebRTC guests that talk with real agents, the simulator as
provider. Each round: three interviews, on both nodes; then a scale-down, an upgrade (both nodes, one after the other)
or `kubectl drain`; the guests of the node that drains talk on, a newcomer asks meanwhile, then they hang up and the
node has to go. The other node's guests talk on until after it could have gone: their signals may come through it. At
the end the books are checked against what the simulator billed. Then some scale-downs with a short deadline under
guests who stay: what is left on the node has to go on elsewhere, by resume, with its session, context and one agent.
`--rotations`: also other LiveKit keys for the pool, 20 min in which guests come and go all the time.

    CLUSTER_NAME=drains python -m bench.drains --scale-downs 20 --upgrades 5 --drains 5 --deadline-moves 3 [--keep]

Every sample is printed; the last line is `RESULT {json}`. An interview is cut when its guest had to reconnect or was
put out before it hung up, or when the ledger says that it lost its agent, moved, or ended otherwise.
Exit 1 when one was cut, anything else was wrong, or less was done than was asked for.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from bench import asked, bars
from bench.drain_rounds import acts, deadline, figures, moves, rotation, stand
from bench.drain_rounds.figures import Sample
from bench.drain_rounds.moves import Moves
from bench.drain_rounds.rounds import once
from bench.failover import OVER_SECONDS, commit
from bench.failovers.crowd import Crowd
from bench.failovers.figures import answered_after_being_replaced, restored
from bench.failovers.stand import node
from hack.chaos import books
from hack.chaos.house import House, eventually
from hack.chaos.interviews import Tell
from hack.cluster import lifecycle
from hack.cluster.layout import cluster_named
from hack.demo.__main__ import LOCK

BARS = {
    "scale_downs": ">= 20",
    "upgrades": ">= 5",
    "node_drains": ">= 5",
    "cut": "== 0",
    "lost_usd": "== 0",
    "double_posted_usd": "== 0",
    "deadline_moves.not_resumed": "== 0",
    "deadline_moves.ended": "== 0",
    "deadline_moves.double_agents": "== 0",
}
"""Of the issue. How many rounds there are is for who keeps the result: a few for trying are no fault themselves."""
DEADLINE_MOVES = "deadline_moves"
COUNTS = ("scale_downs", "upgrades", "node_drains")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.drains", description=__doc__)
    parser.add_argument("--scale-downs", type=int, default=20)
    parser.add_argument("--upgrades", type=int, default=5)
    parser.add_argument("--drains", type=int, default=5)
    parser.add_argument("--deadline-moves", type=int, default=3)
    parser.add_argument("--rotations", type=int, default=0, help="of the pool's LiveKit keys, 20 min each")
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
            todo = acts.order(options.scale_downs, options.upgrades, options.drains)
            rounds = Rounds(house, crowd, todo, options.deadline_moves, options.rotations)
            samples, cut, undone = done(rounds, began + options.minutes * 60, tell)
            result, wrong = settled(house, samples, cut, tell)
    except (RuntimeError, TimeoutError, OSError, AssertionError, LookupError) as error:
        print(f"bench-drains: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            lifecycle.down(cluster_named(name))
    wanted = Counter(rounds.kinds)
    short = asked.short(wanted, Counter(one.act for one in samples) + Counter({DEADLINE_MOVES: len(cut)}))
    wrong += undone + asked.in_words(short)
    wrong += bars.missed(result, {path: bar for path, bar in BARS.items() if path not in COUNTS})
    for line in wrong:
        tell(f"WRONG: {line}")
    print(f"RESULT {json.dumps(result | {'short': short, 'commit': commit()})}")
    return 1 if wrong else 0


@dataclass(frozen=True)
class Rounds:
    """What is to be done, and where."""

    house: House
    crowd: Crowd
    todo: Sequence[acts.Act]
    deadline_moves: int
    rotations: int

    @property
    def kinds(self) -> list[str]:
        """In order."""
        acts = [act.name for act in self.todo]
        return [*acts, *[rotation.ACT] * self.rotations, *[DEADLINE_MOVES] * self.deadline_moves]

    def run(self, number: int, name: str) -> tuple[Sample | Moves, str]:
        """Round `number`, from 0, and what it was like."""
        kind = self.kinds[number]
        if kind == DEADLINE_MOVES:
            moved = deadline.once(self.house, self.crowd, name)
            return moved, moves.shown(moved)
        if kind == rotation.ACT:
            sample, stages = rotation.once(self.house, self.crowd, name)
            return sample, f"{', '.join(f'{at:.0f} s {stage}' for stage, at in stages.items())}; {shown(sample)}"
        sample = once(self.house, self.crowd, self.todo[number], name)
        return sample, shown(sample)


def done(rounds: Rounds, until: float, tell: Tell) -> tuple[list[Sample], list[Moves], list[str]]:
    """All samples, and what could not be measured. `until`: monotonic, no new round begins later."""
    found: list[Sample | Moves] = []
    undone: list[str] = []
    for number, kind in enumerate(rounds.kinds):
        if time.monotonic() > until:
            tell("out of time")
            break
        name = f"{kind}{number + 1}"
        try:
            one, text = rounds.run(number, name)
        except (RuntimeError, TimeoutError, AssertionError, LookupError) as error:
            # What was measured before counts all the same.
            undone.append(f"{name} could not be measured: {error}")
            tell(undone[-1])
            rounds.crowd.leave()
            break
        found.append(one)
        tell(f"{name}: {text}")
    samples = [one for one in found if isinstance(one, Sample)]
    return samples, [one for one in found if isinstance(one, Moves)], undone


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
    return "; ".join([*told, astray, f"cut: {cut}{refused}", f"{len(one.sessions)} interviews", f"{one.took:.0f} s"])


def settled(
    house: House, samples: Sequence[Sample], cut: Sequence[Moves], tell: Tell
) -> tuple[dict[str, Any], list[str]]:
    """The RESULT, and what was wrong, once every session is over."""
    tell("waiting until every session is over")
    eventually("every session is over", lambda: not any(r["state"] == "open" for r in stand.ends(house)), OVER_SECONDS)
    book, rows, log = books.read(house), stand.ends(house), house.simulator_log()
    unmoved = [session for one in cut for session in one.unmoved]
    ended = figures.cut_off(rows, [*(s for one in samples for s in one.sessions.values()), *unmoved])
    owner = {usage["key"].rpartition("/")[0]: one.session for one in book.sessions for usage in one.row["usages"]}
    double, given = answered_after_being_replaced(log, owner), restored(log, owner)
    money = {
        "lost": sum((one.lost_usd for one in book.sessions), book.unowned_usd),
        "double": sum((one.double_posted_usd for one in book.sessions), Decimal(0)),
    }
    result = figures.result(samples, ended, money)
    if cut:
        result[DEADLINE_MOVES] = moves.result(cut, given, double)
    wrong = [*book.wrong(), *(f"{session}: {text}" for session, text in ended.items())]
    wrong += [f"{session}: an agent went on after its successor had begun" for session in double]
    for number, one in enumerate(samples, 1):
        where = f"round {number} ({one.act})"
        wrong += [f"{where}: {text}" for text in one.wrong]
        wrong += [f"{where}: cut: {who} {'+'.join(kinds)}" for who, kinds in one.cut.items()]
        wrong += [f"{where}: {who} came to a node that drains" for who in one.astray]
        wrong += [f"{where}: {who} did not talk on" for each in one.drained for who in each.silent]
    for number, each in enumerate(cut, 1):
        wrong += [f"{DEADLINE_MOVES} {number}: {text}" for text in moves.wrong(each, given, rows)]
    events = stand.told(house)
    passed = events.get("DrainDeadlinePassed", 0)
    if events.get("Drained", 0) < result["nodes_drained"] or passed != len(cut):
        wrong.append(f"events of the pool: {events}, nodes drained: {result['nodes_drained']}, cut: {len(cut)}")
    return result, wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
