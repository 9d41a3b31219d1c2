"""W, the most one response can cost, and C, the most the goodbye can cost. Both in USD; every billed leg is in them.

The caps are enforced at the provider: `post_instructions` truncation bounds the conversation, `max_output_tokens` the
answer.

Worked example, gpt-realtime (text in 4, audio in 32, audio out 64 per million), caps 8,000 tokens and 60 s, 2,000 bytes
of
instructions, transcription by gpt-4o-mini-transcribe (audio 3, text out 5 per million) of at most 60 s:
    instructions   2,016 x 4/M                                   = 0.008064
    conversation   8,000 x 32/M                                  = 0.256
    answer         min(4096, 60 x 25) = 1,500 x 64/M             = 0.096
    transcription  60 x 10 x 3/M + 16 x 3/M + 60 x 10 x 5/M      = 0.004848
    W(cap)                                                       = 0.364912
The same with gpt-realtime-mini (0.6 / 10 / 20): 0.0012096 + 0.08 + 0.03 + 0.004848 = 0.1160576.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from talktime_ledger.core.meters import (
    OPENAI_AUDIO_IN_PER_SECOND,
    OPENAI_AUDIO_OUT_PER_SECOND,
    OUTPUTS,
    UNCACHED_INPUTS,
    Meter,
)
from talktime_ledger.core.money import ZERO, per_million, usd
from talktime_ledger.core.rates import RateSnapshot

# A spoken answer carries its transcript as text output too: at most 5 text tokens in a second of speech, beside 20 of
# audio.
OUTPUT_TOKENS_PER_SECOND = OPENAI_AUDIO_OUT_PER_SECOND + 5
# OpenAI accepts 1..4096 as max_output_tokens.
MAX_OUTPUT_TOKENS = 4096
# Framing tokens around a text (role, separators); far above what is seen.
TEXT_OVERHEAD_TOKENS = 16
# At most this much committed audio waits for one response in W(cap); W(next) takes what was really committed.
TURN_AUDIO_SECONDS = 60
# A transcript has at most this many text tokens per second of audio.
TRANSCRIPT_TOKENS_PER_SECOND = 10
# The goodbye is spoken at no less than this speed.
CLOSING_CHARACTERS_PER_SECOND = 8


@dataclass(frozen=True, slots=True)
class Caps:
    """`caps` of a provider: conversation tokens kept after the instructions, longest answer in seconds."""

    context_tokens: int
    response_seconds: int


@dataclass(frozen=True, slots=True)
class Legs:
    """What bills: the talking model's prices, and the transcription model's (None = transcription off)."""

    model: RateSnapshot
    transcription: RateSnapshot | None = None


def text_tokens_bound(text: str) -> int:
    """An upper bound of the tokens of a text: a byte-level tokenizer never makes more tokens than UTF-8 bytes."""
    return len(text.encode()) + TEXT_OVERHEAD_TOKENS if text else 0


def instruction_tokens_bound(instructions: str, per_response: Iterable[str]) -> int:
    """Bound of the instruction tokens of one response: the session's, and the longest of those sent with a response."""
    return text_tokens_bound(instructions) + max((text_tokens_bound(text) for text in per_response), default=0)


def output_cap(response_seconds: int) -> int:
    """`max_output_tokens` for answers of at most this many seconds."""
    return min(MAX_OUTPUT_TOKENS, math.ceil(response_seconds * OUTPUT_TOKENS_PER_SECOND))


def transcription_bound(audio_seconds: float, rates: RateSnapshot | None) -> Decimal:
    """USD of transcribing this much audio at most; billed once the audio is committed, answered or not."""
    if rates is None or audio_seconds <= 0:
        return ZERO
    seconds = math.ceil(audio_seconds)
    if Meter.ACTIVE_SECONDS in rates.prices:
        return usd(per_million(seconds, rates.price(Meter.ACTIVE_SECONDS)))
    tokens_in = seconds * OPENAI_AUDIO_IN_PER_SECOND + TEXT_OVERHEAD_TOKENS
    tokens_out = seconds * TRANSCRIPT_TOKENS_PER_SECOND
    return usd(per_million(tokens_in, rates.dearest(UNCACHED_INPUTS)) + per_million(tokens_out, rates.dearest(OUTPUTS)))


def response_bound(
    legs: Legs, caps: Caps, *, instruction_tokens: int, context_tokens: int, pending_audio_seconds: float
) -> Decimal:
    """W(next): USD one response can cost at most.

    instruction_tokens: bound of session and per-response instructions plus tools (text, see text_tokens_bound), on top
    of the cap.
    context_tokens: known tokens of the conversation; pending_audio_seconds: audio committed since and not transcribed
    yet.
    PriceUnknown when the card lacks input or output prices.
    """
    rates = legs.model
    conversation = min(
        caps.context_tokens, context_tokens + math.ceil(pending_audio_seconds * OPENAI_AUDIO_IN_PER_SECOND)
    )
    instruction_rate = rates.prices.get(Meter.TEXT_IN, rates.dearest(UNCACHED_INPUTS))
    return usd(
        per_million(instruction_tokens, instruction_rate)
        + per_million(conversation, rates.dearest(UNCACHED_INPUTS))
        + per_million(output_cap(caps.response_seconds), rates.dearest(OUTPUTS))
        + transcription_bound(pending_audio_seconds, legs.transcription)
    )


def capped_response_bound(legs: Legs, caps: Caps, *, instruction_tokens: int) -> Decimal:
    """W(cap): W with a full context and a full turn of committed audio. No response under these caps costs more."""
    rates = legs.model
    instruction_rate = rates.prices.get(Meter.TEXT_IN, rates.dearest(UNCACHED_INPUTS))
    return usd(
        per_million(instruction_tokens, instruction_rate)
        + per_million(caps.context_tokens, rates.dearest(UNCACHED_INPUTS))
        + per_million(output_cap(caps.response_seconds), rates.dearest(OUTPUTS))
        + transcription_bound(TURN_AUDIO_SECONDS, legs.transcription)
    )


def closing_output_cap(closing: str) -> int:
    """`max_output_tokens` for rendering the closing clip, so that C bounds it and the sentence still fits."""
    seconds = max(5, math.ceil(len(closing) / CLOSING_CHARACTERS_PER_SECOND))
    return min(MAX_OUTPUT_TOKENS, seconds * OPENAI_AUDIO_OUT_PER_SECOND + text_tokens_bound(closing))


# What the agent says around the closing line when it asks for the clip ("Say exactly: ..."), in bytes at most.
CLOSING_PROMPT_BYTES = 300


def goodbye_bound(rates: RateSnapshot, closing: str) -> Decimal:
    """C: USD of rendering the closing line once, out of band and without the conversation.

    Example, the default closing (73 characters, 89 tokens at most) on gpt-realtime-mini: 389 x 0.6/M + (10 s x 20 + 89)
    x 20/M = 0.0060134.
    """
    tokens_in = text_tokens_bound(closing) + CLOSING_PROMPT_BYTES
    rate_in = rates.prices.get(Meter.TEXT_IN, rates.dearest(UNCACHED_INPUTS))
    return usd(per_million(tokens_in, rate_in) + per_million(closing_output_cap(closing), rates.dearest(OUTPUTS)))
