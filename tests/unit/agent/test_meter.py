"""The meter: raw events as the provider sends them -> facts about money, each billed thing once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from talktime_agent.facts import Billed, Committed, Connected, Fact, Fault, Free, Opened, Refused, Unmeterable
from talktime_agent.meter import UNKNOWN_TURN_SECONDS, ProviderMeter
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.usage import UsageKind, UsageStatus

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
MODEL = "gpt-realtime-2.1-mini"


def usage(
    audio: int = 100, cached_audio: int = 40, text: int = 50, cached_text: int = 30, out: int = 60
) -> dict[str, Any]:
    return {
        "total_tokens": audio + text + out + 20,
        "input_tokens": audio + text,
        "output_tokens": out + 20,
        "input_token_details": {
            "text_tokens": text,
            "audio_tokens": audio,
            "cached_tokens": cached_audio + cached_text,
            "cached_tokens_details": {"text_tokens": cached_text, "audio_tokens": cached_audio},
        },
        "output_token_details": {"text_tokens": 20, "audio_tokens": out},
    }


def connected(session: str = "sess_1") -> dict[str, Any]:
    return {"type": "session.created", "session": {"id": session}}


def created(response: str = "resp_1", request: str | None = "create_1") -> dict[str, Any]:
    metadata = {"client_event_id": request} if request else None
    return {"type": "response.created", "response": {"id": response, "metadata": metadata}}


def done(response: str = "resp_1", status: str = "completed", told: dict[str, Any] | None = None, **more: Any) -> Any:
    return {"type": "response.done", "response": {"id": response, "status": status, "usage": told, **more}}


def transcribed(item: str = "item_1") -> dict[str, Any]:
    return {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": item,
        "content_index": 0,
        "usage": {
            "type": "tokens",
            "input_tokens": 40,
            "output_tokens": 12,
            "input_token_details": {"audio_tokens": 38, "text_tokens": 2},
        },
    }


def turn(item: str = "item_1", start: int = 1000, end: int = 4500) -> list[dict[str, Any]]:
    return [
        {"type": "input_audio_buffer.speech_started", "item_id": item, "audio_start_ms": start},
        {"type": "input_audio_buffer.speech_stopped", "item_id": item, "audio_end_ms": end},
        {"type": "input_audio_buffer.committed", "item_id": item},
    ]


@pytest.fixture
def meter() -> ProviderMeter:
    return ProviderMeter(provider="primary", model=MODEL, transcription_model="gpt-4o-mini-transcribe")


def feed(meter: ProviderMeter, *events: dict[str, Any]) -> list[Fact]:
    return [fact for event in events for fact in meter.feed(event, AT)]


def test_a_response_is_billed_under_its_session_and_id(meter: ProviderMeter) -> None:
    facts = feed(meter, connected(), created(), done(told=usage()))
    assert facts[:2] == [Connected("sess_1", replaced=False), Opened("sess_1/resp_1", "create_1")]
    billed = facts[2]
    assert isinstance(billed, Billed)
    assert billed.usage.key == "sess_1/resp_1"
    assert billed.usage.kind is UsageKind.RESPONSE
    assert billed.usage.meters == {
        Meter.TEXT_IN: 20, Meter.TEXT_CACHED_IN: 30, Meter.AUDIO_IN: 60, Meter.AUDIO_CACHED_IN: 40,
        Meter.TEXT_OUT: 20, Meter.AUDIO_OUT: 60,
    }  # fmt: skip


def test_the_same_response_done_twice_is_billed_once(meter: ProviderMeter) -> None:
    facts = feed(meter, connected(), created(), done(told=usage()), done(told=usage()))
    assert sum(isinstance(fact, Billed) for fact in facts) == 1


def test_a_cancelled_response_is_billed_for_what_it_used(meter: ProviderMeter) -> None:
    billed = feed(meter, connected(), created(), done(status="cancelled", told=usage(out=7)))[-1]
    assert isinstance(billed, Billed)
    assert billed.usage.status is UsageStatus.CANCELLED
    assert billed.usage.meters[Meter.AUDIO_OUT] == 7


def test_a_response_nobody_waited_for_is_billed_all_the_same(meter: ProviderMeter) -> None:
    billed = feed(meter, connected(), done("resp_9", told=usage()))[-1]
    assert isinstance(billed, Billed)
    assert billed.usage.key == "sess_1/resp_9"


@pytest.mark.parametrize(("status", "kind"), [("failed", Free), ("cancelled", Unmeterable), ("completed", Unmeterable)])
def test_a_response_without_usage(meter: ProviderMeter, status: str, kind: type) -> None:
    assert isinstance(feed(meter, connected(), created(), done(status=status))[-1], kind)


def test_a_response_told_again_with_its_usage_is_billed(meter: ProviderMeter) -> None:
    feed(meter, connected(), created(), done(status="cancelled"))
    assert feed(meter, done(status="cancelled"), created()) == [], "nothing new, and no response that begins"
    assert isinstance(feed(meter, done(status="cancelled", told=usage()))[0], Billed)
    assert feed(meter, done(status="cancelled", told=usage())) == []


def test_malformed_usage_stays_at_its_bound(meter: ProviderMeter) -> None:
    broken = usage() | {"input_tokens": -3}
    assert isinstance(feed(meter, connected(), created(), done(told=broken))[-1], Unmeterable)


def test_a_lost_connection_leaves_its_open_responses_at_their_bound(meter: ProviderMeter) -> None:
    feed(meter, connected(), created("resp_1"), created("resp_2", None))
    facts = feed(meter, connected("sess_2"))
    assert facts[0] == Connected("sess_2", replaced=True)
    assert [fact.key for fact in facts if isinstance(fact, Unmeterable)] == ["sess_1/resp_1", "sess_1/resp_2"]
    assert meter.open_responses == frozenset()
    assert feed(meter, created("resp_1"))[0] == Opened("sess_2/resp_1", "create_1")


def test_a_turn_is_as_long_as_the_provider_heard_it(meter: ProviderMeter) -> None:
    assert feed(meter, connected(), *turn())[-1] == Committed("item_1", 3.5)
    assert meter.pending_seconds == 3.5


def test_a_turn_of_unknown_length_counts_as_a_long_one(meter: ProviderMeter) -> None:
    assert feed(meter, turn()[2])[-1] == Committed("item_1", UNKNOWN_TURN_SECONDS)


def test_the_context_is_what_the_last_answer_was_billed_for_and_what_was_said_since(meter: ProviderMeter) -> None:
    feed(meter, connected(), *turn("item_1"), created(), *turn("item_2", 9000, 10000), done(told=usage()))
    assert meter.context_tokens == 100 + 50 + 60 + 20
    assert meter.pending_seconds == 1.0


def test_the_goodbye_out_of_band_says_nothing_about_the_conversation(meter: ProviderMeter) -> None:
    feed(meter, connected(), created(), done(told=usage()))
    metadata = {"talktime": "closing", "client_event_id": "closing_1"}
    billed = feed(meter, done("resp_2", told=usage(audio=0, cached_audio=0, text=80), metadata=metadata))[-1]
    assert isinstance(billed, Billed)
    assert billed.usage.kind is UsageKind.CLOSING_RENDER
    assert meter.context_tokens == 230


def test_transcription_is_billed_to_its_own_model_once(meter: ProviderMeter) -> None:
    facts = feed(meter, connected(), transcribed(), transcribed())
    billed = [fact for fact in facts if isinstance(fact, Billed)]
    assert len(billed) == 1
    assert (billed[0].usage.key, billed[0].usage.model) == ("item_1/0", "gpt-4o-mini-transcribe")
    assert billed[0].usage.meters == {Meter.AUDIO_IN: 38, Meter.TEXT_IN: 2, Meter.TEXT_OUT: 12}


def test_a_failed_transcription_is_free(meter: ProviderMeter) -> None:
    event = {"type": "conversation.item.input_audio_transcription.failed", "item_id": "item_1", "content_index": 0}
    assert feed(meter, event) == [Free("item_1/0")]


def test_a_refused_request_was_never_started(meter: ProviderMeter) -> None:
    error = {"code": "conversation_already_has_active_response", "message": "busy", "event_id": "create_1"}
    assert feed(meter, {"type": "error", "error": error}) == [
        Refused("create_1", "conversation_already_has_active_response")
    ]


def test_a_provider_that_will_not_serve_us_is_a_fault(meter: ProviderMeter) -> None:
    error = {"code": "insufficient_quota", "message": "You exceeded your current quota."}
    assert feed(meter, {"type": "error", "error": error}) == [
        Fault("insufficient_quota", "You exceeded your current quota.")
    ]
    failed = done(status="failed", status_details={"error": {"code": "rate_limit_exceeded", "message": "slow"}})
    assert feed(meter, failed)[-1] == Fault("rate_limit_exceeded", "slow")
