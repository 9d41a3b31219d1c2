"""Gemini usage: every token of a `usageMetadata` in one meter; per-minute models: what is new of a cumulative value."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_ledger.core.meters import INPUTS, OUTPUTS, Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.pricing import price, price_or_bound
from talktime_ledger.core.rates import Price, PriceUnknown, RateBook, RateCard, RateEntry, RateSnapshot
from talktime_ledger.core.usage import UsageError, UsageMissing
from talktime_ledger.core.usage_gemini import gemini_meters, usage_from_gemini_metadata
from talktime_ledger.core.usage_seconds import cumulative_seconds, reached, usage_from_cumulative
from talktime_ledger.core.worst_case import Caps, Legs, instruction_tokens_bound
from talktime_ledger.core.worst_case_gemini import (
    UNASSIGNED_TOKENS,
    gemini_capped_response_bound,
    gemini_closing_output_cap,
    gemini_goodbye_bound,
    gemini_response_bound,
    thoughts_bound,
)
from talktime_ledger.core.worst_cases import GEMINI, OPENAI, worst_cases
from talktime_ledger.desk.pricing import HOLD, feasible, legs_for
from talktime_ledger.resources.project import AgentSpec, Api, Provider

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
GEMINI_38 = RateSnapshot(
    "gemini-3.8-live",
    "google",
    "gemini-3.8-live",
    AT,
    {
        Meter.TEXT_IN: Decimal("0.75"),
        Meter.AUDIO_IN: Decimal(3),
        Meter.TEXT_OUT: Decimal("4.5"),
        Meter.AUDIO_OUT: Decimal(12),
        Meter.THOUGHTS_OUT: Decimal("4.5"),
        Meter.TOOL_PROMPT_IN: Decimal("0.75"),
        Meter.UNASSIGNED_IN: Decimal(3),
    },
)


def details(**tokens: int) -> list[dict[str, Any]]:
    return [{"modality": kind.upper(), "tokenCount": count} for kind, count in tokens.items()]


def test_a_usage_of_the_real_wire_is_taken_apart() -> None:
    # Numbers of discuss.ai.google.dev/t/188765: the total leaves the thoughts out, the details leave 51 tokens out.
    metadata = {
        "promptTokenCount": 522,
        "responseTokenCount": 42,
        "totalTokenCount": 564,
        "thoughtsTokenCount": 136,
        "promptTokensDetails": details(text=400, audio=71),
        "responseTokensDetails": details(audio=42),
    }
    usage = usage_from_gemini_metadata(
        metadata, connection="live_1", generation=3, provider="backup", model="gemini-3.8-live", occurred_at=AT
    )
    assert usage.key == "live_1/3"
    assert usage.meters == {
        Meter.TEXT_IN: 400,
        Meter.AUDIO_IN: 71,
        Meter.UNASSIGNED_IN: 51,
        Meter.AUDIO_OUT: 42,
        Meter.THOUGHTS_OUT: 136,
    }
    # 400 x 0.75 + (71 + 51) x 3 + 42 x 12 + 136 x 4.5 per million
    assert price(usage.meters, GEMINI_38) == Decimal("0.001782")


@pytest.mark.parametrize(
    ("metadata", "meters"),
    [
        ({"promptTokenCount": 9}, {Meter.UNASSIGNED_IN: 9}),
        ({"promptTokenCount": 9, "responseTokenCount": 5}, {Meter.UNASSIGNED_IN: 9, Meter.AUDIO_OUT: 5}),
        (
            {"responseTokenCount": 9, "responseTokensDetails": details(text=4)},
            {Meter.TEXT_OUT: 4, Meter.AUDIO_OUT: 5},
        ),
        (
            {"candidatesTokenCount": 9, "candidatesTokensDetails": details(audio=9)},
            {Meter.AUDIO_OUT: 9},
        ),
        (
            {"promptTokenCount": 30, "promptTokensDetails": details(video=10, image=5, document=8)},
            {Meter.IMAGE_IN: 15, Meter.TEXT_IN: 8, Meter.UNASSIGNED_IN: 7},
        ),
        (
            {"promptTokenCount": 30, "promptTokensDetails": details(text=10, smell=12)},
            {Meter.TEXT_IN: 10, Meter.UNASSIGNED_IN: 20},
        ),
        (
            {"promptTokenCount": 20, "toolUsePromptTokenCount": 80, "promptTokensDetails": details(text=20)},
            {Meter.TEXT_IN: 20, Meter.TOOL_PROMPT_IN: 80},
        ),
        (
            {
                "promptTokenCount": 100,
                "promptTokensDetails": details(text=60, audio=40),
                "cachedContentTokenCount": 50,
                "cacheTokensDetails": details(text=20, audio=30),
            },
            {Meter.TEXT_IN: 40, Meter.TEXT_CACHED_IN: 20, Meter.AUDIO_IN: 10, Meter.AUDIO_CACHED_IN: 30},
        ),
        (
            {
                "promptTokenCount": 100,
                "promptTokensDetails": details(text=60, audio=40),
                "cachedContentTokenCount": 70,
            },
            {Meter.TEXT_CACHED_IN: 60, Meter.AUDIO_IN: 30, Meter.AUDIO_CACHED_IN: 10},
        ),
    ],
)
def test_every_token_is_in_one_meter(metadata: dict[str, Any], meters: dict[Meter, int]) -> None:
    assert gemini_meters(metadata) == meters


@pytest.mark.parametrize(
    "metadata",
    [
        {"promptTokenCount": -1},
        {"promptTokenCount": "9"},
        {"promptTokenCount": True},
        {"promptTokenCount": 5, "promptTokensDetails": details(text=6)},
        {"promptTokenCount": 5, "promptTokensDetails": [5]},
        {"promptTokenCount": 5, "promptTokensDetails": {"TEXT": 5}},
        {"responseTokenCount": 5, "responseTokensDetails": details(text=6)},
        {"promptTokenCount": 5, "cachedContentTokenCount": 6},
        {
            "promptTokenCount": 5,
            "promptTokensDetails": details(text=5),
            "cacheTokensDetails": details(audio=3),
        },
    ],
)
def test_a_malformed_usage_is_an_error_that_names_the_field(metadata: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"Token|token"):
        gemini_meters(metadata)


def test_a_usage_without_counts_is_missing() -> None:
    with pytest.raises(UsageMissing):
        gemini_meters({"trafficType": "ON_DEMAND"})


tokens = st.integers(0, 50_000)


@given(text=tokens, audio=tokens, image=tokens, gap=tokens, spoken=tokens, written=tokens, thoughts=tokens, tool=tokens)
def test_no_token_is_lost_or_counted_twice(
    text: int, audio: int, image: int, gap: int, spoken: int, written: int, thoughts: int, tool: int
) -> None:
    prompt = text + audio + image + gap
    meters = gemini_meters(
        {
            "promptTokenCount": prompt,
            "promptTokensDetails": details(text=text, audio=audio, image=image),
            "responseTokenCount": spoken + written,
            "responseTokensDetails": details(audio=spoken, text=written),
            "thoughtsTokenCount": thoughts,
            "toolUsePromptTokenCount": tool,
        }
    )
    assert sum(count for meter, count in meters.items() if meter in INPUTS) == prompt + tool
    assert sum(count for meter, count in meters.items() if meter in OUTPUTS) == spoken + written + thoughts
    assert all(count > 0 for count in meters.values())


def test_a_cached_token_on_a_card_without_a_cached_price_costs_the_dearest() -> None:
    priced = price_or_bound({Meter.TEXT_CACHED_IN: 1_000_000}, GEMINI_38)
    assert (priced.usd, priced.missing) == (Decimal(3), (Meter.TEXT_CACHED_IN,))


# W and C


def test_the_worked_example_of_the_worst_case() -> None:
    caps = Caps(8000, 60)
    instructions = instruction_tokens_bound("x" * 2000, ())
    assert gemini_capped_response_bound(Legs(GEMINI_38), caps, instruction_tokens=instructions) == Decimal("0.055338")


@given(
    instructions=st.integers(0, 2000),
    trigger=st.integers(500, 20_000),
    before=st.integers(0, 40_000),
    turn=st.integers(0, 300),
    unassigned=st.integers(0, UNASSIGNED_TOKENS),
    seconds=st.integers(2, 160),
    thoughts=st.integers(0, 1024),
)
def test_no_generation_under_the_caps_costs_more_than_w(
    instructions: int, trigger: int, before: int, turn: int, unassigned: int, seconds: int, thoughts: int
) -> None:
    """The dearest reading of the wire: all of the conversation is audio, the answer is as long as the cap allows."""
    caps = Caps(trigger, seconds)
    bound = gemini_response_bound(
        Legs(GEMINI_38), caps, instruction_tokens=instructions, context_tokens=before, pending_audio_seconds=turn
    )
    billed = {
        Meter.TEXT_IN: instructions,
        Meter.AUDIO_IN: min(before, trigger) + turn * 25,
        Meter.UNASSIGNED_IN: unassigned,
        Meter.AUDIO_OUT: min(4096, seconds * 25),
        Meter.THOUGHTS_OUT: min(thoughts, thoughts_bound(seconds * 25)),
    }
    assert price(billed, GEMINI_38) <= bound


def test_the_goodbye_pays_for_its_rendering() -> None:
    closing = "Thank you for your time, we have covered everything we need. Goodbye."
    billed = {
        Meter.TEXT_IN: len(closing) + 120,
        Meter.UNASSIGNED_IN: 51,
        Meter.AUDIO_OUT: gemini_closing_output_cap(closing),
        Meter.THOUGHTS_OUT: 139,
    }
    assert price(billed, GEMINI_38) <= gemini_goodbye_bound(GEMINI_38, closing)
    assert gemini_closing_output_cap(closing) >= 25 * len(closing) / 8


def test_the_vendor_of_the_card_chooses_the_rules() -> None:
    assert worst_cases("google") is GEMINI
    assert worst_cases("openai") is OPENAI
    caps, legs = Caps(8000, 60), Legs(GEMINI_38)
    assert GEMINI.capped(legs, caps, instruction_tokens=0) != OPENAI.capped(legs, caps, instruction_tokens=0)


# per-minute models

LIVE = RateSnapshot(
    "gpt-live-1.1",
    "openai",
    "gpt-live-1.1",
    AT,
    {
        Meter.ACTIVE_SECONDS: Decimal(3) * 1_000_000 / 3600,
        Meter.STANDBY_SECONDS: Decimal("1.2") * 1_000_000 / 3600,
    },
)


def test_seconds_of_a_connection_are_posted_as_what_is_new() -> None:
    before: dict[Meter, int] = {}
    posted = []
    for report in (
        {"active_seconds": 61.2},
        {"active_seconds": 61.2},
        {"active_seconds": 120, "standby_seconds": 30},
        {"active_seconds": 90},
    ):
        now = cumulative_seconds(report)
        usage = usage_from_cumulative(
            now, before, connection="live_1", provider="p", model="gpt-live-1.1", occurred_at=AT
        )
        posted += [] if usage is None else [usage]
        before = reached(now, before)
    assert [(usage.key, usage.meters) for usage in posted] == [
        ("live_1/62+0", {Meter.ACTIVE_SECONDS: 62}),
        ("live_1/120+30", {Meter.ACTIVE_SECONDS: 58, Meter.STANDBY_SECONDS: 30}),
    ]
    # 2 minutes at $0.05 and half a minute at $0.02.
    assert sum((price(usage.meters, LIVE) for usage in posted), ZERO) == Decimal("0.11")


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 4000)), max_size=20), st.randoms())
def test_repeated_and_reordered_reports_add_up_to_the_last_value(reports: list[tuple[int, int]], shuffled: Any) -> None:
    told = [*reports, *reports]
    shuffled.shuffle(told)
    before: dict[Meter, int] = {}
    total: dict[Meter, int] = {}
    for active, standby in told:
        now = cumulative_seconds({"active_seconds": active, "standby_seconds": standby})
        usage = usage_from_cumulative(now, before, connection="c", provider="p", model="m", occurred_at=AT)
        for meter, seconds in (usage.meters if usage else {}).items():
            assert seconds > 0
            total[meter] = total.get(meter, 0) + seconds
        before = reached(now, before)
    assert total.get(Meter.ACTIVE_SECONDS, 0) == max((active for active, _ in reports), default=0)
    assert total.get(Meter.STANDBY_SECONDS, 0) == max((standby for _, standby in reports), default=0)


@pytest.mark.parametrize("report", [{"active_seconds": -1}, {"active_seconds": "9"}, {"standby_seconds": True}])
def test_seconds_that_are_none_are_an_error(report: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="seconds"):
        cumulative_seconds(report)


def gemini_provider(**more: Any) -> Provider:
    told = {
        "name": "backup",
        "api": "GeminiLive",
        "model": "gemini-3.8-live",
        "secretRef": {"name": "s", "key": "google"},
        "caps": {"contextTokens": 8000, "responseSeconds": 60},
    }
    return Provider.model_validate({**told, **more})


def test_a_gemini_provider_is_priced_without_transcription_and_held_twice() -> None:
    card = RateCard(
        "c", "google", "gemini-3.8-live", (RateEntry(AT, {m: Price(p) for m, p in GEMINI_38.prices.items()}),)
    )
    legs = legs_for(gemini_provider(), RateBook((card,)), AT)
    assert legs.transcription is None
    agent = AgentSpec.model_validate({"instructions": "x" * 1900})
    verdict = feasible(gemini_provider(), agent, agent.instructions or "", Decimal("0.2"), legs)
    caps = Caps(8000, 60)
    words = instruction_tokens_bound(agent.instructions or "", (agent.wrap_up or "", agent.closing or ""))
    assert verdict.w >= gemini_capped_response_bound(legs, caps, instruction_tokens=words)
    assert verdict.needed == verdict.goodbye + 4 * HOLD[Api.GEMINI_LIVE] * verdict.w
    assert not verdict.ok
    assert "8 x worst response" in verdict.message
    assert feasible(gemini_provider(), agent, "", Decimal(1), legs).ok


def test_a_gemini_model_without_a_card_is_refused() -> None:
    with pytest.raises(PriceUnknown, match=r"gemini-3\.9-live"):
        legs_for(gemini_provider(model="gemini-3.9-live"), RateBook(), AT)
