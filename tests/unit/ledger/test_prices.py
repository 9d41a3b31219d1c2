"""Money, rate cards, prices and worst cases."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from talktime_ledger.cards import rate_card, snapshot_core, snapshot_wire
from talktime_ledger.core import money
from talktime_ledger.core.feasibility import judge_feasible
from talktime_ledger.core.meters import Meter, MeterError, add, counts
from talktime_ledger.core.pricing import price, price_or_bound
from talktime_ledger.core.rates import (
    Absent,
    Free,
    Price,
    PriceUnknown,
    RateBook,
    RateCard,
    RateEntry,
    RateSnapshot,
    SameAs,
)
from talktime_ledger.core.worst_case import (
    Caps,
    Legs,
    capped_response_bound,
    closing_output_cap,
    goodbye_bound,
    instruction_tokens_bound,
    output_cap,
    response_bound,
    text_tokens_bound,
)
from talktime_ledger.resources.project import DEFAULT_CLOSING
from talktime_ledger.resources.rate_card import RateCardSpec

EXAMPLES = Path(__file__).parents[3] / "examples" / "rate-cards"


def snapshot(model: str = "m", **prices: str) -> RateSnapshot:
    terms = {Meter(name): Decimal(value) for name, value in prices.items()}
    return RateSnapshot("card", "openai", model, datetime(2026, 1, 1, tzinfo=UTC), terms)


FULL = snapshot(text_in="4", text_cached_in="0.4", audio_in="32", audio_cached_in="0.4", text_out="16", audio_out="64")
MINI = snapshot(
    text_in="0.6", text_cached_in="0.06", audio_in="10", audio_cached_in="0.3", text_out="2.4", audio_out="20"
)
TRANSCRIBE = snapshot(text_in="1.25", audio_in="3", text_out="5")


@pytest.mark.parametrize(
    ("text", "shown"), [("0.340000000", "0.34"), ("12", "12"), ("0", "0"), ("100", "100"), ("-1.5", "-1.5")]
)
def test_money_travels_as_plain_digits(text: str, shown: str) -> None:
    assert money.wire(money.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "1k", "1e3", "NaN", "+1", "0x1", "1.0000000001", "12345678901", " 1", "1_0"])
def test_what_is_no_money_is_refused(text: str) -> None:
    with pytest.raises(money.MoneyError):
        money.parse(text)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_price_is_rounded_once_half_even(tokens: int, rate: int) -> None:
    exact = Decimal(tokens) * Decimal(rate).scaleb(-9) / 10**6
    priced = price({Meter.TEXT_IN: tokens}, snapshot(text_in=f"{Decimal(rate).scaleb(-9):f}"))
    assert abs(priced - exact) <= Decimal("0.0000000005")


def test_half_even() -> None:
    assert money.usd(Decimal("0.0000000005")) == 0
    assert money.usd(Decimal("0.0000000015")) == Decimal("0.000000002")


def test_a_missing_price_is_refused_and_billed_usage_is_bounded() -> None:
    with pytest.raises(PriceUnknown):
        price({Meter.IMAGE_IN: 1}, MINI)
    priced = price_or_bound({Meter.IMAGE_IN: 1_000_000, Meter.THOUGHTS_OUT: 1_000_000}, MINI)
    assert (priced.usd, set(priced.missing)) == (Decimal(30), {Meter.IMAGE_IN, Meter.THOUGHTS_OUT})
    assert price({Meter.UNASSIGNED_IN: 1_000_000}, MINI) == 10, "the gap is taken at the dearest uncached input rate"


def card(*entries: RateEntry) -> RateBook:
    return RateBook((RateCard("c", "openai", "m", entries),))


def entry(day: int, **terms: Price | SameAs | Free | Absent) -> RateEntry:
    return RateEntry(datetime(2026, 1, day, tzinfo=UTC), {Meter(name): term for name, term in terms.items()})


def test_the_entry_in_force_at_the_time_decides() -> None:
    book = card(entry(10, text_in=Price(Decimal(2))), entry(1, text_in=Price(Decimal(1))))
    at = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 9, 10, 31)]
    assert [book.snapshot("openai", "m", moment).price(Meter.TEXT_IN) for moment in at] == [1, 1, 2, 2]
    with pytest.raises(PriceUnknown, match="in force"):
        book.snapshot("openai", "m", datetime(2025, 12, 31, tzinfo=UTC))
    with pytest.raises(PriceUnknown, match="no RateCard"):
        book.snapshot("openai", "m-2", at[0])


@pytest.mark.parametrize(
    ("until", "text", "audio"),
    [
        (9, 1, 20),  # before the turn: the price of the day
        (10, 2, 20),  # text rises; audio falls and is still dear until then
        (20, 2, 64),  # and rises again
    ],
)
def test_a_worst_case_holds_over_a_rise_that_is_already_known(until: int, text: int, audio: int) -> None:
    book = card(
        entry(1, text_in=Price(Decimal(1)), audio_out=Price(Decimal(20)), text_out=Free()),
        entry(10, text_in=Price(Decimal(2)), audio_out=Price(Decimal(10)), text_out=Free()),
        entry(20, text_in=Price(Decimal(2)), audio_out=Price(Decimal(64)), text_out=Price(Decimal(3))),
    )
    found = book.dearest("openai", "m", datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, until, tzinfo=UTC))
    assert (found.price(Meter.TEXT_IN), found.price(Meter.AUDIO_OUT)) == (text, audio)
    assert found.effective_from == datetime(2026, 1, 1, tzinfo=UTC)
    assert (Meter.TEXT_OUT in found.free) == (found.price(Meter.TEXT_OUT) == 0) == (until < 20)


def test_terms_resolve() -> None:
    found = card(
        entry(
            1,
            text_in=Price(Decimal(3)),
            audio_in=SameAs(Meter.TEXT_IN),
            image_in=SameAs(Meter.AUDIO_IN),
            text_out=Free(),
        )
    ).snapshot("openai", "m", datetime(2026, 1, 2, tzinfo=UTC))
    assert found.price(Meter.IMAGE_IN) == 3
    assert found.price(Meter.TEXT_OUT) == 0
    for terms in (
        {"text_in": SameAs(Meter.AUDIO_IN), "audio_in": SameAs(Meter.TEXT_IN)},
        {"text_in": SameAs(Meter.AUDIO_IN)},
        {"text_in": SameAs(Meter.AUDIO_IN), "audio_in": Absent()},
    ):
        with pytest.raises(PriceUnknown):
            card(entry(1, **terms)).snapshot("openai", "m", datetime(2026, 1, 2, tzinfo=UTC))


def test_the_worked_examples() -> None:
    caps = Caps(8000, 60)
    instructions = text_tokens_bound("x" * 2000)
    assert capped_response_bound(Legs(FULL, TRANSCRIBE), caps, instruction_tokens=instructions) == Decimal("0.364912")
    assert capped_response_bound(Legs(MINI, TRANSCRIBE), caps, instruction_tokens=instructions) == Decimal("0.1160576")
    tokens_in, tokens_out = text_tokens_bound(DEFAULT_CLOSING) + 300, closing_output_cap(DEFAULT_CLOSING)
    assert goodbye_bound(MINI, DEFAULT_CLOSING) == money.usd(
        (tokens_in * Decimal("0.6") + tokens_out * Decimal(20)) / 1_000_000
    )
    assert goodbye_bound(MINI, DEFAULT_CLOSING) < Decimal("0.01")
    assert goodbye_bound(FULL, DEFAULT_CLOSING) < Decimal("0.03")


@given(
    st.integers(500, 128_000),
    st.integers(2, 300),
    st.integers(0, 200_000),
    st.floats(0, 60),
    st.integers(0, 5000),
    st.floats(0, 1),
)
def test_w_bounds_every_response_the_caps_allow(
    context_cap: int, seconds: int, known: int, pending: float, instructions: int, share: float
) -> None:
    legs, caps = Legs(MINI, TRANSCRIBE), Caps(context_cap, seconds)
    w = response_bound(legs, caps, instruction_tokens=instructions, context_tokens=known, pending_audio_seconds=pending)
    assert w <= capped_response_bound(legs, caps, instruction_tokens=instructions)
    conversation = min(context_cap, known + int(pending * 10))
    audio = int(conversation * share)
    out = output_cap(seconds)
    billed = price(
        {
            Meter.TEXT_IN: instructions + conversation - audio,
            Meter.AUDIO_IN: audio,
            Meter.AUDIO_OUT: int(out * share),
            Meter.TEXT_OUT: out - int(out * share),
        },
        MINI,
    ) + price({Meter.AUDIO_IN: int(pending * 10), Meter.TEXT_OUT: int(pending * 4)}, TRANSCRIBE)
    assert billed <= w


def test_without_prices_there_is_no_worst_case() -> None:
    with pytest.raises(PriceUnknown):
        capped_response_bound(Legs(snapshot(text_in="1")), Caps(1000, 10), instruction_tokens=0)


def test_feasibility_says_the_numbers_and_a_cap_that_fits() -> None:
    legs, instructions = Legs(FULL, TRANSCRIBE), instruction_tokens_bound("Be kind.", ["Wrap up."])
    terms = {"instruction_tokens": instructions, "closing": DEFAULT_CLOSING, "provider": "main"}
    verdict = judge_feasible(legs, Caps(8000, 60), session_limit=Decimal(1), **terms)
    assert not verdict.ok
    assert verdict.needed == verdict.goodbye + 4 * verdict.w
    assert "lower caps.contextTokens from 8000 to " in verdict.message
    advised = int(verdict.message.split(" to ")[1].split()[0])
    assert judge_feasible(legs, Caps(advised, 60), session_limit=Decimal(1), **terms).ok
    assert not judge_feasible(legs, Caps(advised + 40, 60), session_limit=Decimal(1), **terms).ok
    assert judge_feasible(legs, Caps(8000, 60), session_limit=Decimal(2), **terms).ok
    doubled = judge_feasible(legs, Caps(8000, 60), session_limit=Decimal(2), hold=2, **terms)
    assert not doubled.ok


def test_meters_are_checked() -> None:
    assert counts({"text_in": 3, "audio_in": 0}) == {Meter.TEXT_IN: 3}
    assert add({Meter.TEXT_IN: 1}, {Meter.TEXT_IN: 2, Meter.AUDIO_IN: 3}) == {Meter.TEXT_IN: 3, Meter.AUDIO_IN: 3}
    for bad in ({"words": 1}, {"text_in": -1}, {"text_in": True}):
        with pytest.raises(MeterError):
            counts(bad)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_card_resolves(path: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    built = rate_card(raw["metadata"]["name"], RateCardSpec.model_validate(raw["spec"]))
    for one in built.entries:
        found = RateBook((built,)).snapshot(built.vendor, built.model, one.effective_from)
        assert found.prices
        assert snapshot_core(snapshot_wire(found)).prices.keys() == found.prices.keys()
