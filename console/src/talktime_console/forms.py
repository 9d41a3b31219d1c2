"""The forms usage comes in: what a provider sent, what the ledger tells of a session, what the simulator counted. Pure.

One of these, a list of them, JSON lines of them, or an object holding a list as ``usages``, ``sessions`` or ``rows``:

- OpenAI: ``response.done`` and input transcription events, a bare ``response``, a bare ``usage``; a response that
  failed with ``usage: null`` cost nothing;
- Gemini Live: server messages with ``usageMetadata`` in the order they came (the last snapshot of a generation
  counts), or a bare ``usageMetadata`` (each a generation of its own); camelCase as on the wire, or snake_case;
- GPT-Live ``session.usage.updated``: seconds since the session began, so the highest report counts;
- ``{"meters": {...}}`` with optional ``key``, ``model``, ``occurred_at`` or ``at`` (the ledger's and the simulator's);
- bare meters, ``{"audio_in": 120}``;
- a session with its ``costs`` (``GET /v1/sessions/{id}``, ``talktime sessions --output json``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from talktime_ledger.core.meters import Meter, MeterError, counts
from talktime_ledger.core.usage import (
    UsageError,
    openai_response_meters,
    usage_from_openai_response_done,
    usage_from_openai_transcription,
)
from talktime_ledger.core.usage_gemini import gemini_meters
from talktime_ledger.core.usage_seconds import cumulative_seconds, reached

from .gemini_messages import GeminiTurns, camel, is_message, is_metadata
from .problems import InputError
from .session_dump import Item, items_of_session

CUMULATIVE = "session.usage.updated"
TRANSCRIPTION = "conversation.item.input_audio_transcription.completed"
LISTS = ("usages", "sessions", "rows")
# The events carry no time of their own; --at tells it.
_NO_TIME = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _Row:
    """One entry of the file and how to name it when it is at fault."""

    value: Mapping[str, Any]
    place: str


def moment(text: str) -> datetime:
    """An RFC 3339 time or a date; without a zone it is UTC."""
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{text!r} is not a time such as 2026-11-22T10:00:00Z or a date such as 2026-11-22") from error


def items_of(data: Any, source: str) -> list[Item]:
    """Everything billed in the file, each thing once: a repeated provider event replaces the one before it (law 3)."""
    source = "stdin" if source == "-" else source
    rows = list(_rows(data, source))
    found: dict[tuple[str, str], Item] = {}
    turns = GeminiTurns()
    for row in rows:
        for item in _items(row, turns):
            key = (item.identity or f"\0{len(found)}", item.name)
            if item.identity == CUMULATIVE and key in found:
                item = replace(item, meters=reached(item.meters, found[key].meters))
            found[key] = item
    if not found:
        raise InputError("nothing in it was billed", field=rows[0].place if rows else source, fix=_EVENTS)
    return list(found.values())


def unbilled(data: Any, source: str) -> list[str]:
    """Where the file has a response that failed without usage: nothing was billed for it."""
    return [row.place for row in _rows(data, "stdin" if source == "-" else source) if _failed_free(row.value)]


def _failed_free(value: Mapping[str, Any]) -> bool:
    """As the agent's meter takes it. One that was cancelled may have been billed: there, usage is missing."""
    event = value.get("type") == "response.done"
    response = value.get("response") if event else value
    if not isinstance(response, Mapping) or response.get("status") != "failed":
        return False
    return response.get("usage") is None and (event or "usage" in response)


_EVENTS = f"give response.done, {TRANSCRIPTION} or Gemini messages with usageMetadata"


def _rows(data: Any, source: str) -> Iterator[_Row]:
    if isinstance(data, Mapping):
        for name in LISTS:
            if isinstance(data.get(name), list):
                yield from _numbered(data[name], f"{source}: {name}")
                return
    if isinstance(data, list):
        yield from _numbered(data, f"{source}: usage ")
        return
    yield _row(data, source)


def _numbered(values: Sequence[Any], prefix: str) -> Iterator[_Row]:
    for number, value in enumerate(values, 1):
        yield _row(value, f"{prefix}{number}" if prefix.endswith(" ") else f"{prefix}[{number - 1}]")


def _row(value: Any, place: str) -> _Row:
    if not isinstance(value, Mapping):
        raise InputError("not an object", field=place)
    return _Row(value, place)


def _items(row: _Row, turns: GeminiTurns) -> list[Item]:
    try:
        return list(_read(row.value, row.place, turns))
    except (MeterError, UsageError) as error:
        raise InputError(str(error), field=row.place) from error
    except InputError as error:
        raise InputError(error.cause, field=f"{row.place}: {error.field or 'usage'}", fix=error.fix) from error


def _read(value: Mapping[str, Any], place: str, turns: GeminiTurns) -> Iterator[Item]:
    kind = value.get("type")
    if _failed_free(value):
        return
    if is_message(value):
        yield from turns.items(value, place)
    elif is_metadata(value):
        yield Item(place, gemini_meters(camel(value)))
    elif kind == "response.done":
        usage = usage_from_openai_response_done(value, provider_session="", provider="", model="", occurred_at=_NO_TIME)
        yield Item(usage.key.lstrip("/"), usage.meters, identity="response")
    elif kind == TRANSCRIPTION:
        usage = usage_from_openai_transcription(value, provider="", model="", occurred_at=_NO_TIME)
        yield Item(usage.key, usage.meters, identity="transcription")
    elif kind == CUMULATIVE:
        yield Item(str(value.get("session_id") or "session"), _seconds(value), identity=CUMULATIVE)
    elif "costs" in value or "session" in value:
        yield from items_of_session(value, moment)
    elif "meters" in value:
        yield _metered(value, place)
    elif "usage" in value:
        if not isinstance(value["usage"], Mapping):
            raise UsageError("usage is not an object")
        named = str(value.get("id") or "")
        yield Item(named or place, openai_response_meters(value["usage"]), identity="response" if named else "")
    elif any(name in value for name in ("input_tokens", "output_tokens", "input_token_details")):
        yield Item(place, openai_response_meters(value))
    elif value and not isinstance(kind, str):
        yield Item(place, counts(value))
    # anything else with a type is a protocol event without a bill


def _seconds(event: Mapping[str, Any]) -> dict[Meter, int]:
    usage = event.get("usage")
    if not isinstance(usage, Mapping):
        raise UsageError("usage is not an object")
    active = {Meter.ACTIVE_SECONDS.value: usage["seconds"]} if "seconds" in usage else {}
    return {meter: count for meter, count in cumulative_seconds({**usage, **active}).items() if count}


def _metered(row: Mapping[str, Any], place: str) -> Item:
    given = row["meters"]
    if not isinstance(given, Mapping):
        raise UsageError("meters is not an object")
    key = row.get("key") or row.get("response_id") or row.get("item_id")
    at, model = row.get("occurred_at") or row.get("at"), row.get("model")
    return Item(
        str(key or place),
        counts(given),
        model=model if isinstance(model, str) else None,
        at=_own_time(at),
        identity=str(row.get("provider_session") or "usage") if key else "",
    )


def _own_time(at: Any) -> datetime | None:
    if at is None:
        return None
    if not isinstance(at, str):
        raise InputError(f"{at!r} is not a time", field="occurred_at")
    try:
        return moment(at)
    except InputError as error:
        raise InputError(error.cause, field="occurred_at") from error
