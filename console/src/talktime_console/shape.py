"""A conversation as a provider bills it: a stated shape, a token clock, and the context billed again by each response.

Worked example, 30 minutes, 60 turns, half and half, OpenAI's clock (10/s in, 20/s out), 2,000 tokens of instructions,
no cap, nothing cached: each turn says 150 tokens and hears back 300. Response k carries the 450 x (k - 1) of before and
the new 150, so audio in = 60 x 150 + 450 x (0 + ... + 59) = 805,500 tokens, though only 9,000 were spoken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.pricing import price
from talktime_ledger.core.rates import RateSnapshot

# The agent's truncation (agent `provider.RETENTION`): a context over the cap is cut to this part of it.
RETENTION = Decimal("0.8")


@dataclass(frozen=True)
class Clock:
    """Audio tokens per second of speech heard and said. ``open_mic``: heard is the whole session, silence too."""

    audio_in: Decimal
    audio_out: Decimal
    open_mic: bool = False


@dataclass(frozen=True)
class Stays:
    """Measured connections to the rooms of sessions, per session on average: how many seconds they lasted, summed, and
    how many minutes that is when each begun minute of each connection counts in full.
    """

    seconds: Decimal
    begun_minutes: Decimal


@dataclass(frozen=True)
class Shape:
    """What happens in one session.

    ``turns`` are responses. ``talk_share`` of the speech is the participant's; ``silence_share`` of the time nobody
    speaks. ``text_tokens``: instructions and tools. ``context_cap``: tokens of conversation kept, None = all.
    ``cache_share`` of what the request before carried too is cached, unless the cap cut it. ``rebilled`` False: every
    token is billed once, which no provider does. ``participants`` are there from beginning to end; ``stays`` says how
    long they really were, where that was measured.
    """

    minutes: Decimal = Decimal(30)
    turns: int = 60
    talk_share: Decimal = Decimal("0.5")
    silence_share: Decimal = ZERO
    text_tokens: int = 2000
    context_cap: int | None = 8000
    cache_share: Decimal = Decimal("0.9")
    rebilled: bool = True
    participants: int = 2
    stays: Stays | None = None

    @property
    def heard_seconds(self) -> Decimal:
        """The participant's speech."""
        return self.minutes * 60 * (1 - self.silence_share) * self.talk_share

    @property
    def said_seconds(self) -> Decimal:
        """The agent's speech."""
        return self.minutes * 60 * (1 - self.silence_share) * (1 - self.talk_share)


def responses(shape: Shape, clock: Clock) -> list[dict[Meter, int]]:
    """The meters of each response of one session, in order. Tokens of the speech are spread evenly over the turns."""
    heard_total = (shape.minutes * 60 if clock.open_mic else shape.heard_seconds) * clock.audio_in
    heard, said = _spread(heard_total, shape.turns), _spread(shape.said_seconds * clock.audio_out, shape.turns)
    if not shape.rebilled:
        return [
            _meters(h, 0, shape.text_tokens if turn == 0 else 0, 0, s)
            for turn, (h, s) in enumerate(zip(heard, said, strict=True))
        ]
    result = []
    context = carried = 0
    for turn, (new, answer) in enumerate(zip(heard, said, strict=True)):
        conversation = context + new
        if shape.context_cap is not None and conversation > shape.context_cap:
            conversation, carried = int(shape.context_cap * RETENTION), 0
        audio_cached = int(carried * shape.cache_share)
        text_cached = int(shape.text_tokens * shape.cache_share) if turn else 0
        result.append(_meters(conversation, audio_cached, shape.text_tokens, text_cached, answer))
        carried, context = conversation, conversation + answer
    return result


def session_cost(shape: Shape, clock: Clock, rates: RateSnapshot) -> Decimal:
    """USD of one session at these rates, response by response; PriceUnknown when a meter it needs has no price.

    A model billed by time has no tokens: the whole session is active. Without a cached price nothing is discounted.
    """
    if Meter.AUDIO_IN not in rates.prices and Meter.ACTIVE_SECONDS in rates.prices:
        return price({Meter.ACTIVE_SECONDS: int(shape.minutes * 60)}, rates)
    return sum((price(_billed(meters, rates), rates) for meters in responses(shape, clock)), ZERO)


_UNCACHED = {Meter.AUDIO_CACHED_IN: Meter.AUDIO_IN, Meter.TEXT_CACHED_IN: Meter.TEXT_IN}


def _billed(meters: Mapping[Meter, int], rates: RateSnapshot) -> dict[Meter, int]:
    result: dict[Meter, int] = {}
    for meter, count in meters.items():
        billed = meter if meter in rates.prices else _UNCACHED.get(meter, meter)
        result[billed] = result.get(billed, 0) + count
    return result


def _spread(total: Decimal, turns: int) -> list[int]:
    """Whole tokens per turn that sum to the rounded total."""
    ends = [int((total * turn / turns).to_integral_value(ROUND_HALF_EVEN)) for turn in range(turns + 1)]
    return [after - before for before, after in pairwise(ends)]


def _meters(audio: int, audio_cached: int, text: int, text_cached: int, answer: int) -> dict[Meter, int]:
    found = {
        Meter.AUDIO_IN: audio - audio_cached,
        Meter.AUDIO_CACHED_IN: audio_cached,
        Meter.TEXT_IN: text - text_cached,
        Meter.TEXT_CACHED_IN: text_cached,
        Meter.AUDIO_OUT: answer,
    }
    return {meter: count for meter, count in found.items() if count}
