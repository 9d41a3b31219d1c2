"""What sessions of a stated shape cost on any card, and what the article says they cost, and why that differs. Pure.

Published figures come from ``published.yaml`` alone and are never a result; every other figure is computed from a rate
card, a token clock and a shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from talktime_ledger.core.meters import OPENAI_AUDIO_IN_PER_SECOND, OPENAI_AUDIO_OUT_PER_SECOND, Meter
from talktime_ledger.core.money import ZERO, ratio, shown, usd
from talktime_ledger.core.pricing import price
from talktime_ledger.core.rates import RateSnapshot

from .published import Claim, Published
from .shape import Clock, Shape, session_cost

OPENAI = Clock(Decimal(OPENAI_AUDIO_IN_PER_SECOND), Decimal(OPENAI_AUDIO_OUT_PER_SECOND))
GEMINI = Clock(Decimal(25), Decimal(25))
FLAT = Clock(Decimal(100), Decimal(100))
# 0.44 USD for 900 s at 0.70 USD per million tokens: 0.44 / 0.70 x 1e6 / 900.
PUBLISHED_GEMINI = Clock(Decimal("698.4"), Decimal("698.4"))


class Preset(StrEnum):
    """Token clock and billing of the context."""

    TRUE = "true"
    FLAT = "flat"
    PUBLISHED_GEMINI = "published-gemini"


def clock_of(preset: Preset, vendor: str) -> Clock:
    """`true`: OpenAI counts speech only, Gemini the open microphone; the published ones count 100 (698.4) a second."""
    if preset is Preset.TRUE:
        return replace(GEMINI, open_mic=True) if vendor == "google" else OPENAI
    return PUBLISHED_GEMINI if preset is Preset.PUBLISHED_GEMINI and vendor == "google" else FLAT


def shape_of(preset: Preset, shape: Shape, published: Published) -> Shape:
    """The shape under a preset: the published ones bill everything once and know the article's text tokens."""
    if preset is Preset.TRUE:
        return shape
    return replace(shape, rebilled=False, text_tokens=published.text_tokens)


@dataclass(frozen=True)
class Transport:
    """How the audio is carried: a card, and kbit/s that each participant receives (audio and headers)."""

    rates: RateSnapshot
    kbit_per_second: Decimal = Decimal(50)
    round_up_minutes: bool = True

    def session_cost(self, shape: Shape) -> Decimal:
        """USD of one session, without what a plan includes."""
        return price(self.meters(shape), self.rates)

    def meters(self, shape: Shape, sessions: int = 1) -> dict[Meter, int]:
        """Participant-seconds (every connection up to a whole minute) and bytes down, of so many sessions."""
        each = self.kbit_per_second * 1000 / 8 * max(1, shape.participants - 1)
        if shape.stays is not None:
            connected = shape.stays.begun_minutes * 60 if self.round_up_minutes else shape.stays.seconds
            return {
                Meter.PARTICIPANT_SECONDS: round(connected * sessions),
                Meter.EGRESS_BYTES: round(shape.stays.seconds * each * sessions),
            }
        minutes = Decimal(math.ceil(shape.minutes)) if self.round_up_minutes else shape.minutes
        return {
            Meter.PARTICIPANT_SECONDS: int(minutes * 60) * shape.participants * sessions,
            Meter.EGRESS_BYTES: int(shape.minutes * 60 * shape.participants * each) * sessions,
        }


@dataclass(frozen=True)
class Estimate:
    """One model: USD of AI and of transport for one session."""

    rates: RateSnapshot
    ai: Decimal
    transport: Decimal
    minutes: Decimal

    @property
    def per_minute(self) -> Decimal:
        """USD of AI per minute."""
        return ratio(self.ai, self.minutes)

    @property
    def transport_percent(self) -> Decimal:
        """Transport in percent of AI and transport."""
        total = self.ai + self.transport
        return ratio(self.transport * 100, total) if total else ZERO


def estimate(rates: RateSnapshot, preset: Preset, shape: Shape, published: Published, transport: Transport) -> Estimate:
    """One model under a preset."""
    used = shape_of(preset, shape, published)
    ai = session_cost(used, clock_of(preset, rates.vendor), rates)
    return Estimate(rates, ai, transport.session_cost(used), used.minutes)


@dataclass(frozen=True)
class Beside:
    """A published figure beside the computed one, and why they differ. USD, or percent."""

    model: str
    figure: str
    published: Decimal
    computed: Decimal
    cause: str

    @property
    def difference(self) -> Decimal:
        """Computed minus published."""
        return self.computed - self.published


def beside(rates: RateSnapshot, claim: Claim, published: Published, transport: Transport) -> list[Beside]:
    """The article's figures of one model, computed again from its own inputs."""
    shape = Shape()
    own = estimate(rates, claim.preset_of(Preset), shape, published, transport)
    cause = _text_cause(rates, claim, published)
    rows = [
        ("USD per minute", claim.per_minute, own.per_minute, "the session's figure, rounded"),
        ("USD per 30 minutes", claim.session, own.ai, cause),
        ("USD per 100 sessions", claim.sessions_100, own.ai * 100, "100 x the session"),
        ("USD per 1,000 sessions", claim.sessions_1000, own.ai * 1000, "1,000 x the session"),
        ("transport USD per session", claim.transport_session, own.transport, "none"),
        ("transport in % of all", claim.transport_percent, own.transport_percent, _heading(own, published)),
    ]
    return [Beside(rates.model, figure, said, usd(found), why) for figure, said, found, why in rows]


def text_bounds(rates: RateSnapshot, tokens: int) -> tuple[Decimal, Decimal]:
    """USD of so many text tokens: all of them input, all of them output."""
    return price({Meter.TEXT_IN: tokens}, rates), price({Meter.TEXT_OUT: tokens}, rates)


def audio_only(rates: RateSnapshot, clock: Clock, shape: Shape | None = None) -> Decimal:
    """USD of the audio of one session, billed once."""
    return session_cost(replace(shape or Shape(), rebilled=False, text_tokens=0), clock, rates)


def _text_cause(rates: RateSnapshot, claim: Claim, published: Published) -> str:
    clock = clock_of(claim.preset_of(Preset), rates.vendor)
    implied = claim.session - audio_only(rates, clock)
    low, high = text_bounds(rates, published.text_tokens)
    return (
        f"{published.text_tokens:,} text tokens cost {shown(low, 5)} (all input) to {shown(high, 5)} (all output); "
        f"the article leaves {shown(implied, 2)} for them"
    )


def _heading(own: Estimate, published: Published) -> str:
    low, high = published.heading_percent
    inside = low <= own.transport_percent <= high
    return f"rounded; its heading says {low}-{high} %, which {'holds' if inside else 'is not so'} here"


@dataclass(frozen=True)
class Step:
    """One reason why a published session costs something else: USD so far, and what this reason added."""

    model: str
    reason: str
    usd: Decimal
    change: Decimal


def steps_to_true(rates: RateSnapshot, claim: Claim, published: Published, shape: Shape) -> list[Step]:
    """From the published 30-minute session to the true one, one reason at a time; the changes sum to the difference."""
    preset = claim.preset_of(Preset)
    once = shape_of(preset, shape, published)
    true = clock_of(Preset.TRUE, rates.vendor)
    speech = replace(true, open_mic=False)
    own = clock_of(preset, rates.vendor)
    stages = [
        ("published", claim.session),
        (f"its own inputs, computed ({own.audio_in:f} tokens a second)", session_cost(once, own, rates)),
        (f"token clock: {speech.audio_in} a second in, {speech.audio_out} out", session_cost(once, speech, rates)),
    ]
    if true.open_mic:
        stages.append(("the microphone is open for the whole session, and billed", session_cost(once, true, rates)))
    cap = "no cap" if shape.context_cap is None else f"cap {shape.context_cap:,} tokens"
    stages.append(
        (f"each of {shape.turns} responses bills the context again ({cap})", session_cost(shape, true, rates))
    )
    before = [claim.session, *(amount for _, amount in stages)]
    return [Step(rates.model, why, amount, amount - was) for (why, amount), was in zip(stages, before, strict=False)]


def fits_no_row(published: Published, claims: Sequence[Claim]) -> list[tuple[str, Decimal]]:
    """What the session ended by the soft limit would have cost by each column's rate per minute: (model, USD)."""
    minutes = published.soft_limited_session.minutes
    return [(claim.model, usd(claim.per_minute * minutes)) for claim in claims]
