"""What the faults did, by fault: from the cases and the books when all sessions are over. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hack.chaos.books import ZERO, Books, SessionBook
from hack.chaos.rounds import AGENT_KILLED, LONG_OUTAGE, NODE_GONE, POD_DELETED, Case, Chronicle

GRACEFUL = frozenset({"participant_left", "budget", "ledger_outage"})
MAY_CUT = frozenset({POD_DELETED, NODE_GONE})
"""Their Projects have no second pod, and the spool or the whole pod is away for a while."""


@dataclass(frozen=True)
class Verdict:
    """`interviews_cut`: ended without their own end and without a goodbye. USD as Decimal."""

    times: int
    interviews: int
    interviews_cut: int
    lost_usd: Decimal
    double_posted_usd: Decimal
    phantom_reserved_usd: Decimal
    unmetered_usd: Decimal

    def figures(self) -> dict[str, Any]:
        return {name: value if isinstance(value, int) else f"{value:f}" for name, value in self.__dict__.items()}


def is_cut(one: SessionBook) -> bool:
    """An interview whose agent vanished, or left without a word."""
    return one.close_reason not in GRACEFUL or (one.close_reason != "participant_left" and _silent(one))


def _silent(one: SessionBook) -> bool:
    return one.event("closing_finished") is None


def verdicts(chronicle: Chronicle, books: Books) -> Mapping[str, Verdict]:
    """By fault. A session that met several faults counts under each."""
    found = {}
    for fault in sorted({case.fault for case in chronicle.cases}):
        cases = chronicle.of(fault)
        sessions = books.of({session for case in cases for session in case.sessions})
        accounts = {one.account for one in sessions}
        held = sum((row["reserved"] for row in books.accounts if row["id"] in accounts), ZERO)
        found[fault] = Verdict(
            times=len(cases),
            interviews=len(sessions),
            interviews_cut=sum(1 for one in sessions if is_cut(one)),
            lost_usd=sum((one.lost_usd for one in sessions), ZERO),
            double_posted_usd=sum((one.double_posted_usd for one in sessions), ZERO),
            phantom_reserved_usd=held + sum((one.reserved for one in sessions), ZERO),
            unmetered_usd=sum((one.unmetered_usd for one in sessions), ZERO),
        )
    return found


def unkept(chronicle: Chronicle, books: Books) -> list[str]:
    """Promises that were broken, in words; empty when all were kept."""
    found = list(books.wrong())
    by_session = {one.session: one for one in books.sessions}
    for case in chronicle.cases:
        if case.outage is not None:
            found += _outage(case.fault, case.outage.seen, case.outage.seconds)
        for session in case.sessions:
            one = by_session.get(session)
            if one is None:
                found.append(f"{case.fault}: the ledger does not know {session}")
            elif case.fault == AGENT_KILLED and one.close_reason in ("swept", "no_agent"):
                found.append(f"{case.fault}: {session} ended as {one.close_reason}: its spool was not replayed")
    return found + _cut(chronicle, books)


def _cut(chronicle: Chronicle, books: Books) -> list[str]:
    """Interviews that were cut, once each, though nothing that they met may cut one."""
    found = []
    for one in books.sessions:
        met = [case for case in chronicle.cases if one.session in case.sessions]
        if met and is_cut(one) and not excused(met):
            faults = ", ".join(dict.fromkeys(case.fault for case in met))
            found.append(f"{faults}: {one.session} was cut: it ended as {one.close_reason}, without a goodbye")
    return found


def excused(met: Sequence[Case]) -> bool:
    """Whether the faults that a session met may have cut it: a lost pod or node; or its process was killed while
    PostgreSQL was away for longer than anybody waits, so that no next agent could be claimed.
    """
    if any(case.fault in MAY_CUT for case in met):
        return True
    outages = [case.outage for case in met if case.fault == LONG_OUTAGE and case.outage is not None]
    killed = [case.at for case in met if case.fault == AGENT_KILLED]
    return any(away.down <= at and (away.up is None or at < away.up) for away in outages for at in killed)


def _outage(fault: str, seen: list[dict[str, str]], seconds: float) -> list[str]:
    """An outage of a minute is seen by the operator, which says since when."""
    told = [one for one in seen if one["status"] == "False"]
    if told and all(one.get("lastTransitionTime") for one in told):
        return []
    return [f"{fault}: LedgerReachable did not turn False within {seconds:.0f} s"] if seconds >= 55 else []
