"""One round: interviews that talk, a fault and a newcomer, everybody again, and a pool that takes new rooms itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from bench.failovers import figures, stand
from bench.failovers.crowd import Crowd, Event
from bench.failovers.door import at_home_again
from bench.failovers.figures import NEVER, Sample
from bench.failovers.switch import Standing, Watched
from bench.failovers.variants import Fault, Variant
from hack.chaos import faults
from hack.chaos.house import House

TALKING_SECONDS = 75.0
"""Within this every guest has said something and has been asked the next question."""
STATUS_SECONDS = 30.0
"""What the pool's status may take after everybody is there again, to say where."""


def once(house: House, crowd: Crowd, variant: Variant, name: str, interviews: int = stand.GUESTS) -> Sample:
    """One fault, from the interviews before it to a pool that is back. Raises AssertionError when it cannot begin or
    the pool does not come back."""
    guests = [f"{name}-{number}" for number in range(1, interviews + 1)]
    variant.prepare(house)
    began = time.time()
    sessions = under_way(house, crowd, guests, began)
    before = Standing.now(house) if variant.calm else None
    with ExitStack() as stack:
        watched = stack.enter_context(Watched(house)) if variant.agrees else None
        with variant.fault(house, tuple(sessions.values())) as fault:
            hit = [guest for guest, session in sessions.items() if session in fault.hit]
            one = seen(house, crowd, variant, fault, guests, hit, f"{name}-new", began)
            if watched is not None:
                said = watched.until("Fallback", fault.at.timestamp(), STATUS_SECONDS)
                fallback = stand.url_of(house, stand.HOME)
                one = replace(one, agreed=figures.agreed(crowd.events(began), fault.at.timestamp(), fallback, said))
            crowd.leave()
            here = {event["who"] for event in crowd.events(began) if event["what"] == "token"}
            if not crowd.until("everybody has left", lambda events: left(events) >= here, 30, began):
                crowd.begin_anew()
    at_home_again(house, crowd, name)
    if before is not None:
        now = Standing.now(house)
        one = replace(one, switches=now.switches - before.switches, sfu_restarted=now.restarted_since(before))
    return one


def under_way(house: House, crowd: Crowd, guests: Sequence[str], began: float) -> dict[str, str]:
    """Everybody talks, in the pool that is to fail, and the agents at the fallback wait; each guest's session."""
    for guest in guests:
        crowd.come(guest)
        time.sleep(0.7)
    if not crowd.until("everybody talks", lambda events: talking(events, guests), TALKING_SECONDS, began):
        raise AssertionError(f"not within {TALKING_SECONDS:.0f} s: everybody talks: {crowd.events(began)}")
    stand.standby_ready(house)
    home = stand.url_of(house, stand.AWAY)
    tokens = [event for event in crowd.events(began) if event["what"] == "token"]
    elsewhere = [event for event in tokens if event["server_url"] != home]
    if elsewhere:
        raise AssertionError(f"not in the pool that is to fail: {elsewhere}")
    return {event["who"]: event["session"] for event in tokens}


def seen(
    house: House,
    crowd: Crowd,
    variant: Variant,
    fault: Fault,
    guests: Sequence[str],
    hit: Sequence[str],
    newcomer: str,
    began: float,
) -> Sample:
    """What the guests tell of the fault, until all are there again or the minute is over."""
    coming = newcomer if variant.newcomers else None
    if coming is not None:
        crowd.come(coming)

    def sample(events: Sequence[Event]) -> Sample:
        return figures.sample(events, fault.at.timestamp(), guests, coming, breaks=variant.breaks, hit=hit)

    crowd.until("everybody talks again", lambda events: sample(events).whole, NEVER, began)
    # A second agent would show now; and what goes wrong may go wrong later.
    time.sleep(5)
    one = sample(crowd.events(began))
    again = faults.sfu_began(house, stand.AWAY)
    if again is not None and again > fault.at:
        one = replace(one, server_back=(again - fault.at).total_seconds())
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

    words = [f"new {seconds(one.new)} at {one.new_server}"] if one.awaited else []
    words += [f"again {', '.join(seconds(value) for value in one.again.values())}"]
    if one.restaffed:
        words.append(f"next agent there {', '.join(seconds(value) for value in one.restaffed.values())}")
    if one.agreed is not None:
        words.append(f"front door and status agree after {seconds(one.agreed)}")
    if one.server_back is not None:
        words.append(f"the server's process back after {seconds(one.server_back)}")
    if one.switches is not None:
        words.append(f"{one.switches} switches of the pool, SFU restarted: {one.sfu_restarted}")
    counts = f"{len(one.moved)} moved, {len(one.disturbed)} disturbed, {len(one.ended)} ended"
    return "; ".join([*words, counts, f"most agents seen at once {one.most_agents}"])
