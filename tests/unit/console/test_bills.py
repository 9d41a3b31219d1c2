"""Reading bills: what providers hand out becomes lines; what is broken is refused with its place."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from talktime_console.bills.live import openai_pages
from talktime_console.bills.reading import Source, bill_of
from talktime_console.problems import CommandError, InputError
from talktime_ledger.core.invoice import InvoiceLine, LineKind

DAY = date(2026, 11, 20)
START = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp())


def cost(line_item: str | None, value: object, currency: str = "usd", **more: Any) -> dict[str, Any]:
    amount = {"value": value, "currency": currency}
    return {"object": "organization.costs.result", "amount": amount, "line_item": line_item, "project_id": "p", **more}


def page(*results: dict[str, Any], start: int = START, **more: Any) -> dict[str, Any]:
    bucket = {"object": "bucket", "start_time": start, "end_time": start + 86400, "results": list(results)}
    return {"object": "page", "data": [bucket], "has_more": False, "next_page": None, **more}


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_costs_pages_become_lines_to_the_nano_dollar(tmp_path: Path) -> None:
    first = page(cost("m, audio input", 0.1, quantity=10, quantity_unit="1000_tokens"), has_more=True, next_page="x")
    second = page(cost("m, audio input", "0.000000001", quantity=1), cost("VAT", 0.02), start=START + 86400)
    read, _ = bill_of([write(tmp_path, "1.json", first), write(tmp_path, "2.json", second)])
    assert read.vendor == "openai"
    assert read.lines == (
        InvoiceLine(DAY, "p", "m, audio input", LineKind.USAGE, Decimal("0.1"), Decimal(10_000)),
        InvoiceLine(date(2026, 11, 21), "p", "VAT", LineKind.TAX, Decimal("0.02")),
        InvoiceLine(date(2026, 11, 21), "p", "m, audio input", LineKind.USAGE, Decimal("0.000000001"), Decimal(1)),
    )


def usage_row(**counts: object) -> dict[str, Any]:
    names = ("input_text_tokens", "input_cached_text_tokens", "input_audio_tokens", "input_cached_audio_tokens")
    return {
        "model": "m",
        "project_id": "p",
        **dict.fromkeys((*names, "output_text_tokens", "output_audio_tokens"), 0),
    } | (counts)


def test_a_usage_report_tells_quantities_without_their_cached_part(tmp_path: Path) -> None:
    row = usage_row(input_audio_tokens=100, input_cached_audio_tokens=64, output_audio_tokens=7)
    read, _ = bill_of([write(tmp_path, "usage.json", page(row))])
    found = {line.item: line.quantity for line in read.lines if line.quantity}
    assert found == {"m, audio_in": 36, "m, audio_cached_in": 64, "m, audio_out": 7}
    assert not read.complete


GCP = {
    "service": {"description": "Gemini API"},
    "sku": {"id": "A", "description": "gemini-3.8-live audio input token count"},
    "usage_start_time": "2026-11-20 10:00:00 UTC",
    "project": {"id": "study"},
    "cost": 0.5,
    "currency": "USD",
    "usage": {"amount": 1000, "unit": "count"},
    "credits": [{"name": "Promotion", "amount": -0.1}],
    "cost_type": "regular",
}


def test_googles_standard_export_with_credits(tmp_path: Path) -> None:
    tax = {**GCP, "cost_type": "tax", "credits": [], "cost": 0.09}
    text = json.dumps(GCP) + "\n" + json.dumps(tax) + "\n"
    read, _ = bill_of([write(tmp_path, "export.jsonl", text)])
    assert [(line.kind, line.amount, line.quantity) for line in read.lines] == [
        (LineKind.CREDIT, Decimal("-0.1"), None),
        (LineKind.TAX, Decimal("0.09"), None),
        (LineKind.USAGE, Decimal("0.5"), Decimal(1000)),
    ]


def test_credits_of_a_csv_are_the_json_that_bigquery_writes(tmp_path: Path) -> None:
    head = "sku.description,usage_start_time,project.id,cost,currency,cost_type,usage.unit,usage.amount,credits\n"
    row = "gemini-3.8-live audio input,2026-11-20 10:00:00 UTC,study,0.5,USD,regular,count,1000,"
    text = head + row + '"[{""name"":""Promotion"",""amount"":-0.1}]"\n' + row.replace("10:00", "11:00") + "[]\n"
    read, _ = bill_of([write(tmp_path, "export.csv", text)])
    assert [(line.kind, line.item, line.amount) for line in read.lines] == [
        (LineKind.CREDIT, "Promotion", Decimal("-0.1")),
        (LineKind.USAGE, "gemini-3.8-live audio input", Decimal(1)),
    ]


def test_a_page_that_is_missing_in_the_middle_is_missed(tmp_path: Path) -> None:
    days = [page(cost("m", 1), start=START + day * 86400) for day in range(4)]
    days[0] |= {"has_more": True, "next_page": "2"}
    days[1] |= {"has_more": True, "next_page": "3"}
    days[2] |= {"has_more": True, "next_page": "4"}
    pages = [write(tmp_path, f"{day}.json", one) for day, one in enumerate(days)]
    read, _ = bill_of(list(reversed(pages)))
    assert len(read.lines) == 4
    for given in ([pages[0], pages[3]], [pages[0], pages[1], pages[3]]):
        with pytest.raises(InputError, match=r"3.json: data\[0\]: nothing from .* a page is missing"):
            bill_of(given)


FOCUS = (
    "ChargeCategory,ChargeClass,ChargePeriodStart,ChargeDescription,BilledCost,BillingCurrency,ConsumedQuantity,"
    "ConsumedUnit,SubAccountId\n"
)
FOCUS_ROW = "Usage,,2026-11-20T00:00:00Z,gemini-3.8-live audio input,0.5,USD,1000,count,study\n"


def test_focus_counts_what_is_billed_and_corrections_are_no_usage(tmp_path: Path) -> None:
    text = FOCUS + FOCUS_ROW + FOCUS_ROW.replace("Usage,,", "Usage,Correction,").replace("0.5", "-0.2")
    read, _ = bill_of([write(tmp_path, "focus.csv", text)])
    assert [(line.kind, line.amount) for line in read.lines] == [
        (LineKind.ADJUSTMENT, Decimal("-0.2")),
        (LineKind.USAGE, Decimal("0.5")),
    ]


BROKEN: list[tuple[str, object, str]] = [
    ("a.json", '{"object": "page", "data": [{"object": "bucket"', "cut off"),
    ("a.json", page(cost("m", 1), has_more=True, next_page="x"), "pages are missing"),
    ("a.json", page(cost("m", 1), cost("m", 1)), "the same as"),
    ("a.json", page(cost("m", 1, "eur")), r"results\[0\].amount.*'eur'.*USD"),
    ("a.json", page(cost("m", "much")), r"results\[0\].amount.*not a number"),
    ("a.json", page(cost("m", float("nan"))), "not a number"),
    ("a.json", page(cost(None, 1)), "group_by=line_item"),
    ("a.json", page(usage_row(input_audio_tokens=1, input_cached_audio_tokens=2)), "cached"),
    (
        "a.json",
        page({"input_audio_tokens": 1, "input_cached_audio_tokens": 0, "output_audio_tokens": 3, "model": "m"}),
        r"results\[0\]: input_text_tokens, input_cached_text_tokens, output_text_tokens: not told",
    ),
    ("a.csv", "start_time,model,input_audio_tokens\n1763596800,m,7\n", "line 2: input_text_tokens, .* not told"),
    ("a.json", [page(), page(start=START + 3 * 86400)], r"data\[0\]: nothing from 2026-11-21T00.* to 2026-11-23T00"),
    ("a.jsonl", json.dumps({**GCP, "credits": "free"}), "row 1: credits: not JSON.*TO_JSON_STRING"),
    ("a.jsonl", json.dumps({**GCP, "credits": {"amount": 1}}), "row 1: credits.*not a list"),
    ("a.jsonl", json.dumps({**GCP, "credits": '[{"name": "x"}]'}), r"credits\[0\]: amount is missing"),
    ("a.jsonl", json.dumps({**GCP, "credits": None, "credits.amount": "-0.1"}), "row 1: credits.amount: one column"),
    ("a.jsonl", json.dumps(GCP) + "\n" + json.dumps(GCP) + "\n", "the same as"),
    ("a.jsonl", json.dumps({**GCP, "currency": "EUR"}), "row 1: cost.*'EUR'"),
    ("a.jsonl", json.dumps({**GCP, "cost_type": "gift"}), "row 1: cost_type"),
    ("a.jsonl", json.dumps(GCP) + "\n" + json.dumps(GCP)[:40], "line 2: not JSON, or cut off"),
    ("a.csv", FOCUS + FOCUS_ROW.rstrip("\n"), "does not end"),
    ("a.csv", FOCUS + "Usage,,2026\n", "line 2: has more or fewer columns"),
    ("a.csv", FOCUS + FOCUS_ROW + FOCUS_ROW, "the same as"),
    ("a.csv", "x,y\n1,2\n", "no bill that is known"),
]


@pytest.mark.parametrize(("name", "content", "told"), BROKEN)
def test_a_broken_bill_is_refused_with_its_place(tmp_path: Path, name: str, content: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        bill_of([write(tmp_path, name, content)])


def test_one_kind_of_bill_at_a_time(tmp_path: Path) -> None:
    files = [write(tmp_path, "a.json", page(cost("m", 1))), write(tmp_path, "b.csv", FOCUS + FOCUS_ROW)]
    with pytest.raises(InputError, match="one kind"):
        bill_of(files)
    with pytest.raises(InputError, match="not a page"):
        bill_of([write(tmp_path, "c.json", GCP)], Source.OPENAI_PAGES)


def test_the_live_api_is_read_to_its_last_page_and_says_what_key_it_needs() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] != "Bearer sk-admin-1":
            return httpx.Response(401)
        if "page" in request.url.params:
            return httpx.Response(200, json=page(cost("m", 2)))
        assert request.url.params.get_list("group_by") == ["project_id", "line_item"]
        return httpx.Response(200, json=page(cost("m", 1), has_more=True, next_page="two"))

    transport = httpx.MockTransport(answer)
    pages = openai_pages("https://api.test/v1", SecretStr("sk-admin-1"), DAY, date(2026, 11, 22), transport)
    assert len(pages) == 2
    with pytest.raises(CommandError, match=r"401.*admin key"):
        openai_pages("https://api.test/v1", SecretStr("sk-no"), DAY, date(2026, 11, 22), transport)
