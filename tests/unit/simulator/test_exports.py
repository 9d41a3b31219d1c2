"""The bills that finance downloads say what the truth says, each provider its own part."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from typing import Any

import pytest
from talktime_simulator import exports
from talktime_simulator.invoice import PriceMissingError, parse_prices

LIVE, MINI = "gemini-3.8-live", "gpt-realtime-2.1-mini"
PRICES = parse_prices(
    {
        "models": {
            LIVE: {"text_in": "0.75", "audio_in": "3", "unassigned_in": "3", "audio_out": "12", "thoughts_out": "4.5"},
            MINI: {"text_in": "0.6", "audio_in": "10", "audio_cached_in": "0.3", "text_out": "2.4", "audio_out": "20"},
        }
    }
)


def record(model: str, at: str, delivered: bool = True, **meters: int) -> dict[str, Any]:
    return {"model": model, "at": at, "meters": meters, "delivered": delivered}


TRUTH = [
    record(
        LIVE, "2026-11-21T23:59:59.000Z", text_in=100, audio_in=500, unassigned_in=30, audio_out=90, thoughts_out=50
    ),
    record(LIVE, "2026-11-22T00:00:00.000Z", text_in=100, audio_in=700, unassigned_in=40),
    record(LIVE, "2026-11-22T10:00:00.000Z", delivered=False, text_in=100, audio_in=900, unassigned_in=41),
    record(MINI, "2026-11-22T10:00:00.000Z", text_in=10, audio_in=70, audio_cached_in=64, text_out=9, audio_out=200),
]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_standard_export_bills_every_google_meter_by_utc_day_in_googles_words() -> None:
    rows = [json.loads(line) for line in exports.gcp_standard(TRUTH, PRICES, "study-7").splitlines()]
    # Thoughts are in the text output, what has no modality in the audio input (at its price).
    assert len(rows) == 6
    assert {row["project"]["id"] for row in rows} == {"study-7"}
    assert {(row["currency"], row["cost_type"], row["invoice"]["month"]) for row in rows} == {
        ("USD", "regular", "202611")
    }
    (audio,) = [
        row
        for row in rows
        if row["usage_start_time"] == "2026-11-22 00:00:00 UTC" and "audio input" in row["sku"]["description"]
    ]
    assert audio["usage"]["amount"] == 1600 + 81
    assert audio["cost"] == pytest.approx(1681 * 3 / 1_000_000, abs=1e-12)
    assert audio["sku"]["description"] == f"{LIVE} audio input token count"
    assert f"{LIVE} text output token count" in {row["sku"]["description"] for row in rows}
    # One SKU is one thing on every day.
    names = {(row["sku"]["id"], row["sku"]["description"]) for row in rows}
    assert len(names) == len({sku for sku, _ in names}) == 4


def test_focus_says_the_same_money_as_the_standard_export() -> None:
    standard = [json.loads(line) for line in exports.gcp_standard(TRUTH, PRICES, "study-7").splitlines()]
    focus = rows_of(exports.gcp_focus(TRUTH, PRICES, "study-7"))
    assert len(focus) == len(standard)
    billed = sum(Decimal(row["BilledCost"]) for row in focus)
    assert (
        billed
        == (300 * Decimal("0.75") + 2100 * Decimal(3) + 111 * Decimal(3) + 90 * Decimal(12) + 50 * Decimal("4.5"))
        / 1_000_000
    )
    assert float(billed) == pytest.approx(sum(row["cost"] for row in standard), abs=1e-12)
    for row in focus:
        assert row["BilledCost"] == row["EffectiveCost"]
        assert (row["BillingCurrency"], row["SubAccountId"], row["ChargeCategory"]) == ("USD", "study-7", "Usage")
        assert row["ChargePeriodStart"][:10] in ("2026-11-21", "2026-11-22")
        assert row["BillingPeriodEnd"] == "2026-12-01T00:00:00Z"


def test_the_usage_csv_holds_openai_only_and_its_inputs_include_the_cached_ones() -> None:
    (row,) = rows_of(exports.openai_usage_csv(TRUTH, "proj_7"))
    assert (row["model"], row["project_id"], row["num_model_requests"]) == (MINI, "proj_7", "1")
    assert (row["input_tokens"], row["output_tokens"]) == ("144", "209")
    assert (row["input_audio_tokens"], row["input_cached_audio_tokens"]) == ("134", "64")
    assert row["start_time_iso"] == "2026-11-22T00:00:00Z"


def test_nobody_bills_zero_by_accident() -> None:
    with pytest.raises(PriceMissingError, match="tool_prompt_in of gemini"):
        exports.gcp_standard([record(LIVE, "2026-11-22T00:00:00Z", tool_prompt_in=1)], PRICES, "p")
    assert exports.gcp_standard([record(LIVE, "2026-11-22T00:00:00Z", tool_prompt_in=0)], PRICES, "p") == ""
