"""What a bill does to the books: exact shares, variances that add up, and nothing the second time."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_ledger.core.invoice import Item, item_of
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO, usd
from talktime_ledger.core.reconcile import Billed, Booked, percent_of, settle
from talktime_ledger.core.shares import shares

MODELS = ("gpt-realtime", "gpt-realtime-mini", "gpt-4o-mini-transcribe", "gemini-3.8-live")
RATES = {Meter.AUDIO_IN: Decimal(10), Meter.AUDIO_OUT: Decimal(20), Meter.TEXT_IN: Decimal("0.6")}
SAME = {Meter.THOUGHTS_OUT: Meter.TEXT_OUT, Meter.UNASSIGNED_IN: Meter.AUDIO_IN, Meter.TOOL_PROMPT_IN: Meter.TEXT_IN}
ALL_RATES = {**RATES, Meter.TEXT_OUT: Decimal(2), Meter.THOUGHTS_OUT: Decimal(2), Meter.UNASSIGNED_IN: Decimal(10)}


def booked(key: str, counts: dict[Meter, int], unmetered: str = "0", corrected: str = "0") -> Booked[str]:
    priced = {meter: ALL_RATES[meter] * count / 1_000_000 for meter, count in counts.items()}
    bound = Decimal(unmetered)
    return Booked(key, counts, priced, usd(sum(priced.values(), ZERO)) + bound, bound, Decimal(corrected))


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("gpt-realtime-mini, audio_cached_in", Item("gpt-realtime-mini", Meter.AUDIO_CACHED_IN)),
        ("gpt-realtime-mini-2025-10-06, cached audio input", Item("gpt-realtime-mini", Meter.AUDIO_CACHED_IN)),
        ("gpt-realtime, audio output", Item("gpt-realtime", Meter.AUDIO_OUT)),
        ("gpt-realtime, input", Item("gpt-realtime", Meter.TEXT_IN)),
        ("gpt-4o-mini-transcribe, text output", Item("gpt-4o-mini-transcribe", Meter.TEXT_OUT)),
        ("Gemini 3.8 Live thinking output tokens", Item("gemini-3.8-live", Meter.THOUGHTS_OUT)),
        ("gemini-3.8-live video input token count", Item("gemini-3.8-live", Meter.IMAGE_IN)),
        ("gpt-realtime-mini", Item("gpt-realtime-mini", None)),
        ("gpt-realtime-2, audio output", None),
        ("gpt-5, input", None),
    ],
)
def test_a_line_is_about_a_model_and_a_meter(text: str, item: Item | None) -> None:
    assert item_of(text, MODELS) == item


def test_the_worked_example_of_the_module() -> None:
    ours = [booked("a", {Meter.AUDIO_IN: 600}), booked("b", {Meter.AUDIO_IN: 400}, unmetered="0.002")]
    outcome = settle(ours, {Meter.AUDIO_IN: Billed(Decimal("0.0121"), Decimal(1100))})
    (variance,) = outcome.variances
    assert (variance.quantity_usd, variance.price_usd) == (Decimal("0.001"), Decimal("0.0011"))
    assert outcome.shares == {"a": Decimal("0.0066"), "b": Decimal("0.0044") + Decimal("0.0011")}
    assert outcome.corrections == {"a": Decimal("0.0006"), "b": Decimal("-0.0005")}


def test_surplus_beyond_the_bounds_goes_to_the_sessions_that_counted_the_meter() -> None:
    ours = [booked("lost", {}, unmetered="0.001"), booked("seen", {Meter.AUDIO_IN: 1000})]
    outcome = settle(ours, {Meter.AUDIO_IN: Billed(Decimal("0.03"), Decimal(3000))})
    assert outcome.shares == {"lost": Decimal("0.001"), "seen": Decimal("0.029")}


def test_a_meter_that_nobody_counted_is_divided_by_spend() -> None:
    ours = [booked("a", {Meter.AUDIO_IN: 3000}), booked("b", {Meter.AUDIO_IN: 1000})]
    bill = {Meter.AUDIO_IN: Billed(Decimal("0.04"), Decimal(4000)), Meter.TEXT_IN: Billed(Decimal("0.004"))}
    assert settle(ours, bill).shares == {"a": Decimal("0.033"), "b": Decimal("0.011")}


def test_a_usage_report_has_quantities_and_is_priced_at_our_rate() -> None:
    outcome = settle([booked("a", {Meter.AUDIO_IN: 1000})], {Meter.AUDIO_IN: Billed(None, Decimal(1100))})
    (variance,) = outcome.variances
    assert (variance.quantity_usd, variance.price_usd, outcome.billed) == (Decimal("0.001"), 0, Decimal("0.011"))


def test_a_usage_report_takes_nothing_back_for_meters_that_it_has_no_name_for() -> None:
    ours = [booked("a", {Meter.AUDIO_IN: 1000, Meter.THOUGHTS_OUT: 50}), booked("b", {Meter.UNASSIGNED_IN: 30})]
    outcome = settle(ours, {Meter.AUDIO_IN: Billed(None, Decimal(1000)), Meter.TEXT_OUT: Billed(None, ZERO)}, {}, SAME)
    assert outcome.corrections == {}
    assert outcome.shares == {"a": Decimal("0.0101"), "b": Decimal("0.0003")}
    assert [(one.meter, one.ours, one.theirs) for one in outcome.variances if one.theirs is None] == [
        (Meter.THOUGHTS_OUT, 50, None),
        (Meter.UNASSIGNED_IN, 30, None),
    ]
    assert outcome.billed == outcome.estimate


# A bill in the vendor's words only: "audio input", "text output". 70 thoughts are in its text, 40 unassigned in its
# audio; one session has lost a response, of which the bill knows nothing.
VENDOR_BILL: dict[Meter | None, Billed] = {
    Meter.AUDIO_IN: Billed(Decimal("0.0104"), Decimal(1040)),
    Meter.TEXT_OUT: Billed(Decimal("0.0002"), Decimal(100)),
}
IN_OUR_WORDS = {Meter.AUDIO_IN: 1000, Meter.UNASSIGNED_IN: 40, Meter.TEXT_OUT: 30, Meter.THOUGHTS_OUT: 70}


@pytest.mark.parametrize("same", [SAME, {}], ids=["as the card says", "by a card with prices of its own"])
def test_tokens_under_another_name_are_no_surplus_of_lost_sessions(same: dict[Meter, Meter]) -> None:
    ours = [booked("seen", IN_OUR_WORDS), booked("lost", {}, unmetered="0.01")]
    outcome = settle(ours, VENDOR_BILL, ALL_RATES, same)
    assert outcome.shares == {"seen": Decimal("0.0106"), "lost": ZERO}
    assert outcome.corrections == {"lost": Decimal("-0.01")}


def test_a_meter_without_a_name_on_the_bill_is_looked_for_under_the_one_it_is_priced_like() -> None:
    ours = [booked("thinks", {Meter.THOUGHTS_OUT: 70}), booked("talks", {Meter.TEXT_OUT: 30})]
    outcome = settle(ours, {Meter.TEXT_OUT: Billed(Decimal("0.0004"), Decimal(100))}, ALL_RATES, SAME)
    assert outcome.shares == {"thinks": Decimal("0.00028"), "talks": Decimal("0.00012")}
    (variance,) = outcome.variances
    assert (variance.meter, variance.ours, variance.quantity_usd) == (Meter.TEXT_OUT, 100, 0)


def test_only_what_all_meters_have_more_goes_to_unmetered_sessions() -> None:
    ours = [booked("seen", {Meter.AUDIO_IN: 1000, Meter.TEXT_IN: 1000}), booked("lost", {}, unmetered="0.01")]
    # 100 audio more (0.001), 1,000 text less (0.0006): 0.0004 are more.
    bill: dict[Meter | None, Billed] = {Meter.AUDIO_IN: Billed(Decimal("0.011"), Decimal(1100))}
    assert settle(ours, bill).shares == {"seen": Decimal("0.0106"), "lost": Decimal("0.0004")}


def test_what_is_billed_without_any_session_of_ours_is_nobodys() -> None:
    outcome = settle([], {Meter.AUDIO_IN: Billed(Decimal("0.04"), Decimal(4000))})
    assert (outcome.unattributed, outcome.corrections) == (Decimal("0.04"), {})


def test_nothing_can_be_divided_among_nobody() -> None:
    with pytest.raises(ValueError, match="nobody"):
        shares(Decimal("0.1"), {"a": 0})
    with pytest.raises(ValueError, match="multiple"):
        shares(Decimal("0.1234567891"), {"a": 1})


def test_the_estimate_in_percent_of_the_bill() -> None:
    assert percent_of(Decimal("0.99"), Decimal(1)) == 99
    assert percent_of(Decimal(1), ZERO) is None


money = st.integers(0, 10**13).map(lambda nano: Decimal(nano).scaleb(-9))


@given(money, st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
def test_shares_add_up_and_follow_their_weights(total: Decimal, weights: list[int]) -> None:
    if not any(weights):
        weights = [*weights, 1]
    parts = shares(total, dict(enumerate(weights)))
    assert sum(parts.values()) == total
    for key, weight in enumerate(weights):
        exact = total * weight / sum(weights)
        assert abs(parts[key] - exact) <= Decimal("0.000000001")


counts = st.dictionaries(st.sampled_from(sorted(RATES)), st.integers(0, 10**6), max_size=3)
sessions = st.lists(st.tuples(counts, st.integers(0, 10**9)), min_size=1, max_size=12)
bills = st.dictionaries(
    st.sampled_from([*sorted(RATES), None]),
    st.tuples(money, st.one_of(st.none(), st.integers(0, 10**7))),
    min_size=1,
    max_size=4,
)


@given(sessions, bills)
def test_the_parts_are_the_bill_and_a_second_run_finds_nothing(
    rows: list[tuple[dict[Meter, int], int]], bill: dict[Meter | None, tuple[Decimal, int | None]]
) -> None:
    ours = [booked(str(i), found, str(Decimal(bound).scaleb(-9))) for i, (found, bound) in enumerate(rows)]
    theirs = {m: Billed(amount, None if q is None else Decimal(q)) for m, (amount, q) in bill.items()}
    outcome = settle(ours, theirs)
    billed = sum((one.amount or ZERO for one in theirs.values()), ZERO)
    assert sum(outcome.shares.values()) == billed
    assert all(part >= 0 for part in outcome.shares.values())
    explained = sum((one.quantity_usd + one.price_usd for one in outcome.variances), ZERO)
    rounding = Decimal("0.00000001")
    assert abs(outcome.estimate + explained - outcome.unmetered + outcome.residual - billed) <= rounding
    again = [
        Booked(one.key, one.counts, one.priced, one.estimate, one.unmetered, outcome.corrections.get(one.key, ZERO))
        for one in ours
    ]
    assert settle(again, theirs).corrections == {}
