"""A small sample of `make bench-metering`, and that its comparison sees what it has to see."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from talktime_agent.meter import ProviderMeter

from bench import metering
from bench.meters import plans, study, theirs
from bench.meters.plans import Plan, Turn
from bench.meters.truth import Kept, compare

RATES = study.rates()
MINI, GEMINI = study.MODEL["openai"], study.MODEL["google"]

# What makes livekit's numbers differ and ours not, in as few turns as can be.
SAMPLE = (
    Plan(
        0,
        "openai",
        brief=False,
        turns=(
            Turn(0.8, {"duplicate_done": 0.0, "late_created": 0.8}, barge_in=0.0),
            Turn(0.8, {"drop_socket": 0.5}, barge_in=None),
            Turn(0.8, {"failed": 0.5}, barge_in=None),
        ),
        ending="mid_answer",
        lost_replies=0.3,
        lost_close=True,
    ),
    Plan(
        0,
        "google",
        brief=False,
        turns=(
            Turn(0.8, {"late_usage": 0.4, "duplicate_done": 0.0}, barge_in=None),
            Turn(0.8, {"drop_socket": 0.5}, barge_in=None),
        ),
        ending="mid_answer",
        lost_replies=0.3,
        lost_close=False,
    ),
    Plan(1, "google", brief=True, turns=(Turn(0.8, {}, None),), ending="dies", lost_replies=0.4, lost_close=False),
)


@pytest.fixture
def home() -> Iterator[Path]:
    """The stage's files."""
    directory = Path(tempfile.mkdtemp(prefix="talktime-metering-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def measured(dsn: str, home: Path, todo: tuple[Plan, ...], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SSL_CERT_FILE", "")  # set by the bench; put back afterwards
    before = logging.root.manager.disable
    try:
        return asyncio.run(metering.measured(dsn, home, todo, lanes=len(todo), real=0))
    finally:
        logging.disable(before)


def test_faults_lose_no_token_and_the_bill_is_met(
    bench_postgres: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, problems = measured(bench_postgres, home, SAMPLE, monkeypatch)
    assert metering.missed(told, problems) == [], told
    assert told["interviews"] == {"openai": 1, "google": 2, "webrtc": 0}
    assert told["ours_token_difference"] == 0
    assert Decimal(told["ours_after_reconcile_usd_difference"]) == 0
    assert told["undelivered"] >= 2
    assert told["unmetered_usd"] >= told["undelivered_usd"] > 0
    # The killed one's, and the one whose close was never answered.
    assert told["spools_replayed"] == 2
    assert told["livekit_error_percent"]["openai"] < 0
    assert told["livekit_error_percent"]["google"] > 100
    assert told["livekit_error_percent"]["google_last_snapshots"] < 0


def test_a_lost_answer_is_found(bench_postgres: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, lost = ProviderMeter.feed, set[str]()

    def forgetful(self: ProviderMeter, event: Any, at: Any) -> Any:
        """Loses the first answer."""
        if event.get("type") == "response.done" and not lost:
            lost.add(event["response"]["id"])
            return []
        return honest(self, event, at)

    monkeypatch.setattr(ProviderMeter, "feed", forgetful)
    quick = Plan(2, "openai", brief=True, turns=(), ending="quiet", lost_replies=0.0, lost_close=False)
    turns = (Turn(0.8, {}, None),)
    told, problems = measured(bench_postgres, home, (dataclasses.replace(quick, turns=turns),), monkeypatch)
    assert told["ours_token_difference"] > 0
    assert metering.missed(told, problems)


def record(key: str, *, delivered: bool = True, **meters: int) -> dict[str, Any]:
    session, _, response = key.partition("/")
    return {
        "provider_session": session, "response_id": response, "model": MINI, "kind": "response",
        "meters": meters, "delivered": delivered,
    }  # fmt: skip


def row(key: str, usd: str = "0", *, unmetered: bool = False, **meters: int) -> Kept:
    return Kept(key, MINI, meters, Decimal(usd), unmetered)


LOST = record("s/1", delivered=False, audio_out=1000)  # costs 0.02 USD


@pytest.mark.parametrize(
    ("truth", "kept", "died", "wrong"),
    [
        ([record("s/1", audio_out=9)], [row("s/1", audio_out=9)], False, None),
        ([record("s/1", audio_out=9)], [row("s/1", audio_out=8)], False, "differs by -1"),
        ([record("s/1", audio_out=9)], [], False, "not in the books"),
        ([record("s/1", audio_out=9)], [row("s/1", "0.02", unmetered=True)], False, "not in the books"),
        ([record("s/1", audio_out=9)], [row("s/1", "0.02", unmetered=True)], True, None),
        ([], [row("s/1", audio_out=9)], False, "differs by 9"),
        ([LOST], [row("s/1", "0.02", unmetered=True)], False, None),
        ([LOST], [row("s/1", "0.019", unmetered=True)], False, "over its bound"),
        ([LOST], [row("ask_1", "0.02", unmetered=True)], False, None),
        ([LOST], [], False, "were lost"),
    ],
)
def test_what_the_comparison_sees(truth: list[Any], kept: list[Kept], died: bool, wrong: str | None) -> None:
    outcome = compare(truth, kept, RATES, died=died)
    if wrong is None:
        assert (outcome.problems, +outcome.difference, -outcome.difference) == ([], {}, {})
    else:
        assert wrong in outcome.problems[0]


def test_a_token_too_many_makes_up_for_none_that_is_missing() -> None:
    outcome = compare([record("s/1", audio_out=9)], [row("s/1", audio_out=4)], RATES, died=False)
    outcome.add(compare([record("s/2", audio_out=4)], [row("s/2", audio_out=9)], RATES, died=False))
    assert outcome.difference.total() == 10


def test_the_plans_are_seeded_and_contain_every_fault() -> None:
    todo = plans.plans(5, 60)
    assert todo == plans.plans(5, 60) != plans.plans(6, 60)
    assert [plans.load(json.loads(json.dumps(plan.dump()))) for plan in todo] == todo
    counted = plans.counted(todo)
    wanted = {fault for known in plans.FAULTS.values() for fault in known}
    wanted |= {"barge_in", "output_cap", "ends_mid_answer", "ends_too_late", "ends_dies", "lost_close"}
    assert {name for name, count in counted.items() if count >= 3} == wanted


def test_livekits_sum_of_snapshots_and_their_last_one() -> None:
    def event(tokens: int) -> str:
        return json.dumps(
            {
                "type": "realtime_model_metrics", "request_id": "r", "timestamp": 0, "input_tokens": 0,
                "output_tokens": tokens, "input_token_details": {}, "output_token_details": {"audio_tokens": tokens},
                "metadata": {"model_name": GEMINI},
            }
        )  # fmt: skip

    # 12 USD per million: 100 + 250 + 400 tokens, the last of which is what is billed.
    summed, last = theirs.cost_of([event(100), event(250), event(400)], GEMINI, study.HEARD, RATES)
    assert (summed, last) == (Decimal("0.009"), Decimal("0.0048"))
