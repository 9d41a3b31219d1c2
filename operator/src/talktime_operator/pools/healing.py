"""Which sick node is restarted. Pure: what is seen and the time come in, one restart at most and its reason come out.

A node bad for long is restarted when that can cost nobody anything: it holds no live session, or its server takes
connections and answers nothing (clients give such a one up after half a minute), or refuses them. Never for what a
restart does not mend: Redis, our own network, a machine that cannot be reached, UDP that comes through to no node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from talktime_operator.conditions import Finding
from talktime_operator.pools.health import Answer, Cause

TIME = "%Y-%m-%dT%H:%M:%SZ"
MOST = 5
"""Restarts of one node until somebody has to look at it."""

LONGEST = timedelta(minutes=30)
RECOVERED = timedelta(minutes=10)
"""A node that needed no restart for so long starts from nought."""

SPEECHLESS = frozenset({Answer.REFUSED, Answer.HUNG})
"""Answers of a machine that is there, with a server on it that serves nobody."""


@dataclass(frozen=True)
class Sickness:
    """A pod that counts as bad: its last answer, for how many seconds it has been bad, and its rooms if counted."""

    answer: Answer
    seconds: float
    rooms: int | None


@dataclass(frozen=True)
class Patient:
    """A node that is bad. `seconds`: for how long; `rooms`: counted now, None = not known; `machine_away`: the kubelet
    that would restart it does not report."""

    name: str
    answer: Answer
    seconds: float
    rooms: int | None
    machine_away: bool = False


@dataclass(frozen=True)
class Ward:
    """All nodes that stay: bad ones, and whether one is good (the way from us to it works) and restarting."""

    patients: Sequence[Patient]
    any_good: bool
    any_starting: bool
    cause: Cause


@dataclass(frozen=True)
class Past:
    """Restarts of one node so far. `why`: what it did before the last one."""

    count: int
    last: datetime
    why: str = ""

    def next_after(self, first: timedelta) -> datetime:
        """Each wait is twice the one before."""
        wait: timedelta = min(first * 2**self.count, LONGEST)
        return self.last + wait


@dataclass(frozen=True)
class Healing:
    """`restart`: a pod's name, empty for none. `past`: what to remember. `again`: seconds until something is due."""

    restart: str = ""
    past: Mapping[str, Past] = field(default_factory=dict)
    finding: Finding = field(default_factory=lambda: Finding("RestartingNodes", "False", "NoSickNode"))
    again: float = 0.0


def decide(ward: Ward, past: Mapping[str, Past], after: timedelta | None, now: datetime) -> Healing:
    """`after`: how long a node is bad before it is restarted, None = never."""
    sick = {p.name for p in ward.patients}
    kept = {n: p for n, p in past.items() if n in sick or now - p.last < RECOVERED}
    if after is None or not ward.patients:
        return Healing(past=kept, finding=_quiet(kept))
    waits: list[tuple[str, str]] = []
    again = 0.0
    for patient in sorted(ward.patients, key=lambda p: (-p.seconds, p.name)):
        reason, why = _held(patient, ward)
        if reason:
            waits.append((reason, f"{patient.name} {patient.answer.value}: {why}"))
            continue
        before = kept.get(patient.name)
        if before is not None and before.count >= MOST:
            text = f"{patient.name} {patient.answer.value} after {before.count} restarts: look at its pod and machine"
            waits.append(("GaveUp", text))
            continue
        left = after.total_seconds() - patient.seconds
        if before is not None:
            left = max(left, (before.next_after(after) - now).total_seconds())
        if left > 0:
            again = min(again, left) if again else left
            continue
        if ward.any_starting:
            waits.append(("OneAtATime", f"{patient.name} waits until another node has started"))
            continue
        count = before.count + 1 if before is not None else 1
        now = now.replace(microsecond=0)
        remembered = {**kept, patient.name: Past(count, now, patient.answer.value)}
        return Healing(patient.name, remembered, _quiet(remembered), max(again, 1.0))
    return Healing(past=kept, finding=_waiting(waits) if waits else _quiet(kept), again=again)


def _held(patient: Patient, ward: Ward) -> tuple[str, str]:
    """Reason and words why it is not restarted at all, empty when it may be."""
    if ward.cause is Cause.NETWORK:
        return "OwnNetwork", "the operator reaches nobody; its own network is no node's fault"
    if ward.cause is Cause.REDIS:
        return "RedisAway", "its Redis is away; a restart would not bring it back and would end live sessions"
    if patient.answer is Answer.SILENT or patient.machine_away:
        return "MachineAway", "its machine cannot be reached or does not report, so nothing there could restart it"
    if patient.answer is Answer.NO_MEDIA and not ward.any_good:
        return "NoMediaAnywhere", "UDP comes through to no node: a firewall or our own network, no server's fault"
    if patient.answer in SPEECHLESS:
        return "", ""
    if patient.rooms is None:
        return "SessionsUnknown", "it is not known whether it holds live sessions"
    if patient.rooms > 0:
        return "LiveSessions", "it still holds live sessions"
    return "", ""


def _waiting(waits: Sequence[tuple[str, str]]) -> Finding:
    reason = next((r for r, _ in waits if r == "GaveUp"), waits[0][0])
    return Finding("RestartingNodes", "False", reason, "; ".join(text for _, text in waits)[:1900])


def _quiet(past: Mapping[str, Past]) -> Finding:
    if not past:
        return Finding("RestartingNodes", "False", "NoSickNode")
    told = (f"{n} ({p.count} of {MOST}, at {p.last.strftime(TIME)}: it {p.why})" for n, p in sorted(past.items()))
    return Finding("RestartingNodes", "True", "NodeRestarted", f"restarted lately: {'; '.join(told)}"[:1900])


def parse_past(status: Mapping[str, Any]) -> dict[str, Past]:
    """From `status.restarts`; what cannot be read counts as none."""
    out = {}
    for entry in status.get("restarts") or ():
        try:
            last = datetime.strptime(entry["last"], TIME).replace(tzinfo=UTC)
            out[str(entry["node"])] = Past(int(entry["count"]), last, str(entry.get("why", "")))
        except (KeyError, TypeError, ValueError):
            continue
    return out


def render_past(past: Mapping[str, Past]) -> list[dict[str, Any]]:
    """`status.restarts`."""
    return [
        {"node": name, "count": p.count, "last": p.last.strftime(TIME), "why": p.why}
        for name, p in sorted(past.items())[:100]
    ]
