"""Raw usage in every form it comes in: read once, named when at fault, priced by its own time."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from talktime_console import files
from talktime_console.forms import items_of, unbilled
from talktime_console.offline import cards_of, price_items, priced_document
from talktime_console.problems import CommandError, InputError
from talktime_ledger.core.meters import Meter

AT = datetime(2026, 11, 22, tzinfo=UTC)
CARDS = files.rate_cards([])

OPENAI_USAGE = {
    "input_tokens": 700,
    "output_tokens": 300,
    "input_token_details": {
        "text_tokens": 200,
        "audio_tokens": 500,
        "cached_tokens": 280,
        "cached_tokens_details": {"text_tokens": 100, "audio_tokens": 180},
    },
    "output_token_details": {"text_tokens": 100, "audio_tokens": 200},
}
OPENAI_METERS = {
    Meter.TEXT_IN: 100,
    Meter.TEXT_CACHED_IN: 100,
    Meter.AUDIO_IN: 320,
    Meter.AUDIO_CACHED_IN: 180,
    Meter.TEXT_OUT: 100,
    Meter.AUDIO_OUT: 200,
}


def done(identity: str = "resp_1", usage: dict[str, Any] | None = None) -> dict[str, Any]:
    response = {"object": "realtime.response", "id": identity, "status": "completed", "usage": usage or OPENAI_USAGE}
    return {"type": "response.done", "event_id": "event_1", "response": response}


@pytest.mark.parametrize("raw", [done(), done()["response"], {"usage": OPENAI_USAGE}, OPENAI_USAGE, [done()]])
def test_openai_in_every_wrapping(raw: Any) -> None:
    (item,) = items_of(raw, "usage.json")
    assert dict(item.meters) == OPENAI_METERS


def test_a_repeated_event_is_billed_once_and_a_capture_may_hold_anything() -> None:
    again = {**done(), "event_id": "event_2"}
    items = items_of([{"type": "session.created"}, done(), again, done("resp_2"), {"type": "rate_limits.updated"}], "u")
    assert [item.name for item in items] == ["resp_1", "resp_2"]


def without_usage(status: str) -> dict[str, Any]:
    return {"type": "response.done", "response": {"id": "resp_0", "status": status, "usage": None}}


def test_a_response_that_failed_without_usage_costs_nothing_and_the_rest_is_priced() -> None:
    capture = [without_usage("failed"), without_usage("failed")["response"], done()]
    assert [item.name for item in items_of(capture, "u")] == ["resp_1"]
    assert unbilled(capture, "u") == ["u: usage 1", "u: usage 2"]
    # The usage may come with a repeat.
    assert len(items_of([without_usage("failed"), done("resp_0")], "u")) == 1


@pytest.mark.parametrize("status", ["cancelled", "completed", "incomplete"])
def test_any_other_response_without_usage_is_not_taken_as_free(status: str) -> None:
    with pytest.raises(InputError, match="usage 2: response resp_0 carries no usage"):
        items_of([done(), without_usage(status)], "u")


def test_a_response_and_a_transcription_of_the_same_name_are_two_things() -> None:
    heard = {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "x",
        "content_index": 0,
        "usage": {"type": "tokens", "input_tokens": 5, "input_token_details": {"audio_tokens": 5}, "output_tokens": 1},
    }
    assert len(items_of([done("x/0"), heard], "u")) == 2


def metadata(prompt: int, answer: int) -> dict[str, Any]:
    return {
        "promptTokenCount": prompt,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": prompt}],
        "responseTokenCount": answer,
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": answer}],
    }


SNAKE = {
    "prompt_token_count": 40,
    "prompt_tokens_details": [{"modality": "AUDIO", "token_count": 40}],
    "response_token_count": 9,
    "response_tokens_details": [{"modality": "AUDIO", "token_count": 9}],
}


@pytest.mark.parametrize(
    "raw",
    [
        metadata(40, 9),
        {"usageMetadata": metadata(40, 9)},
        {"serverContent": {"turnComplete": True}, "usageMetadata": metadata(40, 9)},
        SNAKE,
        {"server_content": {"turn_complete": True}, "usage_metadata": SNAKE},
    ],
)
def test_gemini_in_every_wrapping(raw: Any) -> None:
    (item,) = items_of(raw, "u")
    assert dict(item.meters) == {Meter.AUDIO_IN: 40, Meter.AUDIO_OUT: 9}


def test_the_last_snapshot_of_a_gemini_generation_counts() -> None:
    talks = {"serverContent": {"modelTurn": {"parts": []}}}
    over = {"serverContent": {"turnComplete": True}}
    messages = [
        {"setupComplete": {}},
        {**talks, "usageMetadata": metadata(40, 3)},
        {**talks, "usageMetadata": metadata(40, 7)},
        over,
        {"usageMetadata": metadata(40, 9)},  # after the end of its turn
        {**talks, "usageMetadata": metadata(90, 2)},
        {**over, "usageMetadata": metadata(90, 5)},
        {**over, "usageMetadata": metadata(120, 0)},  # ended before a word was said, billed all the same
        {"setupComplete": {}},  # reconnected
        {**talks, "usageMetadata": metadata(60, 1)},
    ]
    told = [
        (item.name, item.meters.get(Meter.AUDIO_IN), item.meters.get(Meter.AUDIO_OUT))
        for item in items_of(messages, "u")
    ]
    assert told == [
        ("generation 1/1", 40, 9),
        ("generation 1/2", 90, 5),
        ("generation 1/3", 120, None),
        ("generation 2/1", 60, 1),
    ]


def test_the_highest_report_of_a_session_billed_by_time_counts() -> None:
    def report(**usage: Any) -> dict[str, Any]:
        return {"type": "session.usage.updated", "usage": usage}

    rows = [report(seconds=10), report(seconds=59.2), report(seconds=30), report(seconds=59.2, standby_seconds=5)]
    (item,) = items_of(rows, "u")
    assert item.meters[Meter.ACTIVE_SECONDS] == 60
    (priced,) = price_items([item], CARDS, "gpt-live-1.1", AT, None)
    assert abs(priced.usd - Decimal("0.05") - Decimal("0.02") * 5 / 60) < Decimal("1e-9")
    (minute,) = price_items(items_of(report(seconds=60), "u"), CARDS, "gpt-live-1", AT, None)
    assert minute.usd == Decimal("0.05")


def session(**changes: Any) -> dict[str, Any]:
    row = {
        "session_id": "s",
        "project_id": "p",
        "provider": "openai_realtime",
        "model": "gpt-realtime-2.1",
        "audio_in_tokens": 500,
        "audio_in_cached_tokens": 180,
        "audio_out_tokens": 200,
        "text_tokens": 300,
        "text_in_tokens": 200,
        "text_in_cached_tokens": 100,
        "text_out_tokens": 100,
        "ai_cost_usd": "0.026152",
        "transport_cost": "0.001",
        "total_cost_usd": "0.027152",
        "duration_sec": 60,
        "created_at": AT.isoformat(),
        "rate_snapshot": [
            {"vendor": "openai", "model": "gpt-realtime-2.1", "effective_from": "2026-01-01T00:00:00Z"},
            {"vendor": "livekit", "model": "participant", "effective_from": "2026-01-01T00:00:00Z"},
        ],
    }
    return {"session_id": "s", "costs": [{**row, **changes}]}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"sessions": [s]},
        lambda s: {"rows": [{"session": s, **s}]},
        lambda s: [{**s, "session": "s"}],
    ],
)
def test_a_session_costs_what_its_responses_cost(wrap: Any) -> None:
    (item,) = items_of(wrap(session()), "u")
    assert dict(item.meters) == OPENAI_METERS
    by_session, by_event = (
        sum(p.usd for p in price_items(items, CARDS, "gpt-realtime-2.1", AT, None))
        for items in ([item], items_of(done(), "u"))
    )
    assert by_session == by_event


def test_what_was_transcribed_is_priced_by_the_model_that_did() -> None:
    snapshots = session()["costs"][0]["rate_snapshot"]
    heard = {"vendor": "openai", "model": "gpt-4o-mini-transcribe", "effective_from": "2026-01-01T00:00:00Z"}
    extra = {"transcription_audio_tokens": 1000, "transcription_text_tokens": 200, "transcription_cost_usd": "0.004"}
    items = items_of(session(rate_snapshot=[*snapshots, heard], **extra), "u")
    assert [item.model for item in items] == ["gpt-realtime-2.1", "gpt-4o-mini-transcribe"]
    document = priced_document(price_items(items, CARDS, None, None, None))
    assert document["usages"][1]["usd"] == document["usages"][1]["ledger_usd"] == "0.004000000"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (done(usage={"input_tokens": "7"}), "input_tokens: '7'"),
        (done(usage={"input_tokens": 5, "input_token_details": {"audio_tokens": 6}}), "exceed"),
        ({"type": "response.done"}, "response is not an object"),
        ({"usage": 7}, "usage is not an object"),
        ({"usageMetadata": 7}, "usageMetadata is not an object"),
        ({"type": "session.usage.updated", "usage": {"seconds": "9"}}, "active_seconds: '9'"),
        ({"type": "session.usage.updated"}, "usage is not an object"),
        ({"promptTokenCount": 1.5}, "promptTokenCount: 1.5"),
        ({"promptTokenCount": 5, "promptTokensDetails": {}}, None),
        ({"promptTokenCount": 5, "promptTokensDetails": "x"}, "promptTokensDetails is not a list"),
        ({}, "nothing in it was billed"),
        ([], "nothing in it was billed"),
        ([done(), 7], "usage 2: not an object"),
        ({"costs": []}, "costs: a session without cost rows"),
        ({"costs": [{"model": "m"}]}, r"costs\[0\].session_id"),
        (session(audio_in_cached_tokens=501), "audio_in_cached_tokens"),
        (session(transcription_audio_tokens=1), "rate_snapshot: tells 0 models"),
        ({"meters": {"audio_in": 1}, "at": 5}, "occurred_at: 5"),
        ({"meters": {"audio_in": 1}, "at": "noon"}, "occurred_at: 'noon'"),
    ],
)
def test_bad_usage_names_the_field(raw: Any, says: str | None) -> None:
    if says is None:
        assert items_of(raw, "u")
        return
    with pytest.raises(InputError, match=says):
        items_of(raw, "u")


def test_a_row_priced_with_two_entries_cannot_be_priced_again() -> None:
    before, *rest = session()["costs"][0]["rate_snapshot"]
    later = {**before, "effective_from": "2026-11-22T12:00:00Z"}
    with pytest.raises(InputError, match="price its usages"):
        items_of(session(rate_snapshot=[before, later, *rest]), "u")


def test_more_tokens_than_money_can_count_is_no_traceback() -> None:
    with pytest.raises(InputError, match="more than money"):
        price_items(items_of({"audio_in": 10**60}, "u"), CARDS, "gpt-realtime", AT, None)


def entry(since: str, price: str) -> dict[str, Any]:
    meters = {"audio_in": {"usdPerMillion": price}}
    return {"effectiveFrom": since, "checkedAt": "2026-11-20", "source": "s", "meters": meters}


NOON = {
    "spec": {
        "provider": "openai",
        "model": "m",
        "entries": [entry("2026-01-01T00:00:00Z", "10"), entry("2026-11-22T12:00:00Z", "8")],
    }
}


@pytest.mark.parametrize(
    ("times", "usd"),
    [
        (("10:00:00", "11:59:59"), "0.02"),  # before
        (("11:59:59", "12:00:00"), "0.018"),  # across: each usage by its own time
        (("12:00:00", "13:00:00"), "0.016"),  # after
    ],
)
def test_a_price_that_changes_at_noon_prices_each_usage_by_its_own_time(times: Any, usd: str) -> None:
    rows = [{"key": t, "model": "m", "occurred_at": f"2026-11-22T{t}Z", "meters": {"audio_in": 1000}} for t in times]
    priced = price_items(items_of(rows, "u"), cards_of([NOON], "m.yaml"), None, None, None)
    assert sum(p.usd for p in priced) == Decimal(usd)


def test_an_unknown_model_says_which_are_known() -> None:
    with pytest.raises(
        CommandError, match=r"model: no RateCard for model 'gpt-9'.*gpt-realtime-2\.1.*Fix: .*--rate-card"
    ) as told:
        price_items(items_of(done(), "u"), CARDS, "gpt-9", AT, None)
    assert told.value.code == 1
