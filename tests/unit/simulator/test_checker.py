"""The checker finds what it is there to find: above all that one changed rate makes it fail."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hack import checker, checker_sources

ROOT = Path(__file__).resolve().parents[3]

CARD = """
apiVersion: talktime.dev/v1alpha1
kind: RateCard
metadata: {name: mini}
spec:
  provider: openai
  model: mini
  entries:
    - effectiveFrom: "2026-01-01T00:00:00Z"
      meters: {text_in: {usdPerMillion: "0.60"}, text_cached_in: {usdPerMillion: "0.06"},
               audio_in: {usdPerMillion: "10"}, audio_cached_in: {usdPerMillion: "0.30"},
               text_out: {usdPerMillion: "2.40"}, audio_out: {usdPerMillion: "20"}, image_in: {absent: true}}
    - effectiveFrom: "2027-01-01T00:00:00Z"
      meters: {text_in: {usdPerMillion: "1"}}
---
kind: RateCard
spec:
  provider: openai
  model: scribe
  entries:
    - effectiveFrom: "2026-01-01T00:00:00Z"
      meters: {audio_in: {usdPerMillion: "3"}, text_in: {free: true}, text_out: {sameAs: audio_in}}
"""
METERS = {
    "text_in": 101, "text_cached_in": 64, "audio_in": 33, "audio_cached_in": 64, "text_out": 21, "audio_out": 99,
}  # fmt: skip
# 101 x 0.60 + 64 x 0.06 + 33 x 10 + 64 x 0.30 + 21 x 2.40 + 99 x 20 = 2444.04 micro-dollars
RESPONSE_USD = Decimal("0.00244404")
# (40 + 7) x 3 micro-dollars, the prompt is free
SCRIBE_USD = Decimal("0.000141")


def response(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "provider_session": "sess_1", "response_id": f"resp_{number}", "model": "mini", "kind": "response",
        "conversation": "auto", "meters": METERS, "status": "completed", "delivered": True,
        "at": "2026-11-22T10:00:00.000Z", **changes,
    }  # fmt: skip


TRUTH = [
    response(1),
    response(2),
    {
        **response(3), "item_id": "item_1", "model": "scribe", "kind": "transcription",
        "meters": {"audio_in": 40, "text_in": 5, "text_out": 7},
    },
]  # fmt: skip
TOTAL = 2 * RESPONSE_USD + SCRIBE_USD


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "card.yaml").write_text(CARD)
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(record) + "\n" for record in TRUTH))
    rows = [{"session_id": "s1", "ai_cost_usd": str(TOTAL), "unmetered_usd": "0"}]
    (tmp_path / "costs.json").write_text(json.dumps(rows))
    with (tmp_path / "costs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    keys = ["sess_1/resp_1", "sess_1/resp_2", "item_1/0"]
    (tmp_path / "usages.json").write_text(json.dumps([{"session_id": "s1", "key": key} for key in keys]))
    (tmp_path / "projects.json").write_text(json.dumps({"items": [{"status": {"budget": {"posted": str(TOTAL)}}}]}))
    return tmp_path


def run(files: Path, *options: str) -> int:
    base = ["--truth", str(files / "truth.jsonl"), "--rates", str(files / "card.yaml")]
    return checker.main([*base, *options])


def everything(files: Path) -> list[str]:
    return [
        "--costs", str(files / "costs.json"), "--usages", str(files / "usages.json"),
        "--prometheus", str(TOTAL), "--projects", str(files / "projects.json"),
    ]  # fmt: skip


def test_equal_books_pass(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files, *everything(files)) == 0
    assert "the money adds up" in capsys.readouterr().out
    assert run(files, "--costs", str(files / "costs.csv")) == 0


@pytest.mark.parametrize("meter", [*METERS])
def test_one_changed_rate_fails(files: Path, meter: str) -> None:
    assert run(files, *everything(files), "--set-rate", f"mini:{meter}=11.11") == 1


def test_prices_once_per_usage_half_even() -> None:
    rates = {"mini": [(checker.moment("2026-01-01T00:00:00Z"), {"text_in": {"usdPerMillion": "0.0005"}})]}
    priced = [checker.price(response(1, meters={"text_in": count}), rates) for count in (1, 3, 5)]
    assert priced == [Decimal("0E-9"), Decimal("0.000000002"), Decimal("0.000000002")]


def test_the_entry_in_force_prices() -> None:
    rates: dict[str, Any] = {
        "mini": [
            (checker.moment("2027-01-01T00:00:00Z"), {"text_in": {"usdPerMillion": "2"}}),
            (checker.moment("2026-01-01T00:00:00Z"), {"text_in": {"usdPerMillion": "1"}}),
        ]
    }
    record = response(1, meters={"text_in": 1_000_000})
    assert checker.price(record, rates) == 1
    assert checker.price({**record, "at": "2027-01-01T00:00:00Z"}, rates) == 2


def test_no_price_is_no_zero(files: Path) -> None:
    (files / "truth.jsonl").write_text(json.dumps(response(1, meters={**METERS, "image_in": 1})))
    assert run(files) == 1
    (files / "truth.jsonl").write_text(json.dumps(response(1, model="unheard-of")))
    assert run(files) == 1


@pytest.mark.parametrize("what", ["costs.json", "projects.json"])
def test_a_millionth_too_much_fails(files: Path, what: str) -> None:
    text = (files / what).read_text()
    (files / what).write_text(text.replace(str(TOTAL), str(TOTAL + Decimal("0.000001"))))
    assert run(files, *everything(files)) == 1


def test_a_wrong_metric_fails(files: Path) -> None:
    assert run(files, "--prometheus", str(TOTAL + Decimal("0.000002"))) == 1
    assert run(files, "--prometheus", str(TOTAL + Decimal("0.0000001"))) == 0


def test_a_billed_thing_that_is_not_counted_fails(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "usages.json").write_text(json.dumps([{"session_id": "s1", "key": "sess_1/resp_1"}]))
    assert run(files, *everything(files)) == 1
    assert "billed, not counted: response sess_1/resp_2" in capsys.readouterr().out


def test_a_counted_thing_that_was_never_billed_fails(files: Path) -> None:
    usages = json.loads((files / "usages.json").read_text())
    (files / "usages.json").write_text(json.dumps([*usages, {"session_id": "s1", "key": "invented"}]))
    assert run(files, *everything(files)) == 1


@pytest.mark.parametrize("meter", [*METERS])
def test_a_meter_that_never_counted_fails(files: Path, meter: str) -> None:
    records = [response(number, meters={**METERS, meter: 0}) for number in (1, 2)]
    (files / "truth.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [*records, TRUTH[2]]))
    assert run(files) == 1


def test_undelivered_things_are_listed_and_not_expected(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = response(4, delivered=False)
    (files / "truth.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [*TRUTH, lost]))
    assert run(files, *everything(files)) == 0
    assert "undelivered: response sess_1/resp_4" in capsys.readouterr().out


def test_it_imports_nothing_of_what_it_checks() -> None:
    for module in ("checker.py", "checker_sources.py"):
        source = (ROOT / "hack" / module).read_text()
        assert "import talktime" not in source
        assert "from talktime" not in source


def test_a_clip_that_was_rendered_on_its_own_connection_is_no_session(files: Path) -> None:
    clip = response(9, provider_session="sess_clip", meters={**METERS, "audio_in": 0, "audio_cached_in": 0})
    (files / "truth.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [*TRUTH, clip]))
    assert run(files, "--prometheus", str(TOTAL + Decimal("0.00209484"))) == 0


def test_what_a_killed_agent_lost_must_be_within_the_bound_that_was_posted(files: Path) -> None:
    keys = ["sess_1/resp_1", "item_1/0"]
    (files / "usages.json").write_text(json.dumps([{"session_id": "s1", "key": key} for key in keys]))
    known = RESPONSE_USD + SCRIBE_USD
    for bound, code in ((RESPONSE_USD * 2, 0), (RESPONSE_USD / 2, 1)):
        row = {"session_id": "s1", "ai_cost_usd": str(known + bound), "unmetered_usd": str(bound)}
        (files / "costs.json").write_text(json.dumps([row]))
        usages, costs = str(files / "usages.json"), str(files / "costs.json")
        assert run(files, "--costs", costs, "--usages", usages, "--prometheus", str(known + bound)) == code


def test_metrics_and_resources_show_only_the_accounts_of_the_present_generation(files: Path) -> None:
    """An account that a raised `accountGeneration` replaced stays in the books, not on the resource."""
    rates = checker.load_rates([files / "card.yaml"])
    old = [{**record, "provider_session": "sess_0", "item_id": "item_0"} for record in TRUTH]
    counted = [
        {"session_id": session, "key": checker.key_of(record)}
        for session, records in (("s0", old), ("s1", TRUTH))
        for record in records
    ]
    costs = [{"session_id": session, "ai_cost_usd": str(TOTAL), "unmetered_usd": "0"} for session in ("s0", "s1")]
    books = ([*old, *TRUTH], rates, costs, counted, TOTAL, TOTAL)
    assert checker.check(*books, frozenset({"s0"})).wrong == []
    assert len(checker.check(*books).wrong) == 2


class TestChosenSessions:
    """A second `make demo`: the database knows sessions of yesterday, whose provider is another or has forgotten."""

    @pytest.fixture
    def lived_in(self, files: Path) -> Path:
        """Beside s1: s0, whose truth is gone, and s2, a short conversation of now in which nothing was cached."""
        short = [
            response(number, provider_session="sess_2", meters={**METERS, "audio_cached_in": 0}) for number in (7, 8)
        ]
        usages = json.loads((files / "usages.json").read_text())
        usages += [{"session_id": "s0", "key": "sess_0/resp_1"}, {"session_id": "s0", "key": "item_0/0"}]
        usages += [{"session_id": "s2", "key": checker.key_of(record)} for record in short]
        costs = json.loads((files / "costs.json").read_text())
        costs += [{"session_id": session, "ai_cost_usd": "0.5", "unmetered_usd": "0"} for session in ("s0", "s2")]
        (files / "usages.json").write_text(json.dumps(usages))
        (files / "costs.json").write_text(json.dumps(costs))
        (files / "truth.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [*TRUTH, *short]))
        return files

    def test_what_others_left_in_the_books_is_not_held_against_them(self, lived_in: Path) -> None:
        assert run(lived_in, *everything(lived_in)) == 1
        assert run(lived_in, *everything(lived_in), "--sessions", "s1") == 0

    @pytest.mark.parametrize("meter", [*METERS])
    def test_one_changed_rate_fails(self, lived_in: Path, meter: str) -> None:
        assert run(lived_in, *everything(lived_in), "--sessions", "s1", "--set-rate", f"mini:{meter}=11.11") == 1

    def test_a_meter_of_theirs_that_never_counted_fails(
        self, lived_in: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(lived_in, *everything(lived_in), "--sessions", "s1", "s2") == 1
        assert "WRONG: s2: response audio_cached_in never counted" in capsys.readouterr().out

    @pytest.mark.parametrize("lost", ["sess_1", "sess_of_nobody"])
    def test_what_was_billed_meanwhile_and_is_known_to_nobody_fails(
        self, lived_in: Path, lost: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with (lived_in / "truth.jsonl").open("a") as file:
            file.write(json.dumps(response(9, provider_session=lost)) + "\n")
        assert run(lived_in, *everything(lived_in), "--sessions", "s1") == 1
        assert f"billed, not counted: response {lost}/resp_9" in capsys.readouterr().out

    def test_what_was_billed_before_them_does_not_matter(self, lived_in: Path) -> None:
        early = response(9, provider_session="sess_of_nobody", at="2026-11-22T09:59:59.999Z")
        with (lived_in / "truth.jsonl").open("a") as file:
            file.write(json.dumps(early) + "\n")
        assert run(lived_in, *everything(lived_in), "--sessions", "s1") == 0

    def test_a_session_of_which_nothing_was_counted_fails(
        self, lived_in: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(lived_in, *everything(lived_in), "--sessions", "s1", "s9") == 1
        assert "WRONG: s9: no conversation was counted" in capsys.readouterr().out
        assert run(lived_in, *everything(lived_in), "--sessions") == 1

    def test_what_their_projects_show_besides_must_be_in_the_books(self, files: Path) -> None:
        rates = checker.load_rates([files / "card.yaml"])
        counted = [{"session_id": "s1", "key": checker.key_of(record)} for record in TRUTH]
        costs = [{"session_id": "s1", "ai_cost_usd": str(TOTAL), "unmetered_usd": "0"}]
        for elsewhere, wrong in ((Decimal("0.5"), 0), (Decimal("0.4"), 2)):
            shown = TOTAL + Decimal("0.5")
            found = checker.check(
                TRUTH, rates, costs, counted, shown, shown, sessions=frozenset({"s1"}), elsewhere=elsewhere
            )
            assert len(found.wrong) == wrong

    def test_only_their_projects_are_asked(self, tmp_path: Path) -> None:
        items = [
            {"metadata": {"namespace": "demo", "name": "limit"}, "status": {"budget": {"posted": "0.08"}}},
            {"metadata": {"namespace": "mine", "name": "limit"}, "status": {}},
        ]
        (tmp_path / "projects.json").write_text(json.dumps({"items": items}))
        chosen = frozenset({"demo/limit"})
        assert checker_sources.posted_of(str(tmp_path / "projects.json"), chosen) == Decimal("0.08")
        assert checker_sources.posted_queries(chosen) == [
            'sum(talktime_project_posted_usd{namespace="demo",project="limit"})'
        ]
