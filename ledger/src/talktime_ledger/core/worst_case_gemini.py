"""W and C on Gemini Live, in USD. Same questions as `worst_case`, another clock and another bill.

What bounds one generation:
- **Prompt.** `contextWindowCompression.triggerTokens` is compared before a turn runs: the conversation is then at most
  the trigger (`caps.contextTokens`), else it is cut to the target. The turn that runs comes on top, uncut: the audio
  forwarded since the last answer. Instructions are added too, whether or not Google counts them in the trigger.
  25 tokens a second of audio; nothing is cached, so all of it is at the dearest uncached rate, every time.
- **Tokens of no modality**: 25 to 51 seen in a prompt, at the dearest rate.
- **Answer**: `maxOutputTokens`, at the dearest rate.
- **Thoughts** are told beside the answer. Google's documentation of `maxOutputTokens` counts them in it; that is not
  relied on, a full allowance of them is added.

Worked example, gemini-3.8-live (text in 0.75, audio in 3, text out 4.5, audio out 12 per million), caps 8,000 tokens
and 60 s, 2,000 bytes of instructions, 60 s of audio in the turn:
    instructions   2,016 x 0.75/M                               = 0.001512
    conversation   (8,000 + 60 x 25 + 64 + 128) x 3/M           = 0.029076
    answer         min(4096, 60 x 25) = 1,500 x 12/M            = 0.018
    thoughts       1,500 x 4.5/M                                = 0.00675
    W(cap)                                                      = 0.055338
"""

from __future__ import annotations

import math
from decimal import Decimal

from talktime_ledger.core.meters import OUTPUTS, UNCACHED_INPUTS, Meter
from talktime_ledger.core.money import per_million, usd
from talktime_ledger.core.rates import RateSnapshot
from talktime_ledger.core.worst_case import (
    CLOSING_CHARACTERS_PER_SECOND,
    CLOSING_PROMPT_BYTES,
    MAX_OUTPUT_TOKENS,
    TURN_AUDIO_SECONDS,
    Caps,
    Legs,
    output_cap,
    text_tokens_bound,
)

# Price page: $3/M is $0.005/min in, $12/M is $0.018/min out.
GEMINI_AUDIO_PER_SECOND = 25
# Prompt tokens without a modality: 51 is the most that was seen.
UNASSIGNED_TOKENS = 64
# Audio on its way when an answer begins may be in that answer's prompt or in the next one's: it is in both bounds.
OVERLAP_TOKENS = 5 * GEMINI_AUDIO_PER_SECOND + 3
# Under this no allowance of thoughts goes; 139 is the most that was seen.
LEAST_THOUGHTS = 1024


def thoughts_bound(output_tokens: int) -> int:
    """The most tokens a generation is expected to think, with this `maxOutputTokens`."""
    return max(LEAST_THOUGHTS, output_tokens)


def _thoughts_rate(rates: RateSnapshot) -> Decimal:
    return rates.prices.get(Meter.THOUGHTS_OUT, rates.dearest(OUTPUTS))


def gemini_response_bound(
    legs: Legs, caps: Caps, *, instruction_tokens: int, context_tokens: int, pending_audio_seconds: float
) -> Decimal:
    """W(next): USD one generation can cost at most.

    context_tokens: the last answer's prompt and output; pending_audio_seconds: audio forwarded since it began.
    PriceUnknown when the card lacks input or output prices.
    """
    rates = legs.model
    turn = math.ceil(pending_audio_seconds * GEMINI_AUDIO_PER_SECOND)
    conversation = min(caps.context_tokens, context_tokens) + turn + UNASSIGNED_TOKENS + OVERLAP_TOKENS
    answer = output_cap(caps.response_seconds)
    instruction_rate = rates.prices.get(Meter.TEXT_IN, rates.dearest(UNCACHED_INPUTS))
    return usd(
        per_million(instruction_tokens, instruction_rate)
        + per_million(conversation, rates.dearest(UNCACHED_INPUTS))
        + per_million(answer, rates.dearest(OUTPUTS))
        + per_million(thoughts_bound(answer), _thoughts_rate(rates))
    )


def gemini_capped_response_bound(legs: Legs, caps: Caps, *, instruction_tokens: int) -> Decimal:
    """W(cap): W with a full context and a long turn. A longer turn raises W(next); the agent stops listening first."""
    return gemini_response_bound(
        legs,
        caps,
        instruction_tokens=instruction_tokens,
        context_tokens=caps.context_tokens,
        pending_audio_seconds=TURN_AUDIO_SECONDS,
    )


def gemini_closing_output_cap(closing: str) -> int:
    """`maxOutputTokens` for rendering the closing clip: the sentence, and the thoughts should they count in it."""
    seconds = max(5, math.ceil(len(closing) / CLOSING_CHARACTERS_PER_SECOND))
    return min(MAX_OUTPUT_TOKENS, seconds * GEMINI_AUDIO_PER_SECOND + text_tokens_bound(closing) + 256)


def gemini_goodbye_bound(rates: RateSnapshot, closing: str) -> Decimal:
    """C: USD of rendering the closing line once, on a connection of its own, without the conversation."""
    tokens_in = text_tokens_bound(closing) + CLOSING_PROMPT_BYTES
    rate_in = rates.prices.get(Meter.TEXT_IN, rates.dearest(UNCACHED_INPUTS))
    answer = gemini_closing_output_cap(closing)
    return usd(
        per_million(tokens_in, rate_in)
        + per_million(UNASSIGNED_TOKENS, rates.dearest(UNCACHED_INPUTS))
        + per_million(answer, rates.dearest(OUTPUTS))
        + per_million(LEAST_THOUGHTS, _thoughts_rate(rates))
    )
