"""An invoice over the truth, by prices that somebody else brings."""

from __future__ import annotations

import pytest
from talktime_simulator.invoice import PriceMissingError, costs_page, parse_prices

TRUTH = [
    {"model": "m", "meters": {"audio_in": 1000, "text_in": 0}, "at": "2026-11-21T23:59:59.000Z"},
    {"model": "m", "meters": {"audio_in": 500}, "at": "2026-11-22T00:00:01.000Z"},
    {"model": "m", "meters": {"audio_in": 500}, "at": "2026-11-22T10:00:01.000Z"},
]


def test_a_bucket_per_day_and_a_line_per_meter() -> None:
    page = costs_page(TRUTH, parse_prices({"models": {"m": {"audio_in": "10"}}}))
    assert [bucket["end_time"] - bucket["start_time"] for bucket in page["data"]] == [86400, 86400]
    amounts = [[line["amount"]["value"] for line in bucket["results"]] for bucket in page["data"]]
    assert amounts == [[0.01], [0.01]]
    assert page["data"][1]["results"][0]["line_item"] == "m, audio input"


def test_the_items_are_in_the_providers_words_and_a_day_without_use_has_an_empty_bucket() -> None:
    truth = [
        {"model": "m", "meters": {"text_out": 30, "thoughts_out": 70}, "at": "2026-11-20T10:00:00.000Z"},
        {"model": "m", "meters": {"audio_cached_in": 5}, "at": "2026-11-22T10:00:00.000Z"},
    ]
    prices = parse_prices({"models": {"m": {"text_out": "2", "thoughts_out": "2", "audio_cached_in": "1"}}})
    days = [bucket["results"] for bucket in costs_page(truth, prices)["data"]]
    told = [[(one["line_item"], one["quantity"], one["amount"]["value"]) for one in day] for day in days]
    assert told == [[("m, text output", 100, 0.0002)], [], [("m, cached audio input", 5, 0.000005)]]
    assert costs_page([], prices)["data"] == []


def test_an_unknown_price_is_never_zero() -> None:
    with pytest.raises(PriceMissingError, match="audio_in of m"):
        costs_page(TRUTH, parse_prices({"models": {"m": {"text_in": "1"}}}))


@pytest.mark.parametrize("document", [None, {}, {"models": {"m": 3}}, {"models": {"m": {"audio_in": "cheap"}}}])
def test_a_bad_price_file_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="models"):
        parse_prices(document)
