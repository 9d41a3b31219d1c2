"""The books find what a fault did to the money; and a spool tells when a response is open."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from hack.chaos.books import Books, compare
from hack.chaos.rounds import AGENT_KILLED, DATABASE_DOWN, Case, Chronicle
from hack.chaos.verdict import unkept, verdicts
from hack.chaos.victims import Spooled, pod_uid, spooled

RATES = {"talker": [(datetime(2026, 1, 1, tzinfo=UTC), {"audio_out": {"usdPerMillion": "20"}})]}
THOUSAND = Decimal("0.02")


def billed(response: str, connection: str = "sess_1", tokens: int = 1000) -> dict[str, Any]:
    return {
        "provider_session": connection,
        "response_id": response,
        "model": "talker",
        "kind": "response",
        "meters": {"audio_out": tokens},
        "at": "2026-11-22T12:00:00Z",
        "delivered": True,
    }


def session(ai: str, *keys: str, unmetered: str = "0", reserved: str = "0", **other: Any) -> dict[str, Any]:
    return {
        "id": "s1",
        "namespace": "n",
        "project": "p",
        "account_id": 1,
        "state": "closed",
        "close_reason": "participant_left",
        "endpoint": "http://talktime-simulator.talktime.svc:8080/v1",
        "posted": ai,
        "reserved": reserved,
        "ai_usd": ai,
        "unmetered_usd": unmetered,
        "usages": [{"key": key, "unmetered": False} for key in keys],
        "events": [],
        **other,
    }


def account(posted: str, **other: Any) -> dict[str, Any]:
    row = {"id": 1, "kind": "project", "namespace": "n", "project": "p", "budget": "5", "ceiling": "5"}
    return {**row, "posted": posted, "reserved": "0", "open_sessions": 0, "entries_usd": posted, **other}


def books(truth: list[dict[str, Any]], row: dict[str, Any], **other: Any) -> Books:
    return compare(truth, RATES, [row], [account(row["ai_usd"], **other)])


def test_what_was_billed_was_posted() -> None:
    found = books([billed("a"), billed("b")], session("0.04", "sess_1/a", "sess_1/b"))
    assert found.wrong() == []
    assert (found.reserved_usd, found.unowned_usd) == (0, 0)


def test_the_simulator_knows_nothing_of_sessions_that_another_provider_served() -> None:
    row = session("0.04", "sess_9/a")
    assert [line for line in books([], row).wrong() if "beyond what was billed" in line]
    assert books([], {**row, "endpoint": None}).wrong() == []
    # Their accounts are held to their rows all the same.
    assert books([], {**row, "endpoint": None}, entries_usd="0.03").wrong()


def test_a_response_in_flight_is_covered_by_its_bound() -> None:
    found = books([billed("a"), billed("b", tokens=100)], session("0.05", "sess_1/a", unmetered="0.03"))
    [one] = found.sessions
    assert one.uncounted == ("sess_1/b",)
    assert found.wrong() == []


@pytest.mark.parametrize(
    ("row", "accounts", "words"),
    [
        (session("0.02", "sess_1/a"), {}, "billed and never posted"),
        (session("0.06", "sess_1/a", "sess_1/b"), {}, "beyond what was billed"),
        (session("0.04", "sess_1/a", "sess_1/b", state="open"), {}, "still open"),
        (session("0.04", "sess_1/a", "sess_1/b"), {"reserved": "0.01"}, "reserved by 0 open sessions"),
        (session("0.04", "sess_1/a", "sess_1/b"), {"entries_usd": "0.03"}, "entries 0.03"),
        (session("0.04", "sess_1/a", "sess_1/b"), {"budget": "0.03"}, "of 0.03"),
        (session("0.04", "sess_1/a", "sess_1/b", posted="0.03"), {}, "session_costs 0.04"),
    ],
)
def test_everything_that_is_wrong_is_said(row: dict[str, Any], accounts: dict[str, Any], words: str) -> None:
    said = books([billed("a"), billed("b")], row, **accounts).wrong()
    assert any(words in line for line in said), said


def test_money_of_a_connection_that_no_session_knows_is_lost() -> None:
    found = books([billed("a"), billed("x", "sess_unknown")], session("0.02", "sess_1/a"))
    assert found.unowned_usd == THOUSAND
    assert any("no session knows" in line for line in found.wrong())


def test_a_transcription_alone_names_its_connection() -> None:
    heard = {**billed(""), "kind": "transcription", "item_id": "item_7", "meters": {"audio_out": 500}}
    found = books([heard, billed("b")], session("0.03", "item_7/0", "sess_1/b"))
    assert found.wrong() == []


def test_verdicts_count_by_fault_and_a_killed_agent_must_have_been_replayed() -> None:
    chronicle = Chronicle(
        [Case(AGENT_KILLED, ("s1",), datetime.now(UTC)), Case(DATABASE_DOWN, ("s1",), datetime.now(UTC))]
    )
    found = books([billed("a")], session("0.02", "sess_1/a", close_reason="swept"))
    assert {fault: (one.times, one.interviews_cut) for fault, one in verdicts(chronicle, found).items()} == {
        AGENT_KILLED: (1, 1),
        DATABASE_DOWN: (1, 1),
    }
    assert any("was not replayed" in line for line in unkept(chronicle, found))


def test_a_spool_tells_which_responses_are_open_and_what_was_answered() -> None:
    rows = [
        {"t": "open", "session": "s", "epoch": 1},
        {"t": "hold", "key": "event_1", "usd": "0.02"},
        {"t": "hold", "key": "sess_1/resp_1", "usd": "0.02"},
        {"t": "release", "key": "event_1"},
        {"t": "hold", "key": "item_1/0", "usd": "0.001"},
        {"t": "hold", "key": "sess_1/resp_2", "usd": "0.02"},
        {"t": "release", "key": "sess_1/resp_1"},
        {"t": "acked", "n": 2, "keys": ["sess_1/resp_1", "item_0/0"]},
        {"t": "hold", "key": "sess_1/resp_3", "usd": "0.02"},
        {"t": "usage", "usage": {"key": "sess_1/resp_3"}},
    ]
    torn = '{"t": "rel'
    assert spooled([*map(json.dumps, rows), torn]) == Spooled(frozenset({"sess_1/resp_2"}), 2)


def test_a_pods_uid_is_read_from_its_cgroup() -> None:
    uid = "0f3c1a2b-1111-2222-3333-444455556666"
    assert pod_uid(f"0::/tt-test-ab12-n1/kubepods/burstable/pod{uid}/abc") == uid
    with pytest.raises(LookupError):
        pod_uid("0::/system.slice")
