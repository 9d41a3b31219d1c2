"""Where the front doors send new interviews now: they are asked, by a guest who comes and leaves again.

What the pool's status says is another thing where nobody could write it meanwhile.
"""

from __future__ import annotations

import time

from bench.failovers import figures, stand
from bench.failovers.crowd import Crowd, Event
from hack.chaos.house import House

LOOK_SECONDS = 20.0
"""What one guest waits for its agent."""
LEAVE_SECONDS = 15.0
EVERY_SECONDS = 3.0
HOME_SECONDS = 300.0
"""An operator that lost its Lease again and again is started by its kubelet after up to 160 s, then the failback."""


def at_home_again(house: House, crowd: Crowd, name: str, seconds: float = HOME_SECONDS) -> None:
    """Until two interviews in a row find room and agent in the pool itself, with what front doors may take to learn of
    a switch between them and after them: a failback that is still ahead would show. Raises AssertionError.

    `name`: of the round; no other may have it.
    """
    home = stand.url_of(house, stand.AWAY)
    deadline = time.monotonic() + seconds
    looks, at_home, where = 0, 0, ""
    while at_home < 2:
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: new interviews come home; the last of {looks}: {where}")
        looks += 1
        where = placed(crowd, f"{name}-door{looks}")
        at_home = at_home + 1 if where == home else 0
        time.sleep(stand.AGREED_SECONDS if at_home else EVERY_SECONDS)


def placed(crowd: Crowd, who: str) -> str:
    """Where that guest met an agent, or in words why it did not."""
    began = time.time()

    def over(events: list[Event]) -> bool:
        refused = any(event["who"] == who and event["what"] in ("refused", "failed") for event in events)
        return refused or figures.new_interview(events, who) is not None

    def gone(events: list[Event]) -> bool:
        return figures.first(events, who, "left") is not None

    crowd.come(who)
    crowd.until(f"{who} is there", over, LOOK_SECONDS, began)
    events = [event for event in crowd.events(began) if event["who"] == who]
    crowd.leave(who)
    if not crowd.until(f"{who} has left", gone, LEAVE_SECONDS, began):
        crowd.begin_anew()
    if figures.new_interview(events, who) is None:
        return f"no interview: {events}"
    return figures.place(events, who)
