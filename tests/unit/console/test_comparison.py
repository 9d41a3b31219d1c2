"""Conversations of a stated shape: how often a token is billed, what the presets give, and why published differs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_console import files
from talktime_console.comparison import (
    FLAT,
    GEMINI,
    OPENAI,
    Preset,
    Transport,
    audio_only,
    beside,
    clock_of,
    estimate,
    steps_to_true,
)
from talktime_console.published import published
from talktime_console.shape import Clock, Shape, Stays, responses, session_cost
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateSnapshot

AT = datetime(2026, 11, 22, tzinfo=UTC)
CARDS = files.rate_cards([])
CLAIMS = published()


def rates(model: str) -> RateSnapshot:
    card = next(card for card in CARDS if card.model == model)
    return RateBook((card,)).snapshot(card.vendor, model, AT)


CLOUD, THEN = Transport(rates("participant")), Transport(rates("participant-published"))
UNCAPPED = Shape(context_cap=None, cache_share=Decimal(0))


def test_the_worked_example() -> None:
    told = responses(UNCAPPED, OPENAI)
    assert told[0] == {Meter.AUDIO_IN: 150, Meter.TEXT_IN: 2000, Meter.AUDIO_OUT: 300}
    assert sum(meters[Meter.AUDIO_IN] for meters in told) == 805_500
    assert session_cost(replace(UNCAPPED, rebilled=False), OPENAI, rates("gpt-realtime")) == Decimal("1.448")


shapes = st.builds(
    Shape,
    minutes=st.integers(1, 90).map(Decimal),
    turns=st.integers(1, 80),
    talk_share=st.integers(0, 100).map(lambda percent: Decimal(percent) / 100),
    silence_share=st.integers(0, 90).map(lambda percent: Decimal(percent) / 100),
    text_tokens=st.integers(0, 5000),
    context_cap=st.none() | st.integers(500, 20_000),
    cache_share=st.integers(0, 100).map(lambda percent: Decimal(percent) / 100),
)
clocks = st.sampled_from([OPENAI, GEMINI, FLAT, Clock(Decimal(25), Decimal(25), open_mic=True)])


@given(shapes, clocks)
def test_what_is_said_is_billed_once_and_nothing_is_negative(shape: Shape, clock: Clock) -> None:
    told = responses(shape, clock)
    said = sum(meters.get(Meter.AUDIO_OUT, 0) for meters in told)
    assert abs(said - shape.said_seconds * clock.audio_out) <= 1
    assert len(told) == shape.turns
    assert all(count > 0 for meters in told for count in meters.values())


@given(shapes, clocks)
def test_a_cap_holds_in_every_response(shape: Shape, clock: Clock) -> None:
    if shape.context_cap is None:
        return
    for meters in responses(shape, clock):
        assert meters.get(Meter.AUDIO_IN, 0) + meters.get(Meter.AUDIO_CACHED_IN, 0) <= shape.context_cap


@given(shapes, clocks, st.sampled_from(["gpt-realtime-2.1", "gemini-3.8-live", "gpt-4o-realtime"]))
def test_billing_again_never_costs_less_and_a_cache_never_more(shape: Shape, clock: Clock, model: str) -> None:
    free = replace(shape, context_cap=None)
    again = session_cost(free, clock, rates(model))
    assert again >= session_cost(replace(free, rebilled=False), clock, rates(model))
    assert session_cost(replace(shape, cache_share=Decimal(0)), clock, rates(model)) >= session_cost(
        shape, clock, rates(model)
    )


def test_a_model_billed_by_time_knows_no_turns() -> None:
    live = rates("gpt-live-1")
    assert session_cost(Shape(turns=3), OPENAI, live) == session_cost(Shape(turns=300), OPENAI, live) == Decimal("1.5")


def test_a_missing_price_is_refused() -> None:
    with pytest.raises(PriceUnknown):
        session_cost(Shape(), OPENAI, rates("participant"))


def test_the_clocks_of_the_presets() -> None:
    assert clock_of(Preset.TRUE, "openai") == Clock(Decimal(10), Decimal(20))
    assert clock_of(Preset.TRUE, "google") == Clock(Decimal(25), Decimal(25), open_mic=True)
    assert clock_of(Preset.FLAT, "google") == clock_of(Preset.PUBLISHED_GEMINI, "openai") == FLAT


@pytest.mark.parametrize(
    ("clock", "usd"),
    [(clock_of(Preset.PUBLISHED_GEMINI, "google"), "2.20"), (FLAT, "0.32"), (GEMINI, "0.079")],
)
def test_how_the_published_gemini_session_arises(clock: Clock, usd: str) -> None:
    found = audio_only(rates("gemini-2.0-flash-live"), clock)
    assert found.quantize(Decimal(usd)) == Decimal(usd)


def test_each_published_figure_has_a_computed_one_and_a_cause() -> None:
    for model, claim in CLAIMS.models.items():
        rows = {row.figure: row for row in beside(rates(model), claim, CLAIMS, THEN)}
        assert all(row.cause for row in rows.values())
        session = rows["USD per 30 minutes"]
        assert session.published == claim.session
        assert abs(session.difference) < Decimal("0.09"), "the article's own inputs explain all but its text line"
        assert rows["USD per 1,000 sessions"].computed == session.computed * 1000
        assert rows["transport USD per session"].difference == 0
    full = beside(rates("gpt-4o-realtime"), CLAIMS.models["gpt-4o-realtime"], CLAIMS, THEN)[1]
    assert (full.computed, full.cause.startswith("3,000 text tokens cost 0.01500 (all input) to 0.06000")) == (
        Decimal("27.015"),
        True,
    )


@given(shapes)
def test_the_steps_sum_to_the_difference(shape: Shape) -> None:
    for model, claim in CLAIMS.models.items():
        steps = steps_to_true(rates(model), claim, CLAIMS, shape)
        assert claim.session + sum(step.change for step in steps) == steps[-1].usd
        true = estimate(rates(model), Preset.TRUE, shape, CLAIMS, CLOUD)
        assert steps[-1].usd == true.ai


def test_transport_counts_whole_minutes_of_everyone_and_what_they_receive() -> None:
    meters = CLOUD.meters(Shape(minutes=Decimal("10.2"), participants=3))
    assert meters[Meter.PARTICIPANT_SECONDS] == 11 * 60 * 3
    assert meters[Meter.EGRESS_BYTES] == int(Decimal("10.2") * 60 * 50_000 / 8) * 6
    assert THEN.session_cost(Shape()) == Decimal("0.30")
    one = estimate(rates("gpt-realtime-2.1"), Preset.TRUE, Shape(), CLAIMS, CLOUD)
    assert one.transport_percent == pytest.approx(one.transport * 100 / (one.ai + one.transport))


def test_measured_stays_count_as_they_were() -> None:
    """3 sessions of 70 s, 70 s and 5 s connections beside an agent: 9 begun minutes, 290 s, though 10 were talked."""
    shape = Shape(minutes=Decimal(10), stays=Stays(Decimal(290) / 3, Decimal(3)))
    assert CLOUD.meters(shape, 3) == {
        Meter.PARTICIPANT_SECONDS: 9 * 60,
        Meter.EGRESS_BYTES: 290 * 50_000 // 8,
    }
    own = replace(CLOUD, round_up_minutes=False)
    assert own.meters(shape, 3)[Meter.PARTICIPANT_SECONDS] == 290
