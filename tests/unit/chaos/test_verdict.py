"""An interview that was cut breaks a promise, unless what it met may cut one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hack.chaos.__main__ import result
from hack.chaos.books import Books, compare
from hack.chaos.faults import Outage
from hack.chaos.rounds import (
    AGENT_CUT,
    AGENT_KILLED,
    DATABASE_DOWN,
    LEDGER_DOWN,
    LEDGER_KILLED,
    LONG_OUTAGE,
    NODE_GONE,
    POD_DELETED,
    TERMINATED,
    Case,
    Chronicle,
)
from hack.chaos.verdict import unkept

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SEEN = [{"status": "False", "lastTransitionTime": "2026-11-22T12:00:10Z"}]
GOODBYE = [{"name": "closing_finished", "at": "2026-11-22T12:05:00Z"}]


def ended(reason: str, events: list[dict[str, str]] | None = None, session: str = "s1") -> dict[str, Any]:
    row = {"id": session, "namespace": "n", "project": "p", "account_id": 1, "state": "closed", "close_reason": reason}
    money = {"posted": "0", "reserved": "0", "ai_usd": "0", "unmetered_usd": "0"}
    return {**row, **money, "endpoint": None, "usages": [], "events": events or []}


def books(*rows: dict[str, Any]) -> Books:
    return compare([], {}, rows, [])


def case(fault: str, at: datetime = NOON, minutes: float | None = None) -> Case:
    outage = None if minutes is None else Outage(NOON, NOON + timedelta(minutes=minutes), list(SEEN))
    return Case(fault, ("s1",), at, outage=outage)


@pytest.mark.parametrize(
    "fault", [AGENT_KILLED, DATABASE_DOWN, LEDGER_DOWN, LEDGER_KILLED, AGENT_CUT, TERMINATED, LONG_OUTAGE]
)
def test_an_interview_that_is_cut_is_named_with_what_it_met(fault: str) -> None:
    [line] = unkept(Chronicle([case(fault)]), books(ended("agent_died")))
    assert line == f"{fault}: s1 was cut: it ended as agent_died, without a goodbye"


@pytest.mark.parametrize("fault", [POD_DELETED, NODE_GONE])
def test_a_lost_pod_or_node_may_cut_its_interview(fault: str) -> None:
    assert unkept(Chronicle([case(fault)]), books(ended("swept"))) == []


def test_it_may_not_cut_the_interview_of_another() -> None:
    other = Case(AGENT_KILLED, ("s2",), NOON)
    found = books(ended("swept"), ended("agent_died", session="s2"))
    [line] = unkept(Chronicle([case(POD_DELETED), other]), found)
    assert line.startswith(f"{AGENT_KILLED}: s2 was cut")


def test_an_interview_that_met_several_faults_is_named_once() -> None:
    chronicle = Chronicle([case(LEDGER_KILLED), case(DATABASE_DOWN, minutes=1), case(LEDGER_KILLED)])
    [line] = unkept(chronicle, books(ended("agent_died")))
    assert line.startswith(f"{LEDGER_KILLED}, {DATABASE_DOWN}: s1")


@pytest.mark.parametrize("reason", ["budget", "ledger_outage"])
def test_an_end_with_a_goodbye_is_no_cut_and_one_without_is(reason: str) -> None:
    chronicle = Chronicle([case(LONG_OUTAGE, minutes=10)])
    assert unkept(chronicle, books(ended(reason, GOODBYE))) == []
    assert unkept(chronicle, books(ended(reason)))


def test_whoever_leaves_of_himself_was_not_cut() -> None:
    assert unkept(Chronicle([case(LEDGER_KILLED)]), books(ended("participant_left"))) == []


def test_a_process_killed_while_no_agent_could_be_claimed_for_ten_minutes_may_cut_its_interview() -> None:
    killed = case(AGENT_KILLED, at=NOON + timedelta(seconds=20))
    assert unkept(Chronicle([case(LONG_OUTAGE, minutes=10), killed]), books(ended("agent_died"))) == []


@pytest.mark.parametrize(
    ("outage", "killed_after"),
    [(DATABASE_DOWN, 20), (LONG_OUTAGE, -20), (LONG_OUTAGE, 620)],
    ids=["a minute's outage", "before", "after"],
)
def test_but_only_then(outage: str, killed_after: float) -> None:
    killed = case(AGENT_KILLED, at=NOON + timedelta(seconds=killed_after))
    chronicle = Chronicle([case(outage, minutes=10), killed])
    [line] = unkept(chronicle, books(ended("agent_died")))
    assert line.startswith(f"{outage}, {AGENT_KILLED}: s1")


def test_the_result_counts_them_as_wrong() -> None:
    chronicle, found = Chronicle([case(LEDGER_KILLED)]), books(ended("agent_died"))
    told = result({}, chronicle, found, unkept(chronicle, found))
    assert (told["wrong"], told[LEDGER_KILLED]["interviews_cut"]) == (1, 1)
