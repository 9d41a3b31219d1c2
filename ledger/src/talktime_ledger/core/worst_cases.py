"""Which rules bound a model: those of its vendor. The same four questions to each of them."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from talktime_ledger.core.rates import RateSnapshot
from talktime_ledger.core.worst_case import (
    Caps,
    Legs,
    capped_response_bound,
    closing_output_cap,
    goodbye_bound,
    response_bound,
)
from talktime_ledger.core.worst_case_gemini import (
    gemini_capped_response_bound,
    gemini_closing_output_cap,
    gemini_goodbye_bound,
    gemini_response_bound,
)


class WorstCases(Protocol):
    """W(next), W(cap), C in USD, and the output cap that C rests on (tokens)."""

    def response(
        self, legs: Legs, caps: Caps, *, instruction_tokens: int, context_tokens: int, pending_audio_seconds: float
    ) -> Decimal: ...

    def capped(self, legs: Legs, caps: Caps, *, instruction_tokens: int) -> Decimal: ...

    def goodbye(self, rates: RateSnapshot, closing: str) -> Decimal: ...

    def closing_output(self, closing: str) -> int: ...


class OpenAIWorstCases:
    """The client asks for each response; history is cached, priced as if it were not."""

    response = staticmethod(response_bound)
    capped = staticmethod(capped_response_bound)
    goodbye = staticmethod(goodbye_bound)
    closing_output = staticmethod(closing_output_cap)


class GeminiWorstCases:
    """The provider answers by itself, 25 tokens a second, no cache."""

    response = staticmethod(gemini_response_bound)
    capped = staticmethod(gemini_capped_response_bound)
    goodbye = staticmethod(gemini_goodbye_bound)
    closing_output = staticmethod(gemini_closing_output_cap)


OPENAI: WorstCases = OpenAIWorstCases()
GEMINI: WorstCases = GeminiWorstCases()


def worst_cases(vendor: str) -> WorstCases:
    """By the vendor of the rate card (`openai`, `google`)."""
    return GEMINI if vendor == "google" else OPENAI
