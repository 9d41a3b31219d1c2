"""bench/ledger.py fails when a bar is missed, and says which; and what its load looks like."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench import ledger
from bench.ledger_load.bare import SENTINEL, transaction
from bench.ledger_load.load import Agent

GOOD: dict[str, Any] = {"hot_ratio": 0.7, "p99_ms_500": 49.9, "adds_up": True}


def test_a_good_run_misses_nothing() -> None:
    assert ledger.missed(GOOD) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"hot_ratio": 0.699}, "hot_ratio 0.699, bar >= 0.7"),
        ({"p99_ms_500": 50.0}, "p99_ms_500 50.0, bar < 50"),
        ({"adds_up": False}, "adds_up False, bar == True"),
    ],
)
def test_a_missed_bar_is_named(bad: dict[str, Any], words: str) -> None:
    assert ledger.missed(GOOD | bad) == [words]


def test_a_run_that_did_not_measure_500_sessions_has_not_kept_their_bar() -> None:
    [words] = ledger.missed({"hot_ratio": 1.0, "p99_ms_40": 5.0, "adds_up": True})
    assert "p99_ms_500" in words


def test_a_sample_is_held_to_its_books_alone() -> None:
    sample = {"hot_ratio": 0.1, "p99_ms_40": 5000.0, "adds_up": True}
    assert ledger.missed(sample, small=True) == []
    assert ledger.missed(sample | {"adds_up": False}, small=True) == ["adds_up False, bar == True"]


def test_a_whole_run_measures_what_the_bars_are_about() -> None:
    assert (ledger.FULL.sessions, ledger.FULL.every_sec, ledger.INTERVALS) == (500, 20, 3)
    assert ledger.PGBENCH_CLIENTS == 16


def test_no_two_sessions_of_the_load_share_a_usage_key() -> None:
    """As at a provider. A session that knows a key of its neighbour's is renewed alone, which no real one is."""
    asked = [Agent(session, "token").request() for session in ("a", "b")]
    keys = [json.loads(one.partition(b"\r\n\r\n")[2])["usages"][0]["key"] for one in asked]
    assert keys == ["sess_a/resp_1", "sess_b/resp_1"]


def test_what_a_new_connection_asks_of_itself_is_not_in_the_transaction() -> None:
    """asyncpg looks types up when a connection meets them first, in the middle of whatever runs there."""
    sent = [
        "statement: BEGIN;",
        "execute __asyncpg_1__: SELECT now()",
        "execute __asyncpg_2__: SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new",
        "execute __asyncpg_3__: WITH RECURSIVE typeinfo_tree(oid) AS (SELECT 1) SELECT 1",
        "execute __asyncpg_4__: SELECT set_config('jit', $1, false)",
        "execute __asyncpg_5__: INSERT INTO usages VALUES ($1)",
        "statement: COMMIT;",
    ]
    records: list[dict[str, object]] = [{"pid": 1, "message": one, "detail": ""} for one in sent]
    records[5]["detail"] = f"parameters: $1 = 'resp_{SENTINEL}'"
    found = transaction(
        [{"pid": 2, "message": "statement: BEGIN;"}, *records, {"pid": 1, "message": "statement: BEGIN;"}]
    )
    assert [one.sql for one in found] == ["BEGIN", "SELECT now()", "INSERT INTO usages VALUES ($1)", "COMMIT"]
    assert found[2].literals == (f"'resp_{SENTINEL}'",)
