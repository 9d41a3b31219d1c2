"""One sample of each crash and outage on a real cluster, in the middle of live interviews, and the books afterwards.

`make chaos` does the same more often, with the ledger's own times, and with ten minutes without PostgreSQL.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from hack.chaos import books, projects, rounds, verdict
from hack.chaos.books import Books, SessionBook
from hack.chaos.rounds import (
    AGENT_CUT,
    AGENT_KILLED,
    DATABASE_DOWN,
    LEDGER_DOWN,
    NODE_GONE,
    POD_DELETED,
    TERMINATED,
    Case,
    Chronicle,
)
from hack.checker import load_rates
from hack.demo.release import EXAMPLES
from tests.conftest import locked_real_sessions
from tests.e2e.house import House, eventually
from tests.e2e.sides import ledger_session, moment, speech_seconds

SAMPLE = {DATABASE_DOWN: 60.0, LEDGER_DOWN: 25.0}
"""Seconds. A ledger that is killed in the middle of responses is in test_interviews."""
USED = (projects.STEADY, projects.KILLED, projects.EVICTED, projects.CUT, projects.TERMINATED)


@dataclass(frozen=True)
class Aftermath:
    """What was done to whom, and the books when every session was over."""

    chronicle: Chronicle
    final: Books

    def only(self, fault: str) -> tuple[Case, list[SessionBook]]:
        [case] = self.chronicle.of(fault)
        return case, self.final.of(set(case.sessions))


@pytest.fixture(scope="module")
def aftermath(house: House) -> Aftermath:
    said: list[str] = []
    chronicle = Chronicle()
    chance = random.Random(20261122)
    try:
        projects.place(house, USED)
        with locked_real_sessions():
            rounds.crashes(house, chance, house.folder / "crashes", chronicle, said.append)
            rounds.outages(house, chance, house.folder / "outages", chronicle, said.append, SAMPLE)
        eventually("every session is over", lambda: not open_sessions(house), 300, every=2)
    except BaseException:
        print("\n".join(said))
        raise
    final = books.read(house)
    print("\n".join(said))
    return Aftermath(chronicle, final)


def open_sessions(house: House) -> list[dict[str, Any]]:
    return house.rows("SELECT id::text AS id FROM sessions WHERE state = 'open'")


def test_nothing_is_lost_counted_twice_or_still_held(aftermath: Aftermath) -> None:
    assert aftermath.final.wrong() == []
    assert aftermath.final.reserved_usd == 0
    for fault, one in verdict.verdicts(aftermath.chronicle, aftermath.final).items():
        print(fault, one.figures())
        assert not any((one.lost_usd, one.double_posted_usd, one.phantom_reserved_usd)), fault


def test_the_books_would_show_a_response_that_nobody_posted(house: House, aftermath: Aftermath) -> None:
    case, _ = aftermath.only(DATABASE_DOWN)
    truth = house.truth()
    known = aftermath.final.of({case.sessions[0]})[0]
    connection = next(u["key"].rpartition("/")[0] for u in known.row["usages"] if u["key"].startswith("sess"))
    invented = {**next(one for one in truth if one["provider_session"] == connection), "response_id": "resp_invented"}
    invented.update(kind="response", model=projects.MODEL, meters={"audio_out": 1000})
    rates = load_rates([EXAMPLES / "rate-cards"])
    rows = [one.row for one in aftermath.final.sessions]
    found = books.compare([*truth, invented], rates, rows, aftermath.final.accounts)
    assert any("billed and never posted" in line for line in found.wrong())


def test_a_job_process_killed_in_the_middle_of_a_response_is_replayed_from_its_spool(aftermath: Aftermath) -> None:
    case, [one] = aftermath.only(AGENT_KILLED)
    covered(case, one)
    # Its next agent ends it like any other session, or nobody waited for one.
    assert one.close_reason not in ("swept", "no_agent")


def test_what_an_evicted_pods_session_may_have_used_is_posted_at_its_bound(aftermath: Aftermath) -> None:
    case, [one] = aftermath.only(POD_DELETED)
    covered(case, one)
    assert one.unmetered_usd > 0


def test_a_node_that_lost_its_power_tells_what_was_used_when_it_is_back(aftermath: Aftermath) -> None:
    case, [one] = aftermath.only(NODE_GONE)
    covered(case, one)
    assert one.row["closed_at"]


@pytest.mark.parametrize("fault", [DATABASE_DOWN, LEDGER_DOWN])
def test_live_interviews_go_on_without_ledger_or_database(house: House, aftermath: Aftermath, fault: str) -> None:
    case, sessions = aftermath.only(fault)
    assert case.outage is not None
    assert case.outage.seconds >= SAMPLE[fault]
    assert case.lived == case.sessions
    during = answered(house, case.outage.down + timedelta(seconds=5), case.outage.up)
    assert len(sessions) == 1
    for one in sessions:
        _, recorded = aftermath.chronicle.recorded[one.session]
        assert recorded["problems"] == []
        assert one.close_reason == "participant_left"
        # Everything metered, nothing twice: what was used meanwhile came later, once.
        assert one.truth_usd == one.ai_usd
        assert one.unmetered_usd == 0
        assert during & {usage["key"] for usage in one.row["usages"]}, "no answer while the ledger was away"


def test_the_project_says_since_when_the_ledger_cannot_be_reached(aftermath: Aftermath) -> None:
    case, _ = aftermath.only(DATABASE_DOWN)
    assert case.outage is not None
    told = next((one for one in case.outage.seen if one["status"] == "False"), None)
    assert told is not None, case.outage.seen
    since = datetime.fromisoformat(told["lastTransitionTime"])
    assert timedelta(seconds=-2) <= since - case.outage.down <= timedelta(seconds=50)
    # A ledger without its database answers, with 503; one that is down does not.
    assert told["reason"] in ("LedgerFailing", "LedgerUnreachable")


def test_where_the_project_wants_no_interview_without_the_ledger_it_says_goodbye_and_leaves(
    house: House, aftermath: Aftermath
) -> None:
    _, [one] = aftermath.only(TERMINATED)
    assert one.close_reason == "ledger_outage"
    folder, recorded = aftermath.chronicle.recorded[one.session]
    closing = one.event("closing_started")
    assert closing is not None
    assert speech_seconds(folder, recorded, since=moment(closing)) >= 1
    assert ledger_session(house, one.session)["close_reason"] == "ledger_outage"
    # What it said before is posted to the last token, once the ledger is back.
    assert one.truth_usd == one.ai_usd - one.unmetered_usd


def test_an_agent_cut_from_the_ledger_alone_is_replaced_and_reports_later(house: House, aftermath: Aftermath) -> None:
    case, [one] = aftermath.only(AGENT_CUT)
    assert one.close_reason == "participant_left"
    [session] = house.rows(f"SELECT epoch, losses FROM sessions WHERE id = '{one.session}'")
    assert (session["epoch"], session["losses"]) == (2, 1)
    posted = {usage["key"] for usage in one.row["usages"]}
    # The old one's response is posted by the token, though it was cut off meanwhile; the new one talks on.
    assert case.response in posted
    connections = {key.rpartition("/")[0] for key in answered(house, case.at + timedelta(seconds=1)) & posted}
    assert connections - {case.response.rpartition("/")[0]}, "nobody answered after the old agent"
    assert one.truth_usd == one.ai_usd - one.unmetered_usd


def covered(case: Case, one: SessionBook) -> None:
    """The response that the fault came into is not metered, and the bound that was posted pays for it."""
    assert case.response in one.uncounted
    assert one.counted_usd == one.ai_usd - one.unmetered_usd
    assert Decimal(0) < one.truth_usd - one.counted_usd <= one.unmetered_usd
    assert one.reserved == 0


def answered(house: House, since: datetime, until: datetime | None = None) -> set[str]:
    """Keys of responses that began in this time."""
    return {
        f"{one['provider_session']}/{one['response_id']}"
        for one in house.truth()
        if one["kind"] == "response"
        and since <= datetime.fromisoformat(one["at"])
        and (until is None or datetime.fromisoformat(one["at"]) <= until)
    }
