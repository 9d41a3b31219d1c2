"""Other LiveKit keys for the pool while guests come and go: both nodes are replaced, twice, and agents sign anew."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.drain_rounds import figures, stand
from bench.drain_rounds.figures import Sample
from bench.drain_rounds.rounds import LOOK_SECONDS, TALKING_SECONDS
from bench.failovers.crowd import Crowd, Event
from bench.failovers.figures import first
from bench.failovers.stand import pool_status
from hack.chaos.house import House
from hack.demo.release import NAMESPACE as RELEASE

ACT = "rotation"
AT_ONCE = 3
COME_SECONDS = 12.0
"""Between two guests."""
STAY_SECONDS = 40.0
OVER_SECONDS = 2400.0
"""15 min belong to tokens that were handed out and to agents that sign with the old pair; four nodes drain."""
SETTLED = "KeysSettled"
OUTSIDE = ("refused", "failed")


def once(house: House, crowd: Crowd, name: str) -> tuple[Sample, dict[str, float]]:
    """From the request to settled keys, and when each stage was seen, in seconds after the request. Raises
    AssertionError when it does not come to its end."""
    stand.both_take_rooms(house)
    before, began = signs_with(house), time.time()
    house.kube("-n", RELEASE, "annotate", "sfupool", stand.POOL, f"talktime.dev/rotate-keys={began:.0f}", "--overwrite")
    stages: dict[str, float] = {}
    came: list[str] = []
    while SETTLED not in stages:
        now, events = time.time(), crowd.events(began)
        stage = stage_of(house)
        if now - began > OVER_SECONDS:
            raise AssertionError(f"the keys are not settled after {OVER_SECONDS:.0f} s: {stage}, {stages}")
        # A pool that was asked a moment ago still tells of settled keys.
        if stages or stage != SETTLED:
            stages.setdefault(stage, now - began)
        if going := leaving(events, came, now):
            crowd.leave(*going)
        if another(events, came, now):
            came.append(f"{name}-{len(came) + 1}")
            crowd.come(came[-1])
        time.sleep(LOOK_SECONDS)
    time.sleep(STAY_SECONDS)
    crowd.leave()
    all_left = crowd.until("everybody has left", lambda told: not present(told, came), 30, began)
    events = [event for event in crowd.events(began) if event["who"] in came]
    sessions = {event["who"]: event["session"] for event in events if event["what"] == "token"}
    wrong = [f"{who} did not talk" for who in came if not figures.talked_on(events, who, began)]
    if not all_left:
        wrong.append(f"not all have left: {present(events, came)}")
    if signs_with(house) == before:
        wrong.append("front doors still sign with the old key")
    cut = figures.broken(events, began, came)
    took = time.time() - began
    return Sample(ACT, began, cut=cut, sessions=sessions, took=took, wrong=wrong), stages


def signs_with(house: House) -> str:
    """Name of the key that front doors, agents and the operator sign with."""
    return house.kube.secret(RELEASE, f"sfu-{stand.POOL}-keys", "api-key")


def stage_of(house: House) -> str:
    conditions = pool_status(house).get("conditions", [])
    return next((str(one["reason"]) for one in conditions if one["type"] == "RotatingKeys"), "")


def present(events: Sequence[Event], came: Sequence[str]) -> list[str]:
    """Guests who have not left yet; who did not get in is not there."""
    gone = {event["who"] for event in events if event["what"] in ("left", *OUTSIDE)}
    return [who for who in came if who not in gone]


def leaving(events: Sequence[Event], came: Sequence[str], now: float) -> list[str]:
    """Guests who have talked for long enough, or have waited for their agent for too long. Pure."""
    out = []
    for who in came:
        token = first(events, who, "token")
        if token is None or first(events, who, "leaving") is not None:
            continue
        stayed = now - token["at"]
        if stayed >= (STAY_SECONDS if figures.talked_on(events, who, token["at"]) else TALKING_SECONDS):
            out.append(who)
    return out


def another(events: Sequence[Event], came: Sequence[str], now: float) -> bool:
    """Whether it is time for one more guest; one that did not get in holds nobody up. Pure."""
    if not came:
        return True
    told = next((first(events, came[-1], what) for what in ("token", *OUTSIDE) if first(events, came[-1], what)), None)
    return told is not None and now - told["at"] >= COME_SECONDS and len(present(events, came)) < AT_ONCE
