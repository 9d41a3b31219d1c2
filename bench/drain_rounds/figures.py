"""What the guests' events and the ledger's rows say about drains. Pure; moments in unix seconds, figures in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from bench.failovers.figures import Event, first, quantile

BROKEN = frozenset({"reconnecting", "back", "moved", "ended", "failed", "refused"})
"""What no guest may tell before it hangs up by itself."""
NEVER = 180.0
"""What a drain counts that was not over within so many seconds after its last guest had left."""


@dataclass
class Drained:
    """One node that drained. `node_id`: LiveKit's name of it; `began`: when the pool's status said so; `guests`: whose
    interviews were on it; `done`: when it had gone (and, where it is renewed, another took rooms); `moved`: sessions
    cut off by it, as the status says."""

    node: str
    node_id: str
    why: str
    began: float
    guests: tuple[str, ...]
    left: float | None = None
    done: float | None = None
    moved: int | None = None
    held: bool = False
    """It stayed for signal connections of other nodes' rooms; `left` is when those guests had left, too."""
    silent: tuple[str, ...] = ()
    """Guests who did not both hear the agent and speak after the drain had begun."""

    @property
    def rooms(self) -> int:
        return len(self.guests)

    @property
    def done_s(self) -> float | None:
        """After the last guest had left it."""
        return None if self.done is None or self.left is None else max(0.0, self.done - self.left)


@dataclass
class Sample:
    """One act. `cut`: by guest, what broke; `astray`: newcomers whose room came to a node that drained; `sessions`: of
    each guest; `refused`: evictions that the disruption budget refused; `took`: seconds of the whole round."""

    act: str
    at: float
    drained: list[Drained] = field(default_factory=list)
    newcomers: tuple[str, ...] = ()
    astray: tuple[str, ...] = ()
    cut: dict[str, list[str]] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    refused: int = 0
    took: float = 0.0
    wrong: list[str] = field(default_factory=list)


def broken(events: Sequence[Event], since: float, newcomers: Sequence[str]) -> dict[str, list[str]]:
    """By guest: what it told between the act and its own hanging up; of newcomers from the beginning."""
    out: dict[str, list[str]] = {}
    for who in sorted({event["who"] for event in events}):
        leaving = first(events, who, "leaving")
        until = float("inf") if leaving is None else leaving["at"]
        begin = 0.0 if who in newcomers else since
        kinds = [e["what"] for e in events if e["who"] == who and e["what"] in BROKEN and begin <= e["at"] < until]
        if kinds:
            out[who] = kinds
    return out


def talked_on(events: Sequence[Event], who: str, since: float) -> bool:
    """It has heard the agent and said something, both begun after that."""
    return first(events, who, "heard", since) is not None and first(events, who, "turn", since) is not None


def there(events: Sequence[Event], who: str) -> bool:
    """In the room, and has heard the agent."""
    return first(events, who, "joined") is not None and first(events, who, "heard") is not None


def cut_off(rows: Sequence[Mapping[str, Any]], sessions: Sequence[str]) -> dict[str, str]:
    """Sessions that the ledger knows to have lost their agent, moved, or ended otherwise than by their guest's leaving.

    `rows`: id, epoch, losses, close_reason. One that the ledger does not know is cut, too.
    """
    known = {row["id"]: row for row in rows}
    out = {}
    for session in sessions:
        row = known.get(session)
        if row is None:
            out[session] = "unknown to the ledger"
        elif row["losses"] or row["epoch"] > 1 or row["close_reason"] != "participant_left":
            out[session] = f"epoch {row['epoch']}, {row['losses']} losses, closed as {row['close_reason']}"
    return out


def result(samples: Sequence[Sample], ended: Mapping[str, str], money: Mapping[str, Decimal]) -> dict[str, Any]:
    """The RESULT line. `ended`: what `cut_off` found."""

    def count(act: str) -> int:
        return sum(one.act == act for one in samples)

    def done(*acts: str) -> list[float]:
        found = [each.done_s for one in samples if one.act in acts for each in one.drained]
        return [NEVER if value is None else value for value in found]

    drained = [each for one in samples for each in one.drained]
    cut = sum(who in one.cut or session in ended for one in samples for who, session in one.sessions.items())
    roomless = [who for one in samples for who in one.cut if who not in one.sessions]
    kinds = ("scale-down", "upgrade", "node-drain")
    return {
        **{key: count(act) for key, act in zip(("scale_downs", "upgrades", "node_drains"), kinds, strict=True)},
        "rotations": count("rotation"),
        "nodes_drained": len(drained),
        "interviews": sum(len(one.sessions) for one in samples),
        "cut": cut + len(roomless),
        "rooms_on_drained_node": sum(each.rooms for each in drained),
        "drained_nodes_without_rooms": sum(each.rooms == 0 for each in drained),
        "held_for_signals_elsewhere": sum(each.held for each in drained),
        "silent_after_drain_began": sum(len(each.silent) for each in drained),
        "newcomers": sum(len(one.newcomers) for one in samples),
        "newcomers_on_draining_node": sum(len(one.astray) for one in samples),
        "drain_done_p95_s": quantile(done(*kinds), 0.95),
        "drain_done_median_s": quantile(done(*kinds), 0.5),
        **{f"{act.replace('-', '_')}_done_p95_s": quantile(done(act), 0.95) for act in kinds if count(act)},
        "evictions_refused": sum(one.refused for one in samples),
        "round_median_s": quantile([one.took for one in samples], 0.5),
        "lost_usd": f"{money['lost']:f}",
        "double_posted_usd": f"{money['double']:f}",
    }
