"""One round: interviews on both nodes, an act that drains, guests who talk on and leave, a node that goes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.drain_rounds import figures, stand
from bench.drain_rounds.acts import Act, Doing
from bench.drain_rounds.figures import Drained, Sample
from bench.failovers.crowd import Crowd, Event
from bench.failovers.figures import first
from bench.failovers.stand import pool_status
from hack.chaos.house import House

GUESTS = 3
TALKING_SECONDS = 75.0
"""Within this every guest has heard the agent."""
STAY_SECONDS = 15.0
"""Guests of a node that drains talk on for at least so long."""
PATIENCE_SECONDS = 60.0
"""After this they hang up though they have not talked on, which is told."""
FRONT_DOORS_SECONDS = 5.0
"""From the status that says Draining until a newcomer asks."""
OTHERS_SECONDS = 35.0
"""Guests of other nodes talk on for so long after the drain began: a node that waits for nobody is removed after 30 s
(TALKTIME_DRAIN_SETTLE). One that is still there then carries their signal connections, and they hang up, too; newcomers
came when it took no new ones and stay until it has gone."""
AFTER_SECONDS = 2.0
"""Who is left stays so long after that."""
LOOK_SECONDS = 0.7


def once(house: House, crowd: Crowd, act: Act, name: str) -> Sample:
    """From the first guest to the act taken back. Raises AssertionError when it cannot begin or does not end."""
    going = seated(house, crowd, act, name)
    try:
        going.run()
    finally:
        act.mend(house)
        going.doing.stop()
    time.sleep(AFTER_SECONDS)
    return going.ended()


def seated(house: House, crowd: Crowd, act: Act, name: str) -> Round:
    """Guests have heard their agents, on both nodes if that can be had. Raises AssertionError when they do not."""
    began = time.time()
    guests = [f"{name}-{number}" for number in range(1, GUESTS + 1)]
    # The first ones come while the node of the round before is still being replaced; the rest finds two nodes.
    for guest in guests[:-1]:
        crowd.come(guest)
        time.sleep(1.5)
    stand.both_take_rooms(house)
    crowd.come(guests[-1])

    await_words(crowd, guests, began)
    going = Round(house, crowd, act, name, began, stand.pods(house))
    going.place()
    if len(set(going.seats.values())) < stand.NODES:
        # Two front doors may choose the same node before either knows of the other's room.
        guests.append(f"{name}-{GUESTS + 1}")
        crowd.come(guests[-1])
        await_words(crowd, guests, began)
        going.place()
    return going


def await_words(crowd: Crowd, guests: list[str], began: float) -> None:
    """Until every guest has heard the agent. Raises AssertionError."""

    def talking(events: list[Event]) -> bool:
        return all(figures.there(events, guest) for guest in guests)

    if not crowd.until("everybody talks", talking, TALKING_SECONDS, began):
        raise AssertionError(f"not within {TALKING_SECONDS:.0f} s: everybody talks: {crowd.events(began)}")


@dataclass
class Round:
    """What is seen from the act on. `at`: the act, unix seconds; `before`: the pods that were there then."""

    house: House
    crowd: Crowd
    act: Act
    name: str
    began: float
    before: dict[str, stand.Pod]
    at: float = 0.0
    doing: Doing = field(default_factory=Doing)
    drained: dict[str, Drained] = field(default_factory=dict)
    newcomers: list[str] = field(default_factory=list)
    seats: dict[str, str] = field(default_factory=dict)
    """Guest to node id."""
    astray: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)

    def run(self) -> None:
        """The act, until every node that had to go has gone."""
        self.place()
        self.at = time.time()
        self.doing = self.act.begin(self.house)
        deadline = time.time() + figures.NEVER * self.act.nodes
        while not self.over():
            if time.time() > deadline:
                raise AssertionError(f"{self.act.name} is not over: {self.drained}; status {pool_status(self.house)}")
            status = pool_status(self.house)
            self.look(status)
            self.welcome()
            for one in self.drained.values():
                if one.left is None:
                    self.send_off(one)
                elif one.done is None:
                    self.see_off(one, status)
            time.sleep(LOOK_SECONDS)
        self.wrong += self.doing.wrong()

    def over(self) -> bool:
        done = [one for one in self.drained.values() if one.done is not None]
        return len(done) >= self.act.nodes and self.doing.over

    def look(self, status: dict[str, Any]) -> None:
        """Nodes that have begun to drain, and what the status says of one that has ended."""
        for name, node in stand.nodes(status).items():
            if node["state"] in ("Draining", "Moving") and name not in self.drained:
                began, why, node_id = time.time(), str(node.get("drainReason")), str(node.get("nodeID", ""))
                self.place()
                self.drained[name] = Drained(name, node_id, why, began, self.on(node_id))
                if why != self.act.why:
                    self.wrong.append(f"{name} drains for {why}, not {self.act.why}")
        last = status.get("lastDrain") or {}
        mine = self.drained.get(last.get("node", ""))
        if mine is not None and ended(last) >= int(self.at):
            mine.moved = last.get("moved")

    def on(self, node_id: str) -> tuple[str, ...]:
        """Guests who sit there."""
        gone = {e["who"] for e in self.crowd.events(self.began) if e["what"] == "leaving"}
        return tuple(who for who, seat in self.seats.items() if seat == node_id and who not in gone)

    def place(self) -> None:
        """Which node each guest's room is on."""
        events = self.crowd.events(self.began)
        sessions = {e["session"]: e["who"] for e in events if e["what"] == "token" and e["who"] not in self.seats}
        mine = {session: who for session, who in sessions.items() if who.startswith(f"{self.name}-")}
        found = stand.seats(self.house, list(mine))
        self.seats |= {mine[session]: node for session, node in found.items()}

    def welcome(self) -> None:
        """One newcomer per node that drains, as soon as front doors may be asked; where its room came to."""
        events = self.crowd.events(self.began)
        if len(self.newcomers) < len(self.drained):
            latest = max(one.began for one in self.drained.values())
            if time.time() >= latest + FRONT_DOORS_SECONDS:
                self.newcomers.append(f"{self.name}-new{len(self.newcomers) + 1}")
                self.crowd.come(self.newcomers[-1])
        for who in self.newcomers:
            if who not in self.seats and (token := first(events, who, "token")) is not None:
                self.place()
                if self.seats.get(who) in {one.node_id for one in self.drained.values() if one.began < token["at"]}:
                    self.astray.add(who)

    def send_off(self, one: Drained) -> None:
        """Its guests hang up when they have talked on for long enough and the newcomer is there."""
        events, now = self.crowd.events(self.began), time.time()
        one.guests = self.on(one.node_id)
        silent = tuple(who for who in one.guests if not figures.talked_on(events, who, one.began))
        newcomer = len(self.newcomers) >= len(self.drained) and all(figures.there(events, n) for n in self.newcomers)
        if now < one.began + STAY_SECONDS or ((silent or not newcomer) and now < one.began + PATIENCE_SECONDS):
            return
        one.silent = silent
        if self.doing.held is False and one.guests:
            self.wrong.append(f"kubectl drain was over while {one.rooms} interviews lived on {one.node}")
        if self.has_gone(one):
            self.wrong.append(f"{one.node} had gone while {one.rooms} interviews lived on it")
        if not newcomer:
            self.wrong.append("the newcomer was not there")
        one.left = self.hang_up(one.guests)

    def hang_up(self, guests: tuple[str, ...]) -> float:
        """When the last of them had left."""
        now = time.time()
        if not guests:
            return now
        self.crowd.leave(*guests)

        def all_left(events: list[Event]) -> bool:
            return all(first(events, who, "left") is not None for who in guests)

        if not self.crowd.until("guests leave", all_left, 30, self.began):
            self.wrong.append(f"not all of {guests} have left")
            return now
        return max(float(e["at"]) for e in self.crowd.events(self.began) if e["what"] == "left" and e["who"] in guests)

    def see_off(self, one: Drained, status: dict[str, Any]) -> None:
        """Has it gone, is kubectl content, and does another node stand in for it?"""
        if one.node not in self.gone and not self.has_gone(one):
            if time.time() >= one.began + OTHERS_SECONDS and not one.held:
                one.held = True
                gone = {e["who"] for e in self.crowd.events(self.began) if e["what"] == "leaving"}
                one.left = self.hang_up(tuple(who for who in self.seats if who not in (*self.newcomers, *gone)))
            return
        self.gone.add(one.node)
        renewed = not self.act.renews or stand.renewed(self.house, status, self.before) >= len(self.gone)
        if renewed and self.doing.over:
            one.done = time.time()

    def has_gone(self, one: Drained) -> bool:
        now = stand.pods(self.house).get(one.node)
        return now is None or now.uid != self.before[one.node].uid

    def ended(self) -> Sample:
        """Everybody leaves."""
        self.look(pool_status(self.house))
        events = self.crowd.events(self.began)
        sessions = {
            e["who"]: e["session"] for e in events if e["what"] == "token" and e["who"].startswith(f"{self.name}-")
        }
        gone = {e["who"] for e in events if e["what"] == "leaving"}
        self.hang_up(tuple(who for who in sessions if who not in gone))
        events = [e for e in self.crowd.events(self.began) if e["who"].startswith(f"{self.name}-")]
        for one in self.drained.values():
            if one.moved != 0:
                self.wrong.append(f"status.lastDrain of {one.node} says {one.moved} moved")
        return Sample(
            act=self.act.name,
            at=self.at,
            drained=list(self.drained.values()),
            newcomers=tuple(self.newcomers),
            astray=tuple(sorted(self.astray)),
            cut=figures.broken(events, self.at, self.newcomers),
            sessions=sessions,
            refused=self.doing.refusals(),
            took=time.time() - self.began,
            wrong=self.wrong,
        )


def ended(last: dict[str, Any]) -> float:
    """When the drain in `status.lastDrain` ended, unix seconds."""
    return datetime.strptime(last["ended"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
