"""One round with a deadline: interviews on both nodes, a scale-down, nobody hangs up, the rest is moved by resume."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from bench.drain_rounds import figures, moves, stand
from bench.drain_rounds.acts import SCALE_DOWN
from bench.drain_rounds.figures import Drained
from bench.drain_rounds.moves import Moves
from bench.drain_rounds.rounds import LOOK_SECONDS, TALKING_SECONDS, Round, seated
from bench.failovers.crowd import Crowd, Event
from bench.failovers.figures import sample
from bench.failovers.rounds import talking
from bench.failovers.stand import pool_status
from hack.chaos.house import House

DEADLINE = "20s"
BEGUN_SECONDS = 30.0
GONE_SECONDS = 120.0
"""From the drain's beginning: the deadline, 30 s that livekit-server has to stop, and what a busy machine adds."""
AGAIN_SECONDS = 90.0
"""From then on: who signals through the other node notices the node's death by ICE, after 18 s."""
END_SECONDS = 5.0
"""A second agent would show by then."""


def once(house: House, crowd: Crowd, name: str) -> Moves:
    """From the first guest to two nodes wanted again. Raises AssertionError when it cannot begin."""
    going = seated(house, crowd, SCALE_DOWN, name)
    guests = list(going.seats)
    if len(set(going.seats.values())) < stand.NODES:
        raise AssertionError(f"all on one node: {going.seats}")
    if not crowd.until("everybody talks", lambda events: talking(events, guests), TALKING_SECONDS, going.began):
        raise AssertionError(f"not within {TALKING_SECONDS:.0f} s: everybody talks: {crowd.events(going.began)}")
    stand.set_deadline(house, DEADLINE)
    try:
        return moved(going)
    finally:
        stand.set_deadline(house, stand.DEADLINE)
        stand.scale(house, stand.NODES)


def moved(going: Round) -> Moves:
    """The scale-down, and what becomes of everybody."""
    going.at = time.time()
    stand.scale(going.house, stand.NODES - 1)
    one, deadline = begun(going)
    guests = one.guests
    others = tuple(who for who in going.seats if who not in guests)
    gone = gone_at(going, one)

    def everybody_talks(events: list[Event]) -> bool:
        back = all(moves.again(events, who, going.at) is not None for who in guests)
        return back and all(figures.talked_on(events, who, gone or going.at) for who in others)

    going.crowd.until("everybody talks on", everybody_talks, AGAIN_SECONDS, going.began)
    time.sleep(END_SECONDS)
    going.look(pool_status(going.house))
    events = [event for event in going.crowd.events(going.began) if event["who"] in going.seats]
    seen = sample(events, going.at, [*guests, *others], None)
    seats = stand.seats(going.house, list(seen.sessions.values()))
    going.hang_up((*guests, *others))
    return Moves(
        node=one.node,
        guests=guests,
        others=others,
        sessions=seen.sessions,
        gone=None if gone is None else gone - deadline,
        again={who: moves.again(events, who, going.at) for who in guests},
        counted=one.moved,
        stayed=tuple(who for who in guests if seats.get(seen.sessions[who]) == one.node_id),
        agents=moves.agents_at_end(events, (*guests, *others)),
        most_agents=seen.most_agents,
        renamed=tuple(sorted(seen.renamed)),
        ended=tuple(sorted({e["who"] for e in events if e["what"] in ("ended", "failed")})),
        silent=tuple(who for who in others if not figures.talked_on(events, who, gone or going.at)),
        disturbed=tuple(who for who in others if who in seen.disturbed),
        took=time.time() - going.began,
        wrong=tuple(going.wrong),
    )


def begun(going: Round) -> tuple[Drained, float]:
    """The node that drains, and its deadline as the status tells it (unix seconds)."""
    until = time.monotonic() + BEGUN_SECONDS
    while True:
        status = pool_status(going.house)
        going.look(status)
        for name, one in going.drained.items():
            told = stand.nodes(status).get(name, {}).get("drainDeadline")
            if told is not None:
                return one, datetime.strptime(told, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        if time.monotonic() > until:
            raise AssertionError(f"no node drains: {status}")
        time.sleep(LOOK_SECONDS)


def gone_at(going: Round, one: Drained) -> float | None:
    """When the node had gone; None: not within the patience."""
    until = time.monotonic() + GONE_SECONDS
    while not going.has_gone(one):
        if time.monotonic() > until:
            return None
        time.sleep(LOOK_SECONDS)
    return time.time()
