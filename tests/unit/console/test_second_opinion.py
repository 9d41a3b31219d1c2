"""Our price engine against genai-prices on 1,000 generated usages over all models that both know.

Both sides get the provider's raw usage, so that the reading of it is compared with its price. Equal to 1e-9 wherever
usage is told in full; every kind of usage on which we differ is a case below, with the reason and the exact difference.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price, data_snapshot, extract_usage
from talktime_console import files
from talktime_console.forms import items_of
from talktime_console.offline import price_items
from talktime_console.problems import CommandError
from talktime_ledger.core.rates import RateCard

AT = datetime(2026, 11, 22, tzinfo=UTC)
USAGES = 1000
CLOSE = Decimal("1e-9")


def known_there(card: RateCard) -> bool:
    if card.vendor not in ("openai", "google") or card.entry_at(AT).historic:
        return False
    try:
        data_snapshot.get_snapshot().find_provider_model(card.model, None, card.vendor, None)
    except LookupError:
        return False
    return True


CARDS = {card.model: card for card in files.rate_cards([])}
SHARED = sorted(model for model, card in CARDS.items() if known_there(card))


def ours(model: str, raw: Any) -> Decimal:
    (priced,) = price_items(items_of(raw, "usage.json"), [CARDS[model]], model, AT, None)
    return priced.usd


def theirs(model: str, raw: Any) -> Decimal:
    """Their price of the same raw usage, by their own reading of it where they have one for its form."""
    vendor = CARDS[model].vendor
    _, info = data_snapshot.get_snapshot().find_provider_model(model, None, vendor, None)
    if vendor == "google":
        found = extract_usage({"usageMetadata": raw, "modelVersion": model}, provider_id="google")
        return found.calc_price(genai_request_timestamp=AT, model=info).total_price
    if "meters" in raw:
        usage = Usage(audio_seconds=raw["meters"]["active_seconds"])
        return calc_price(usage, model, provider_id="openai", genai_request_timestamp=AT).total_price
    if "response" in raw:
        found = extract_usage(raw, provider_id="openai", api_flavor="realtime")
        return found.calc_price(genai_request_timestamp=AT, model=info).total_price
    told, details = raw["usage"], raw["usage"]["input_token_details"]
    usage = Usage(
        input_tokens=told["input_tokens"],
        input_audio_tokens=details["audio_tokens"],
        output_tokens=told["output_tokens"],
    )
    return calc_price(usage, model, provider_id="openai", genai_request_timestamp=AT).total_price


@dataclass(frozen=True)
class Maker:
    """Seeded usage in the provider's own form."""

    dice: random.Random

    def some(self, most: int) -> int:
        """Zero now and then, as in life."""
        return self.dice.choice((0, self.dice.randint(1, 50), self.dice.randint(1, most)))

    def usage(self, model: str) -> Any:
        if CARDS[model].vendor == "google":
            return self.gemini()
        if model.startswith("gpt-live"):
            return {"meters": {"active_seconds": self.dice.randint(1, 7200)}}
        return self.transcription() if "transcribe" in model else self.openai()

    def openai(self) -> dict[str, Any]:
        inputs = {
            f"{kind}_tokens": self.some(most) for kind, most in (("text", 9000), ("audio", 60_000), ("image", 3000))
        }
        cached = {name: self.dice.randint(0, count) for name, count in inputs.items()}
        outputs = {"text_tokens": self.some(900), "audio_tokens": self.some(4096)}
        details = {**inputs, "cached_tokens": sum(cached.values()), "cached_tokens_details": cached}
        usage = {
            "total_tokens": sum(inputs.values()) + sum(outputs.values()),
            "input_tokens": sum(inputs.values()),
            "output_tokens": sum(outputs.values()),
            "input_token_details": details,
            "output_token_details": outputs,
        }
        return {"type": "response.done", "response": {"id": "resp_1", "status": "completed", "usage": usage}}

    def transcription(self) -> dict[str, Any]:
        audio, text = self.some(6000), self.some(200)
        return {
            "type": "conversation.item.input_audio_transcription.completed",
            "item_id": "item_1",
            "content_index": 0,
            "usage": {
                "type": "tokens",
                "input_tokens": audio + text,
                "input_token_details": {"audio_tokens": audio, "text_tokens": text},
                "output_tokens": self.some(900),
            },
        }

    def gemini(self, answer: str = "candidates") -> dict[str, Any]:
        prompt = {"TEXT": self.some(9000), "AUDIO": self.some(90_000), "IMAGE": self.some(2000)}
        said = {"TEXT": self.some(300), "AUDIO": self.dice.randint(1, 3000)}
        thoughts, tools = self.some(500), self.some(800)
        return {
            "promptTokenCount": sum(prompt.values()),
            "promptTokensDetails": modalities(prompt),
            f"{answer}TokenCount": sum(said.values()),
            f"{answer}TokensDetails": modalities(said),
            "thoughtsTokenCount": thoughts,
            "toolUsePromptTokenCount": tools,
            "totalTokenCount": sum(prompt.values()) + sum(said.values()) + thoughts + tools,
        }


def modalities(counts: dict[str, int]) -> list[dict[str, Any]]:
    return [{"modality": name, "tokenCount": count} for name, count in counts.items() if count]


def generated() -> Iterator[tuple[str, Any]]:
    maker = Maker(random.Random(20261122))
    for number in range(USAGES):
        model = SHARED[number % len(SHARED)]
        yield model, maker.usage(model)


def test_the_models_of_both_vendors_are_shared() -> None:
    assert len(SHARED) >= 12
    assert {CARDS[model].vendor for model in SHARED} == {"openai", "google"}


def test_a_thousand_usages_cost_the_same() -> None:
    differing = [
        (model, raw, mine, other)
        for model, raw in generated()
        if abs((mine := ours(model, raw)) - (other := theirs(model, raw))) > CLOSE
    ]
    assert differing == []


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
