"""Every leg that a provider bills is in W: worked by hand, one leg at a time."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from talktime_ledger.core.feasibility import judge_feasible
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import shown
from talktime_ledger.core.rates import RateSnapshot
from talktime_ledger.core.worst_case import Caps, Legs, capped_response_bound, response_bound

USD = Decimal


def rates(**prices: str) -> RateSnapshot:
    """USD per million."""
    return RateSnapshot(
        "c",
        "openai",
        "m",
        datetime(2026, 1, 1, tzinfo=UTC),
        {Meter(name): USD(price) for name, price in prices.items()},
    )


MINI = rates(text_in="0.6", text_cached_in="0.06", audio_in="10", audio_cached_in="0.3", text_out="2.4", audio_out="20")
TRANSCRIBE = rates(text_in="1.25", audio_in="3", text_out="5")
WHISPER = rates(active_seconds="100")  # 0.006 a minute
CAPS = Caps(1000, 10)
BASE: dict[str, Any] = {"instruction_tokens": 0, "context_tokens": 0, "pending_audio_seconds": 0}


@pytest.mark.parametrize(
    ("model", "transcription", "change", "leg"),
    [
        # an answer of at most 10 s: 250 tokens of speech
        (MINI, None, {}, "0.005"),
        # instructions and tool definitions, as text
        (MINI, None, {"instruction_tokens": 2000}, "0.005 + 0.0012"),
        # the conversation, all of it as if it were uncached speech, up to the cap
        (MINI, None, {"context_tokens": 600}, "0.005 + 0.006"),
        (MINI, None, {"context_tokens": 600_000}, "0.005 + 0.010"),
        # 7 s said since: 70 tokens into the response, 86 into the transcription, 70 tokens of transcript
        (MINI, None, {"pending_audio_seconds": 7.0}, "0.005 + 0.0007"),
        (MINI, TRANSCRIBE, {"pending_audio_seconds": 7.0}, "0.005 + 0.0007 + 0.000258 + 0.00035"),
        (MINI, WHISPER, {"pending_audio_seconds": 7.0}, "0.005 + 0.0007 + 0.0007"),
        # reasoning comes out of the same cap: where it is dearer than speech, all of the answer may be it
        (rates(text_in="1", audio_in="10", text_out="2", audio_out="20", thoughts_out="80"), None, {}, "0.02"),
        # a prompt of tool results, images or tokens of no modality: the dearest uncached price covers them
        (
            rates(text_in="1", audio_in="10", image_in="50", audio_out="20"),
            None,
            {"context_tokens": 100},
            "0.005 + 0.005",
        ),
        (
            rates(text_in="1", audio_in="10", tool_prompt_in="30", audio_out="20"),
            None,
            {"context_tokens": 100},
            "0.008",
        ),
    ],
)
def test_each_leg(model: RateSnapshot, transcription: RateSnapshot | None, change: dict[str, Any], leg: str) -> None:
    expected = sum((USD(part) for part in leg.split("+")), USD(0))
    assert response_bound(Legs(model, transcription), CAPS, **{**BASE, **change}) == expected


def test_w_cap_has_all_legs_at_once() -> None:
    # 2,000 x 0.6/M + 1,000 x 10/M + 250 x 20/M + (616 x 3/M + 600 x 5/M)
    expected = USD("0.0012") + USD("0.01") + USD("0.005") + USD("0.001848") + USD("0.003")
    assert capped_response_bound(Legs(MINI, TRANSCRIBE), CAPS, instruction_tokens=2000) == expected


@pytest.mark.parametrize(
    ("caps", "limit", "advice"),
    [
        (Caps(8000, 10), "0.2", "lower caps.contextTokens from 8000 to "),
        (Caps(600, 120), "0.1", "lower caps.responseSeconds from 120 to "),
    ],
)
def test_the_advice_names_the_cap_that_costs_most_and_is_enough(caps: Caps, limit: str, advice: str) -> None:
    terms: dict[str, Any] = {"instruction_tokens": 500, "closing": "Thank you and goodbye.", "provider": "main"}
    verdict = judge_feasible(Legs(MINI, None), caps, session_limit=USD(limit), **terms)
    assert not verdict.ok and verdict.reason == "SessionLimitTooLow"
    for number in (USD(limit), verdict.needed, verdict.goodbye, verdict.w):
        assert shown(number) in verdict.message
    assert advice in verdict.message
    advised = int(verdict.message.split(advice)[1].split()[0])
    lowered = Caps(advised, caps.response_seconds) if "context" in advice else Caps(caps.context_tokens, advised)
    assert judge_feasible(Legs(MINI, None), lowered, session_limit=USD(limit), **terms).ok


def test_where_no_single_cap_is_enough_the_limit_that_is_enough_is_named() -> None:
    terms: dict[str, Any] = {"instruction_tokens": 500, "closing": "Goodbye.", "provider": "main", "hold": 2}
    verdict = judge_feasible(Legs(MINI, None), Caps(8000, 120), session_limit=USD("0.01"), **terms)
    enough = USD(verdict.message.split("raise the limit to ")[1].split()[0])
    assert enough >= verdict.needed
    assert judge_feasible(Legs(MINI, None), Caps(8000, 120), session_limit=enough, **terms).ok


def test_the_transport_reserve_and_the_participant_s_limit_count_as_at_an_open() -> None:
    terms: dict[str, Any] = {"instruction_tokens": 500, "closing": "Goodbye.", "provider": "main"}
    caps, reserve = Caps(1000, 10), USD("0.4")
    plain = judge_feasible(Legs(MINI, None), caps, session_limit=USD(1), **terms)
    assert plain.ok

    def judged(session: USD, participant: USD | None = None) -> Any:
        return judge_feasible(
            Legs(MINI, None), caps, session_limit=session, transport=reserve, participant_limit=participant, **terms
        )

    assert judged(plain.needed + reserve).ok
    short = judged(plain.needed)
    assert (short.ok, short.reason, short.needed) == (False, "SessionLimitTooLow", plain.needed + reserve)
    for told in (shown(plain.needed), shown(short.needed), shown(reserve), "budget.session.limit", "maxParticipants"):
        assert told in short.message
    least = plain.goodbye + reserve + plain.w
    assert judged(USD(1), least).ok
    capped = judged(USD(1), least - USD("0.000000001"))
    assert (capped.ok, capped.reason, capped.needed) == (False, "ParticipantLimitTooLow", least)
    assert "budget.participant.limit" in capped.message and shown(least) in capped.message
