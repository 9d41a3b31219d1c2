"""Which SFU nodes stay, which drain, which go. Pure: what is seen and the time come in, steps come out (laws 5 and 6).

A node that has to go (fewer nodes wanted, its machine cordoned, its template outdated) first gets a successor where the
number of nodes is to stay, then takes no new rooms (Draining), then lives until its last room has ended by itself. Only
when it is known to hold no room and to carry no signal connection of another node's room (clients come to any node), or
when the deadline the SRE chose has passed, it is removed. Nothing is remembered here: the mark on the pod says since
when and why, and a cause that is gone takes the mark away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal

SETTLE = 30.0
"""Seconds from the ledger's taking the word "Draining" until a count of 0 rooms is believed: gateways follow within
10 s, a room asked for before that is made within seconds, and a count is at most 20 s old (settings `sfu_stale`)."""

CUT_GRACE = 30
"""Seconds a node gets to stop after its deadline; resume moves the sessions it still had."""

TIME = "%Y-%m-%dT%H:%M:%SZ"


class Why(StrEnum):
    """Why a node drains; the reason of the condition and of the event."""

    SCALE_DOWN = "ScaleDown"
    CORDONED = "Cordoned"
    UPDATE = "Update"
    DELETED = "Deleted"


@dataclass(frozen=True)
class Mark:
    """The annotation on a pod: since when it drains and why."""

    since: datetime
    why: Why

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """None for no mark; one that cannot be read counts as none and is written anew."""
        try:
            since, why = text.split()
            return cls(datetime.strptime(since, TIME).replace(tzinfo=UTC), Why(why))
        except ValueError:
            return None

    def render(self) -> str:
        return f"{self.since.strftime(TIME)} {self.why.value}"


@dataclass(frozen=True)
class Node:
    """One SFU pod. `slot`: the StatefulSet it is of, empty for one of an older version; `orphan`: that is gone (its
    operator died between the two deletions of a removal). `rooms`: fresh count, None = unknown; `signals`: clients'
    signal connections that came to it, for whatever node's rooms: they break when it goes.

    `takes`: may new rooms go there (its health). `dead`: none of its containers runs, so it holds no room. `homeless`:
    no machine fits. `told`: seconds since the ledger took the word that it drains. `ends`: when a terminating pod is
    killed at the latest.
    """

    name: str
    slot: str
    takes: Literal["good", "bad", "unknown"]
    rooms: int | None
    orphan: bool = False
    dead: bool = False
    homeless: bool = False
    outdated: bool = False
    cordoned: bool = False
    mark: Mark | None = None
    told: float | None = None
    terminating: bool = False
    ends: datetime | None = None
    signals: int = 0

    @property
    def empty(self) -> bool:
        return self.rooms == 0 and self.signals == 0


@dataclass(frozen=True)
class State:
    """What is said about a node that goes. `until`: its deadline; `carries`: it has no room left and stays for signal
    connections of other nodes' rooms."""

    kind: Literal["Draining", "Moving"]
    why: Why
    since: datetime | None
    until: datetime
    carries: bool = False


@dataclass(frozen=True)
class Removal:
    """Delete this pod, and its StatefulSet unless `slot` is empty. `grace` None = the pod's own, long one.

    `moved`: sessions it still had (None = not known); 0 where the drain ended by itself.
    """

    name: str
    slot: str
    why: Why
    moved: int | None
    grace: int | None = None


@dataclass(frozen=True)
class Held:
    """A node that should go and has to wait."""

    name: str
    reason: Literal["LastReadyNode", "RoomsUnknown", "SuccessorNotReady"]
    message: str


@dataclass
class Decision:
    """`keep`: StatefulSets that stay for now; `drop`: those without a pod that go at once; `add`: new ones."""

    keep: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    add: int = 0
    begin: dict[str, Why] = field(default_factory=dict)
    cancel: list[str] = field(default_factory=list)
    remove: list[Removal] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    again: float = 0.0
    """Seconds until something is due though nothing else changes; 0 = nothing."""

    def look_again(self, seconds: float) -> None:
        seconds = max(seconds, 0.5)
        self.again = min(self.again, seconds) if self.again else seconds


def decide(
    wanted: int,
    fixed: bool,
    slots: Sequence[str],
    nodes: Sequence[Node],
    deadline: timedelta,
    now: datetime,
    elsewhere: bool = False,
    settle: float = SETTLE,
) -> Decision:
    """The steps to take now.

    `wanted`: nodes to have; `fixed`: an SRE said so (then all surplus nodes drain at once, else one after the other).
    `elsewhere`: new rooms go to the fallback, so even the last node may drain.
    """
    live = [n for n in nodes if not n.terminating]
    ending = {n.slot for n in nodes if n.terminating and n.mark} - {n.slot for n in live}
    out = Decision()
    leaving = _causes(live)
    _swap(live, leaving)
    staying = _staying(slots, ending, leaving, live)
    _pick_update(wanted, nodes, staying, live, leaving, out)
    staying = _staying(slots, ending, leaving, live)
    if len(staying) < wanted:
        _revive(wanted - len(staying), live, leaving)
        staying = _staying(slots, ending, leaving, live)
        out.add = wanted - len(staying)
    elif len(staying) > wanted:
        _pick_surplus(len(staying) - wanted, wanted, fixed, staying, nodes, leaving, elsewhere, out)
    out.cancel = [n.name for n in live if n.mark and n.name not in leaving]
    _begin(wanted, live, leaving, elsewhere, out)
    for n in live:
        if n.name in leaving:
            _go_on(n, leaving[n.name], deadline, settle, now, out)
    for n in nodes:
        if n.terminating:
            _ending(n, deadline, now, out)
    gone = {r.slot for r in out.remove} | set(out.drop) | ending
    out.keep = [s for s in slots if s not in gone]
    return out


def _causes(live: Sequence[Node]) -> dict[str, Why]:
    """Nodes that have to go for a cause that can be seen now; one without a StatefulSet needs a successor."""
    out: dict[str, Why] = {}
    for n in live:
        if n.cordoned:
            out[n.name] = Why.CORDONED
        elif n.orphan or not n.slot:
            out[n.name] = Why.UPDATE
        elif n.mark and (n.mark.why is Why.SCALE_DOWN or (n.mark.why is Why.UPDATE and n.outdated)):
            out[n.name] = n.mark.why
    return out


def _swap(live: Sequence[Node], leaving: dict[str, Why]) -> None:
    """Who drained only because fewer were wanted, and is still talked on, stays when another node is empty meanwhile:
    that one can go at once. (The surplus of an uncordoned machine: its successor was not counted yet.)"""
    busy = [n for n in live if leaving.get(n.name) is Why.SCALE_DOWN and n.takes == "good" and n.rooms]
    idle = [n for n in live if n.name not in leaving and n.takes == "good" and n.empty]
    for n in sorted(busy, key=lambda n: (-(n.rooms or 0), n.name)):
        instead = next((m for m in idle if m.outdated or not n.outdated), None)
        if instead is not None:
            idle.remove(instead)
            del leaving[n.name]
            leaving[instead.name] = Why.SCALE_DOWN


def _staying(
    slots: Sequence[str], ending: set[str], leaving: Mapping[str, Why], live: Sequence[Node]
) -> dict[str, Node | None]:
    """StatefulSets that are to stay, with their node if there is one."""
    by_slot = {n.slot: n for n in live if n.slot}
    return {s: by_slot.get(s) for s in slots if s not in ending and not (s in by_slot and by_slot[s].name in leaving)}


def _pick_update(
    wanted: int,
    nodes: Sequence[Node],
    staying: Mapping[str, Node | None],
    live: Sequence[Node],
    leaving: dict[str, Why],
    out: Decision,
) -> None:
    """One outdated node at a time, the emptiest; the next only when the successor of the last one takes rooms."""
    outdated = [n for n in staying.values() if n and n.outdated]
    if not outdated or Why.UPDATE in leaving.values():
        return
    if any(n.terminating and n.mark and n.mark.why is Why.UPDATE for n in nodes):
        return
    waiting = [s for s, n in staying.items() if n is None or (not n.outdated and n.takes != "good")]
    if waiting and len(staying) <= wanted:
        text = f"{outdated[0].name} is updated when {waiting[0]} answers its health check"
        out.held.append(Held(outdated[0].name, "SuccessorNotReady", text))
        return
    chosen = min(outdated, key=lambda n: (not n.dead, n.rooms is None, n.rooms or 0, n.name))
    leaving[chosen.name] = Why.UPDATE


def _revive(count: int, live: Sequence[Node], leaving: dict[str, Why]) -> None:
    """More are wanted again: the fullest of those that drained only because fewer were wanted come back first."""
    back = [n for n in live if leaving.get(n.name) is Why.SCALE_DOWN]
    for n in sorted(back, key=lambda n: (-(n.rooms or 0), n.name))[:count]:
        del leaving[n.name]


def _pick_surplus(
    count: int,
    wanted: int,
    fixed: bool,
    staying: Mapping[str, Node | None],
    nodes: Sequence[Node],
    leaving: dict[str, Why],
    elsewhere: bool,
    out: Decision,
) -> None:
    """StatefulSets without a running node first, then the emptiest node. Never one whose rooms are not known."""
    for slot in sorted((s for s, n in staying.items() if n is None), reverse=True)[:count]:
        out.drop.append(slot)
        count -= 1
    for n in sorted((n for n in staying.values() if n and n.dead), key=lambda n: n.name, reverse=True)[:count]:
        leaving[n.name] = Why.SCALE_DOWN
        count -= 1
    going = sum(1 for n in nodes if n.mark and n.mark.why is Why.SCALE_DOWN)
    count = count if fixed else min(count, 1 - going)
    running = [n for n in staying.values() if n and not n.dead]
    known = sorted((n for n in running if n.rooms is not None), key=lambda n: (n.rooms, n.takes == "good", n.name))
    for n in known:
        if count <= 0:
            return
        others = any(o.takes == "good" and o is not n and o.name not in leaving for o in running)
        if n.takes == "good" and not others and wanted > 0 and not elsewhere:
            continue
        leaving[n.name] = Why.SCALE_DOWN
        count -= 1
    unknown = sorted(n.name for n in running if n.rooms is None)
    if count > 0 and unknown:
        text = f"it is not known how many rooms {', '.join(unknown[:3])} holds; no node is removed on missing data"
        out.held.append(Held(unknown[0], "RoomsUnknown", text))


def _begin(wanted: int, live: Sequence[Node], leaving: Mapping[str, Why], elsewhere: bool, out: Decision) -> None:
    """Marks the nodes that begin to drain; new rooms must keep a place to go to."""
    taking = {n.name for n in live if n.takes == "good" and not n.mark and not n.dead}
    taking |= {n.name for n in live if n.takes == "good" and n.name in out.cancel}
    updating = any(n.mark and leaving.get(n.name) is Why.UPDATE for n in live)
    successor_homeless = any(n.homeless for n in live if n.name not in leaving)
    for n in sorted(live, key=lambda n: (n.rooms is None, n.rooms or 0, n.name)):
        why = leaving.get(n.name)
        if why is None or n.mark or n.dead:
            continue
        if why is Why.UPDATE and updating:
            continue
        last = n.takes != "bad" and not (taking - {n.name})
        # Idle, and its successor fits only on its machine: half a minute without a node is the way on.
        swap = n.rooms == 0 and successor_homeless
        if last and wanted > 0 and not (why is Why.SCALE_DOWN or elsewhere or swap):
            fix = "add a machine for its successor, or send new rooms to the fallback (spec.fallback.mode: Force)"
            text = f"{n.name} is the last node that takes rooms and drains when another one does; {fix}"
            out.held.append(Held(n.name, "LastReadyNode", text))
            continue
        out.begin[n.name] = why
        taking.discard(n.name)
        updating = updating or why is Why.UPDATE


def _go_on(n: Node, why: Why, deadline: timedelta, settle: float, now: datetime, out: Decision) -> None:
    """A node that has to go: what is due now."""
    if n.dead:
        out.remove.append(Removal(n.name, n.slot, why, moved=0))
        return
    mark = n.mark or (Mark(now, why) if n.name in out.begin else None)
    if mark is None:
        return
    until = mark.since + deadline
    known_for = n.told if n.empty and n.mark else None
    if known_for is not None and known_for >= settle:
        out.remove.append(Removal(n.name, n.slot, mark.why, moved=0))
    elif now >= until:
        out.remove.append(Removal(n.name, n.slot, mark.why, moved=n.rooms, grace=CUT_GRACE))
        out.states[n.name] = State("Moving", mark.why, mark.since, until)
        return
    elif n.empty:
        out.look_again(settle - (known_for or 0.0))
    carries = n.rooms == 0 and not n.empty
    out.states[n.name] = State("Draining", mark.why, mark.since, until, carries)
    out.look_again((until - now).total_seconds())


def _ending(n: Node, deadline: timedelta, now: datetime, out: Decision) -> None:
    """A pod that was deleted: livekit-server drains by itself until the pod's grace ends. Nobody can shorten that: a
    kubelet keeps to the grace of the first deletion, so the deadline means nothing to a pod that was deleted by hand.
    """
    ends = n.ends or now
    why, since = (n.mark.why, n.mark.since) if n.mark else (Why.DELETED, None)
    cut = n.mark is not None and now >= n.mark.since + deadline and ends - now <= timedelta(seconds=CUT_GRACE)
    out.states[n.name] = State("Moving" if cut else "Draining", why, since, ends)
