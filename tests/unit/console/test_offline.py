"""Offline pricing: the forms usage comes in, the prices it meets, and what is refused."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from talktime_console.forms import items_of, moment
from talktime_console.offline import cards_of, price_items, priced_document, priced_tables
from talktime_console.problems import CommandError, InputError

AT = datetime(2026, 11, 22, tzinfo=UTC)


def card(model: str = "mini", provider: str = "openai", **meters: dict[str, Any]) -> dict[str, Any]:
    entry = {"checkedAt": "2026-11-22", "source": "https://prices.example"}
    given = meters or {"audio_in": {"usdPerMillion": "10"}, "audio_out": {"usdPerMillion": "20"}}
    old = {name: {"usdPerMillion": "100"} for name in given}
    entries = [
        {**entry, "effectiveFrom": "2026-06-01T00:00:00Z", "meters": given},
        {**entry, "effectiveFrom": "2025-01-01T00:00:00Z", "meters": old},
    ]
    return {
        "kind": "RateCard",
        "metadata": {"name": f"{provider}-{model}"},
        "spec": {"provider": provider, "model": model, "entries": entries},
    }


def total(data: Any, *cards: dict[str, Any], model: str | None = "mini", at: datetime | None = AT) -> Decimal:
    known = cards_of(cards or [card()], "cards.yaml")
    return sum((p.usd for p in price_items(items_of(data, "usage.json"), known, model, at, None)), Decimal(0))


RESPONSE_DONE = {
    "type": "response.done",
    "response": {
        "id": "resp_1",
        "status": "completed",
        "usage": {
            "input_tokens": 100,
            "output_tokens": 50,
            "input_token_details": {"audio_tokens": 100},
            "output_token_details": {"audio_tokens": 50},
        },
    },
}


@pytest.mark.parametrize(
    "data",
    [
        {"audio_in": 100, "audio_out": 50},
        {"meters": {"audio_in": 100, "audio_out": 50}},
        [{"meters": {"audio_in": 100}}, {"meters": {"audio_out": 50}}],
        {"usages": [{"key": "a", "meters": {"audio_in": 100, "audio_out": 50}}]},
        {"response_id": "r", "model": "mini", "meters": {"audio_in": 100, "audio_out": 50}},
        RESPONSE_DONE,
    ],
)
def test_every_form_of_usage_costs_the_same(data: Any) -> None:
    assert total(data) == Decimal("0.002")


def test_the_time_chooses_the_entry() -> None:
    usage = {"audio_in": 100}
    assert total(usage, at=datetime(2026, 5, 31, 23, 59, 59, tzinfo=UTC)) == Decimal("0.01")
    assert total(usage, at=datetime(2026, 6, 1, tzinfo=UTC)) == Decimal("0.001")


def test_usage_brings_its_own_model_and_time_and_at_overrides_the_time() -> None:
    other = card("other", audio_in={"usdPerMillion": "1"})
    usage = {"model": "other", "occurred_at": "2025-03-01T00:00:00Z", "meters": {"audio_in": 100}}
    assert total(usage, card(), other, at=None) == Decimal("0.01")
    assert total(usage, card(), other, at=AT) == Decimal("0.0001")


def test_each_usage_is_rounded_once_half_to_even() -> None:
    tiny = card("mini", audio_in={"usdPerMillion": "0.0005"})
    assert total({"audio_in": 1}, tiny) == Decimal("0")
    assert total({"audio_in": 3}, tiny) == Decimal("2E-9")
    assert total([{"audio_in": 1}, {"audio_in": 1}], tiny) == Decimal("0")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("text", "not an object"),
        ([1], "usage 1: not an object"),
        ({"audio_inn": 1}, "unknown meter 'audio_inn'"),
        ({"audio_in": -1}, "audio_in"),
        ({"audio_in": 1.5}, "whole number"),
        ({"meters": 3}, "meters is not an object"),
        ({"type": "session.created"}, "nothing in it was billed"),
        ({"type": "response.done", "response": {"id": "x"}}, "no usage"),
        ({"meters": {"audio_in": 1}, "occurred_at": "yesterday"}, "not a time"),
    ],
)
def test_bad_usage_is_named(data: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        items_of(data, "usage.json")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "not a RateCard"),
        ({"kind": "RateCard", "spec": {"provider": "openai"}}, "model"),
        (card(audio_in={}), "exactly one"),
        (card(audio_in={"usdPerMillion": "cheap"}), "usdPerMillion"),
        (card(audio_inn={"usdPerMillion": "1"}), "unknown meter"),
    ],
)
def test_bad_cards_are_named(document: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        cards_of([document], "cards.yaml")


def test_other_kinds_and_empty_documents_are_passed_over() -> None:
    assert len(cards_of([None, {"kind": "Project"}, card()], "all.yaml")) == 1


@pytest.mark.parametrize(
    ("usage", "cards", "model", "at", "says"),
    [
        ({"audio_in": 1}, [card()], "unknown", AT, "no RateCard for model 'unknown'"),
        ({"text_in": 1}, [card()], "mini", AT, "no price for text_in"),
        ({"audio_in": 1}, [card()], "mini", datetime(2020, 1, 1, tzinfo=UTC), "no entry in force"),
        ({"audio_in": 1}, [card()], None, AT, "give --model"),
        ({"audio_in": 1}, [card()], "mini", None, "give --at"),
        ({"audio_in": 1}, [card(), card(provider="google")], "mini", AT, "give --vendor"),
    ],
)
def test_a_missing_price_is_never_zero(usage: Any, cards: Any, model: Any, at: Any, says: str) -> None:
    known = cards_of(cards, "cards.yaml")
    with pytest.raises(CommandError, match=says):
        price_items(items_of(usage, "u"), known, model, at, None)


def test_the_vendor_decides_between_equal_models() -> None:
    known = cards_of([card(), card(provider="google", audio_in={"usdPerMillion": "1"})], "cards.yaml")
    (priced,) = price_items(items_of({"audio_in": 100}, "u"), known, "mini", AT, "google")
    assert priced.usd == Decimal("0.0001")


def test_the_tables_add_up() -> None:
    known = cards_of([card()], "cards.yaml")
    items = items_of([{"audio_in": 100}, {"audio_in": 20, "audio_out": 5}], "u")
    priced = price_items(items, known, "mini", AT, None)
    usages, meters = priced_tables(priced)
    assert [row["usd"] for row in usages.records()] == ["0.001000000", "0.000300000"]
    assert {row["meter"]: row["count"] for row in meters.records()} == {"audio_in": 120, "audio_out": 5}
    document = priced_document(priced)
    assert (document["cost_usd"], document["meters"]) == ("0.001300000", {"audio_in": 120, "audio_out": 5})


@pytest.mark.parametrize("text", ["2026-11-22", "2026-11-22T00:00:00Z", "2026-11-22T01:00:00+01:00"])
def test_times_are_utc(text: str) -> None:
    assert moment(text) == AT
