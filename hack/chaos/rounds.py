"""What happens in a round of chaos: interviews, faults in the middle of their responses, and when they are over.

A fault leaves a Case: its name, the sessions that it hit, and what was seen. The books tell later what it did to money.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hack.chaos import faults, interviews, projects, victims
from hack.chaos.faults import Outage
from hack.chaos.house import House, eventually
from hack.chaos.interviews import Live, Tell, ordinary, until_ended
from hack.chaos.victims import Victim
from hack.demo.interviews import Held

AGENT_KILLED = "agent_killed"
POD_DELETED = "agent_pod_deleted"
NODE_GONE = "node_gone"
DATABASE_DOWN = "postgres_down_60s"
LEDGER_DOWN = "ledger_down_60s"
LEDGER_KILLED = "ledger_killed"
AGENT_CUT = "agent_cut_from_ledger"
TERMINATED = "ledger_away_terminate"
LONG_OUTAGE = "postgres_down_10min"

RECOVERY_SECONDS = 30.0
"""What a database or a ledger may take to come back, and the next response to begin."""
SETTLING_SECONDS = 25.0
"""Interviews begin so long before the first outage and talk on after the last."""
FAULTS_SECONDS = 100.0
"""Three interviews are under way and three faults are done within this: a third of it where nothing else runs."""
REPLACED_SECONDS = 30.0
"""An agent that is cut off alone is replaced within this: 7 s of silence, the dispatch, a new process."""


@dataclass(frozen=True)
class Case:
    """One fault that was done. `at`: UTC; `response`: key of the response in whose middle it came, when aimed so.

    `lived`: sessions whose very process was still there after the fault.
    """

    fault: str
    sessions: tuple[str, ...]
    at: datetime
    response: str = ""
    outage: Outage | None = None
    lived: tuple[str, ...] = ()


@dataclass
class Chronicle:
    """All cases so far, and what the participants recorded, by session."""

    cases: list[Case] = field(default_factory=list)
    recorded: dict[str, tuple[Path, dict[str, Any]]] = field(default_factory=dict)

    def add(self, case: Case, tell: Tell) -> None:
        self.cases.append(case)
        tell(f"{case.fault}: {', '.join(case.sessions)}" + (f" in the middle of {case.response}" * bool(case.response)))

    def keep(self, live: dict[str, Live]) -> None:
        for each in live.values():
            held: Held = each.held.result()
            for session in held.sessions:
                self.recorded[session["session"]] = (held.folder, session)

    def of(self, fault: str) -> list[Case]:
        return [case for case in self.cases if case.fault == fault]


def crashes(house: House, chance: random.Random, folder: Path, chronicle: Chronicle, tell: Tell) -> None:
    """A job process killed, a pod deleted without grace, a node without power: each in the middle of a response.

    The node comes back after 15 s; its pod's spool is still on its disk and tells what was used. A deleted pod's spool
    is gone: the ledger's sweep ends that session after its validity.
    """
    names = [projects.KILLED, projects.EVICTED]
    chance.shuffle(names)
    people = [until_ended(name, FAULTS_SECONDS) for name in (*names, projects.STRANDED)]
    with interviews.started(house, people, folder, tell) as live:
        for name in names:
            victim = live[name].victim
            pod = victims.pod_name(house, projects.NAMESPACE, victim.pod_uid)
            response = victims.stopped_in_a_response(victim)
            at = datetime.now(UTC)
            if name == projects.KILLED:
                faults.kill_job(victim)
            else:
                faults.vanish(house, projects.NAMESPACE, pod, victim.pod_uid)
            fault = AGENT_KILLED if name == projects.KILLED else POD_DELETED
            chronicle.add(Case(fault, (victim.session,), at, response), tell)
        # Last: rooms of the others may be on that node, too.
        victim = live[projects.STRANDED].victim
        response = victims.stopped_in_a_response(victim)
        at = datetime.now(UTC)
        with faults.node_down(house, projects.AWAY):
            chronicle.add(Case(NODE_GONE, (victim.session,), at, response), tell)
            time.sleep(15)
        tell(f"{projects.AWAY} is back")
    chronicle.keep(live)
    interviews.closed(house, live[projects.KILLED].sessions + live[projects.STRANDED].sessions, 180)
    projects.sfu_ready(house)


def outages(
    house: House,
    chance: random.Random,
    folder: Path,
    chronicle: Chronicle,
    tell: Tell,
    phases: Mapping[str, float] = MappingProxyType({DATABASE_DOWN: 60, LEDGER_DOWN: 60, LEDGER_KILLED: 0}),
) -> None:
    """An interview lives through a database, a ledger and a ledger process that go away; one ends for them, as its
    Project wants it; a third one's agent is cut off alone before, and another takes over.

    `phases`: the faults, shuffled, and how many seconds each lasts.
    """
    order = list(phases)
    chance.shuffle(order)
    long_enough = sum(phases.values()) + RECOVERY_SECONDS * len(order) + SETTLING_SECONDS + REPLACED_SECONDS
    people = [
        ordinary(projects.STEADY, 1, long_enough),
        ordinary(projects.CUT, 1, long_enough),
        until_ended(projects.TERMINATED, 400),
    ]
    with interviews.started(house, people, folder, tell) as live:
        cut = live[projects.CUT].victim
        response = victims.in_the_middle_of_a_response(cut)
        with faults.cut_from_ledger(house, cut):
            chronicle.add(Case(AGENT_CUT, (cut.session,), datetime.now(UTC), response), tell)
            replaced(house, cut)
        tell("another pod has the cut agent's session; its network is mended")
        chronicle.add(Case(TERMINATED, live[projects.TERMINATED].sessions, datetime.now(UTC)), tell)
        for phase in order:
            victims.in_the_middle_of_a_response(chance.choice(live[projects.STEADY].victims))
            chronicle.add(_phase(house, phase, phases[phase], live[projects.STEADY]), tell)
    chronicle.keep(live)
    interviews.closed(house, tuple(session for each in live.values() for session in each.sessions), 180)


def replaced(house: House, cut: Victim) -> None:
    """Until an agent of another pod has attached to the session."""
    pod = victims.pod_name(house, projects.NAMESPACE, cut.pod_uid)

    def elsewhere() -> bool:
        [row] = house.rows(f"SELECT coalesce(worker, '') AS worker FROM sessions WHERE id = '{cut.session}'")
        return bool(row["worker"]) and not row["worker"].startswith(f"{pod}/")

    eventually(f"an agent outside of {pod} has {cut.session}", elsewhere, REPLACED_SECONDS)


def _phase(house: House, phase: str, seconds: float, steady: Live) -> Case:
    at = datetime.now(UTC)
    watched = (projects.NAMESPACE, projects.STEADY)
    if phase == LEDGER_KILLED:
        assert faults.kill_ledger(house), "no ledger process"
        faults.ledger_answers(house)
        return Case(phase, steady.sessions, at, lived=_lived(steady.victims))
    with {DATABASE_DOWN: faults.database_down, LEDGER_DOWN: faults.ledger_down}[phase](house, watched) as outage:
        faults.stay_away(outage, seconds)
        lived = _lived(steady.victims)
    return Case(phase, steady.sessions, at, outage=outage, lived=lived)


def _lived(processes: tuple[Victim, ...]) -> tuple[str, ...]:
    return tuple(victim.session for victim in processes if victim.lives)


def long_outage(
    house: House, chance: random.Random, folder: Path, chronicle: Chronicle, tell: Tell, seconds: float = 600
) -> None:
    """PostgreSQL away for longer than any validity: one Drain, one Terminate, one whose process dies meanwhile."""
    people = [until_ended(projects.STEADY, 400), until_ended(projects.TERMINATED, 400)]
    # Whoever is left in a room without an agent stays no longer than this.
    people.append(until_ended(projects.KILLED, 120))
    sessions: tuple[str, ...] = ()
    with _database_away(house, seconds) as begin:
        with interviews.started(house, people, folder, tell) as live:
            sessions = tuple(session for each in live.values() for session in each.sessions)
            victims.in_the_middle_of_a_response(live[projects.STEADY].victim)
            outage = begin()
            chronicle.add(Case(LONG_OUTAGE, sessions, outage.down, outage=outage), tell)
            time.sleep(chance.uniform(5, 25))
            victim = live[projects.KILLED].victim
            response = victims.stopped_in_a_response(victim)
            faults.kill_job(victim)
            chronicle.add(Case(AGENT_KILLED, (victim.session,), datetime.now(UTC), response), tell)
        tell(f"all participants have left {outage.seconds:.0f} s into the outage")
    chronicle.keep(live)
    interviews.closed(house, sessions, 120)


@contextlib.contextmanager
def _database_away(house: House, seconds: float) -> Iterator[Any]:
    """Yields what begins the outage; it lasts at least so long, whatever happens inside."""
    with ExitStack() as stack:
        begun: list[Outage] = []

        def begin() -> Outage:
            begun.append(stack.enter_context(faults.database_down(house, (projects.NAMESPACE, projects.STEADY))))
            return begun[0]

        yield begin
        if begun:
            faults.stay_away(begun[0], seconds)
