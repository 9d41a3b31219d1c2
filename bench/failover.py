"""The only SFU dies under three live interviews, again and again: where do new ones go, and when do the old ones go on?

On a cluster of its own (hack/cluster): real pods, real WebRTC guests with the client helper of clients/, the simulator
as provider, a second LiveKit as fallback. Each fault: three interviews talk, the fault, at once one new interview; then
everybody hangs up, the fault is mended and the pool comes back. At the end the books of all sessions are checked
against what the simulator billed.

    CLUSTER_NAME=failover python -m bench.failover --kills 20 [--variant killed --variant restarted:5 ...] [--keep]

Every sample is printed; the last line is `RESULT {json}`. Seconds count from the fault: `new` until a new guest and an
agent are in a room, `again` until each guest hears an agent's words again. Exit 1 when money or an agent was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from typing import Any

from bench.failovers import figures, stand
from bench.failovers.crowd import Crowd, Event
from bench.failovers.figures import NEVER, Sample
from bench.failovers.variants import VARIANTS, Variant
from hack.chaos import books, faults
from hack.chaos.house import House, eventually
from hack.cluster import lifecycle
from hack.cluster.layout import REPOSITORY, cluster_named
from hack.demo.__main__ import LOCK

Tell = Callable[[str], None]
TALKING_SECONDS = 75.0
"""Within this every guest has said something and has been asked the next question."""
OVER_SECONDS = 420.0
"""Sessions whose agent vanished are swept after their validity."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each variant that names no number of its own")
    variants = f"NAME or NAME:KILLS, repeatable; default killed. {', '.join(VARIANTS)}"
    parser.add_argument("--variant", action="append", type=chosen, help=variants)
    parser.add_argument("--minutes", type=float, default=60.0, help="no new fault begins later than this")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    options = parser.parse_args(argv)
    name = os.environ.get("CLUSTER_NAME", "failover")
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:6.1f}s] {line}", flush=True)

    try:
        house = stand.built(name, tell)
        stand.at_home_again(house)
        with LOCK.open("w") as lock, ExitStack() as stack:
            fcntl.flock(lock, fcntl.LOCK_EX)
            network = stand.node(house, stand.HOME).network_namespace
            crowd = stack.enter_context(Crowd(network, *stand.front_door(house), house.folder / "guests.log"))
            found: dict[str, list[Sample]] = {}
            undone = []
            for variant, own in options.variant or [chosen("killed")]:
                samples = found.setdefault(variant.name, [])
                while len(samples) < (own or options.kills) and time.monotonic() - began < options.minutes * 60:
                    name_of_it = f"{variant.name}{len(samples) + 1}"
                    try:
                        samples.append(once(house, crowd, variant, name_of_it))
                    except (RuntimeError, TimeoutError, AssertionError, LookupError) as error:
                        # What was measured before counts all the same.
                        undone.append(f"{name_of_it} could not be measured: {error}")
                        tell(undone[-1])
                        crowd.leave()
                        with contextlib.suppress(RuntimeError, AssertionError):
                            stand.at_home_again(house)
                        break
                    tell(f"{name_of_it}: {shown(samples[-1])}")
            result, wrong = settled(house, found, tell)
            wrong += undone
    except (RuntimeError, TimeoutError, OSError, AssertionError, LookupError) as error:
        print(f"bench-failover: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            lifecycle.down(cluster_named(name))
    for line in wrong:
        tell(f"WRONG: {line}")
    print(f"RESULT {json.dumps({'commit': commit()} | result)}")
    return 1 if wrong else 0


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


def once(house: House, crowd: Crowd, variant: Variant, name: str) -> Sample:
    """One fault, from the interviews before it to a pool that is back."""
    guests = [f"{name}-{number}" for number in range(1, stand.GUESTS + 1)]
    newcomer = f"{name}-new"
    began = time.time()
    for guest in guests:
        crowd.come(guest)
        time.sleep(0.7)
    if not crowd.until("everybody talks", lambda events: talking(events, guests), TALKING_SECONDS, began):
        raise AssertionError(f"not within {TALKING_SECONDS:.0f} s: everybody talks: {crowd.events(began)}")
    stand.standby_ready(house)
    home = stand.url_of(house, stand.AWAY)
    elsewhere = [event for event in crowd.events(began) if event["what"] == "token" and event["server_url"] != home]
    if elsewhere:
        raise AssertionError(f"not in the pool that is to fail: {elsewhere}")
    sessions = tuple(event["session"] for event in crowd.events(began) if event["what"] == "token")
    with variant.fault(house, sessions) as at:
        fault = at.timestamp()
        crowd.come(newcomer)

        def all_there(events: list[Event]) -> bool:
            one = figures.sample(events, fault, guests, newcomer, breaks=variant.breaks)
            return one.new is not None and None not in one.again.values()

        crowd.until("everybody talks again", all_there, NEVER, began)
        # A second agent would show now; and what goes wrong may go wrong later.
        time.sleep(5)
        one = figures.sample(crowd.events(began), fault, guests, newcomer, breaks=variant.breaks)
        again = faults.sfu_began(house, stand.AWAY)
        if again is not None and again > at:
            one = replace(one, server_back=(again - at).total_seconds())
        crowd.leave()
        here = {event["who"] for event in crowd.events(began) if event["what"] == "token"}
        crowd.until("everybody has left", lambda events: left(events) >= here, 30, began)
    stand.at_home_again(house)
    return one


def talking(events: Sequence[Event], guests: Sequence[str]) -> bool:
    """Each has spoken, and has heard the agent after that."""
    spoke = {guest: figures.first(events, guest, "turn") for guest in guests}
    return all(
        turn is not None and figures.first(events, guest, "heard", turn["at"]) is not None
        for guest, turn in spoke.items()
    )


def left(events: Sequence[Event]) -> set[str]:
    return {event["who"] for event in events if event["what"] == "left"}


def shown(one: Sample) -> str:
    """A sample in one line."""

    def seconds(value: float | None) -> str:
        return "never" if value is None else f"{value:.2f} s"

    again = ", ".join(seconds(value) for value in one.again.values())
    words = f"new {seconds(one.new)} at {one.new_server}, again {again}; {len(one.moved)} moved"
    if one.server_back is not None:
        words += f", the server's process back after {seconds(one.server_back)}"
    return (
        f"{words}, {len(one.disturbed)} disturbed, {len(one.ended)} ended, most agents seen at once {one.most_agents}"
    )


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
    results = {}
    for name, samples in ((name, samples) for name, samples in found.items() if samples):
        mine = {session for one in samples for session in one.sessions.values()}
        of_mine = book.of(mine)
        money = {
            "lost": sum((one.lost_usd for one in of_mine), book.unowned_usd),
            "double": sum((one.double_posted_usd for one in of_mine), Decimal(0)),
        }
        results[name] = figures.result(samples, len(double & mine), len(given & mine), money)
        epochs = [int(one.row["epoch"]) for one in of_mine]
        results[name] |= {"claims": sum(epoch - 1 for epoch in epochs)}
        wrong += [f"{name}: {one.most_agents} agents in a room" for one in samples if one.most_agents > 1]
    # The first variant's figures are the result; the others stand beside it, each in a cell of its own.
    first, *others = results
    return {**results[first], **{name: results[name] for name in others}}, wrong


def nothing_open(house: House) -> bool:
    return not house.rows("SELECT id::text AS id FROM sessions WHERE state = 'open'")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
