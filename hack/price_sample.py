"""Generated usages priced by us and by genai-prices, over all models that both know.

Both sides get the provider's raw usage, so that the reading of it is compared with its price.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from genai_prices import Usage, calc_price, data_snapshot, extract_usage
from talktime_console.forms import items_of
from talktime_console.offline import price_items
from talktime_ledger.core.rates import RateCard

USAGES = 1000
SEED = 20261122
CLOSE = Decimal("1e-9")


def shared(cards: Sequence[RateCard], at: datetime) -> list[RateCard]:
    """Cards of models in force that genai-prices knows."""
    return [card for card in cards if card.vendor in ("openai", "google") and _known_there(card, at)]


def _known_there(card: RateCard, at: datetime) -> bool:
    if card.entry_at(at).historic:
        return False
    try:
        data_snapshot.get_snapshot().find_provider_model(card.model, None, card.vendor, None)
    except LookupError:
        return False
    return True


def ours(card: RateCard, raw: Any, at: datetime) -> Decimal:
    """USD, as `talktime price` says."""
    (priced,) = price_items(items_of(raw, "usage.json"), [card], card.model, at, None)
    return priced.usd


def theirs(card: RateCard, raw: Any, at: datetime) -> Decimal:
    """Their price of the same raw usage, by their own reading of it where they have one for its form."""
    _, info = data_snapshot.get_snapshot().find_provider_model(card.model, None, card.vendor, None)
    if card.vendor == "google":
        found = extract_usage({"usageMetadata": raw, "modelVersion": card.model}, provider_id="google")
        return found.calc_price(genai_request_timestamp=at, model=info).total_price
    if "meters" in raw:
        usage = Usage(audio_seconds=raw["meters"]["active_seconds"])
        return calc_price(usage, card.model, provider_id="openai", genai_request_timestamp=at).total_price
    if "response" in raw:
        found = extract_usage(raw, provider_id="openai", api_flavor="realtime")
        return found.calc_price(genai_request_timestamp=at, model=info).total_price
    told, details = raw["usage"], raw["usage"]["input_token_details"]
    usage = Usage(
        input_tokens=told["input_tokens"],
        input_audio_tokens=details["audio_tokens"],
        output_tokens=told["output_tokens"],
    )
    return calc_price(usage, card.model, provider_id="openai", genai_request_timestamp=at).total_price


@dataclass(frozen=True)
class Maker:
    """Seeded usage in the provider's own form."""

    dice: random.Random

    def some(self, most: int) -> int:
        """Zero now and then, as in life."""
        return self.dice.choice((0, self.dice.randint(1, 50), self.dice.randint(1, most)))

    def usage(self, card: RateCard) -> Any:
        """Of the model of this card."""
        if card.vendor == "google":
            return self.gemini()
        if card.model.startswith("gpt-live"):
            return {"meters": {"active_seconds": self.dice.randint(1, 7200)}}
        return self.transcription() if "transcribe" in card.model else self.openai()

    def openai(self) -> dict[str, Any]:
        """A `response.done`."""
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
        """An input transcription."""
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
        """A `usageMetadata`; the Live API calls the `answer` response."""
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
    """As Gemini writes them."""
    return [{"modality": name, "tokenCount": count} for name, count in counts.items() if count]


def generated(cards: Sequence[RateCard]) -> Iterator[tuple[RateCard, Any]]:
    """Usages of these models in turn, the same ones every time."""
    maker = Maker(random.Random(SEED))
    for number in range(USAGES):
        card = cards[number % len(cards)]
        yield card, maker.usage(card)


def differing(cards: Sequence[RateCard], at: datetime) -> list[str]:
    """The generated usages of these models, at least one, on which the prices are not equal to 1e-9."""
    found = []
    for card, raw in generated(cards):
        mine, other = ours(card, raw, at), theirs(card, raw, at)
        if abs(mine - other) > CLOSE:
            found.append(f"{card.model}: {mine} here, {other} there for {raw}")
    return found
