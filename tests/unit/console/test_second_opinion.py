"""Our price engine against genai-prices on 1,000 generated usages over all models that both know.

Equal to 1e-9 wherever usage is told in full; every kind of usage on which we differ is a case below, with the reason
and the exact difference.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from talktime_console import files
from talktime_console.problems import CommandError

from hack import price_sample
from hack.price_sample import CLOSE, Maker, modalities

AT = datetime(2026, 11, 22, tzinfo=UTC)
CARDS = {card.model: card for card in files.rate_cards([])}
SHARED = price_sample.shared(list(CARDS.values()), AT)


def ours(model: str, raw: Any) -> Decimal:
    return price_sample.ours(CARDS[model], raw, AT)


def theirs(model: str, raw: Any) -> Decimal:
    return price_sample.theirs(CARDS[model], raw, AT)


def test_the_models_of_both_vendors_are_shared() -> None:
    assert len(SHARED) >= 12
    assert {card.vendor for card in SHARED} == {"openai", "google"}


def test_a_thousand_usages_cost_the_same() -> None:
    assert price_sample.USAGES == 1000
    assert price_sample.differing(SHARED, AT) == []


GEMINI, OPENAI = "gemini-3.8-live", "gpt-realtime-2.1"
MILLION = Decimal(1_000_000)


@pytest.fixture
def maker() -> Maker:
    return Maker(random.Random(7))


def test_prompt_tokens_of_no_modality_are_text_there_and_the_dearest_input_here(maker: Maker) -> None:
    raw = maker.gemini()
    raw["promptTokenCount"] += 51  # what Google's own totals leave unexplained (forum 188765)
    assert ours(GEMINI, raw) - theirs(GEMINI, raw) == pytest.approx(51 * (Decimal(3) - Decimal("0.75")) / MILLION)


def test_the_live_apis_own_names_of_the_answer_are_not_read_there(maker: Maker) -> None:
    raw = maker.gemini("response")
    said = {row["modality"]: row["tokenCount"] for row in raw["responseTokensDetails"]}
    missed = (said["AUDIO"] * Decimal(12) + said.get("TEXT", 0) * Decimal("4.50")) / MILLION
    assert abs(ours(GEMINI, raw) - theirs(GEMINI, raw) - missed) <= CLOSE


def test_cached_tokens_without_a_price_cost_the_full_price_there_and_are_refused_here(maker: Maker) -> None:
    raw = maker.gemini() | {"promptTokenCount": 40, "promptTokensDetails": modalities({"AUDIO": 40})}
    plain = theirs(GEMINI, raw)
    raw |= {"cachedContentTokenCount": 30, "cacheTokensDetails": modalities({"AUDIO": 30})}
    assert theirs(GEMINI, raw) == plain
    with pytest.raises(CommandError, match="no price for audio_cached_in"):
        ours(GEMINI, raw)


def test_an_answer_without_details_is_text_there_and_speech_here(maker: Maker) -> None:
    raw = maker.openai()
    usage = raw["response"]["usage"]
    del usage["output_token_details"]
    difference = usage["output_tokens"] * (Decimal(64) - Decimal(24)) / MILLION
    assert abs(ours(OPENAI, raw) - theirs(OPENAI, raw) - difference) <= CLOSE
