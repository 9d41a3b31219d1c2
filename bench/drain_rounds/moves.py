"""What is told of drains that their deadline ended, with interviews still on the node: did these go on elsewhere? Pure.

Figures in seconds, moments in unix seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.failovers.figures import Event, first, quantile, words_again

NEVER = 120.0
"""What a guest counts who was not heard again."""


@dataclass(frozen=True)
class Moves:
    """One such drain. `guests`: on the node when its deadline passed, `others`: on the other node; `sessions`: of both.

    `gone`: from the deadline until the node had gone; `again`: by guest, from when its connection broke until it heard
    an agent; None: never. `counted`: how many were moved, as the pool's status says; `stayed`: guests whose room the
    ledger still has on that node; `agents`: by guest, how many it saw at the end, `most_agents` at once. `renamed`:
    who came into another session; `ended`: whose interview ended, of all. `silent`: others who did not talk on after
    the node had gone; `disturbed`: others who had to connect anew, which is lawful where their signals came through it.
    """

    node: str
    guests: tuple[str, ...]
    others: tuple[str, ...]
    sessions: dict[str, str]
    gone: float | None
    again: dict[str, float | None]
    counted: int | None
    stayed: tuple[str, ...] = ()
    agents: Mapping[str, int] = field(default_factory=dict)
    most_agents: int = 1
    renamed: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    disturbed: tuple[str, ...] = ()
    took: float = 0.0
    wrong: tuple[str, ...] = ()
    """What the round itself found amiss."""

    @property
    def moved(self) -> set[str]:
        """Sessions that had to move."""
        return {self.sessions[guest] for guest in self.guests}

    @property
    def unmoved(self) -> set[str]:
        return {self.sessions[guest] for guest in self.others}


def broke_at(events: Sequence[Event], who: str, since: float) -> float | None:
    """When the guest's connection broke for the first time after that."""
    broke = first(events, who, "reconnecting", since) or first(events, who, "back", since)
    return None if broke is None else float(broke["at"])


def again(events: Sequence[Event], who: str, since: float) -> float | None:
    """From the break until words on a good connection; None: it did not break, or has not heard anybody yet."""
    broke, heard = broke_at(events, who, since), words_again(events, who, since, breaks=True)
    return None if broke is None or heard is None else heard - broke


def agents_at_end(events: Sequence[Event], guests: Collection[str]) -> dict[str, int]:
    """How many each saw last; 0 for who saw none."""
    last = {event["who"]: int(event["count"]) for event in events if event["what"] == "agents"}
    return {guest: last.get(guest, 0) for guest in guests}


def wrong(one: Moves, restored: Collection[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """In words. `restored`: sessions whose later agent knew what had been said; `rows`: of the ledger, how each ended
    (id, epoch, close_reason)."""
    known = {row["id"]: row for row in rows}
    found = [*one.wrong]
    found += [f"{who} did not hear an agent again" for who, seconds in one.again.items() if seconds is None]
    found += [f"{who}: its interview ended" for who in one.ended]
    found += [f"{who} came into another session" for who in one.renamed]
    found += [f"{who} is still on {one.node}" for who in one.stayed]
    found += [f"{who} did not talk on, on the other node" for who in one.silent]
    if one.most_agents > 1:
        found.append(f"{one.most_agents} agents in a room")
    if one.gone is None:
        found.append(f"{one.node} has not gone")
    if one.counted != len(one.guests):
        found.append(f"status.lastDrain of {one.node} says {one.counted} moved, not {len(one.guests)}")
    found += [f"{who} had {count} agents at the end" for who, count in one.agents.items() if count != 1]
    for who in one.guests:
        session = one.sessions[who]
        row = known.get(session, {"epoch": 0, "close_reason": "unknown to the ledger"})
        if session not in restored:
            found.append(f"{who}: the next agent did not know what had been said")
        if row["epoch"] < 2 or row["close_reason"] != "participant_left":
            found.append(f"{who}: epoch {row['epoch']}, closed as {row['close_reason']}")
    return found


def shown(one: Moves) -> str:
    """A sample in one line."""
    waits = ", ".join("never" if at is None else f"{at:.1f} s" for at in one.again.values())
    gone = "never gone" if one.gone is None else f"gone {one.gone:.1f} s after its deadline"
    others = f"{len(one.disturbed)} of {len(one.others)} others connected anew"
    return f"{one.node} {gone}, {one.counted} moved by its word; heard again after {waits}; {others}; {one.took:.0f} s"


def result(samples: Sequence[Moves], restored: Collection[str], double: Collection[str]) -> dict[str, Any]:
    """The figures of all. `double`: sessions where an agent went on after its successor had begun."""
    waits = [NEVER if at is None else at for one in samples for at in one.again.values()]
    gone = [NEVER if one.gone is None else one.gone for one in samples]
    moved = {session for one in samples for session in one.moved}
    return {
        "rounds": len(samples),
        "interviews": sum(len(one.sessions) for one in samples),
        "on_the_node": len(waits),
        "moved": len(waits) - sum(len(one.stayed) for one in samples),
        "not_resumed": sum(at is None for one in samples for at in one.again.values()),
        "resume_p95_s": quantile(waits, 0.95),
        "resume_median_s": quantile(waits, 0.5),
        "gone_after_deadline_most_s": quantile(gone, 1),
        "ended": sum(len(one.ended) for one in samples),
        "context_restored": len(moved & set(restored)),
        "double_agents": len(moved & set(double)) + sum(one.most_agents > 1 for one in samples),
        "others": sum(len(one.others) for one in samples),
        "others_disturbed": sum(len(one.disturbed) for one in samples),
        "others_silent": sum(len(one.silent) for one in samples),
    }
