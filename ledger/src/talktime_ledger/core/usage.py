"""Usage: one billed thing, from the provider's raw event, under a key that survives repeats (law 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from talktime_ledger.core.meters import Meter


class UsageError(ValueError):
    """The provider's event is malformed; the text names the field. What it billed is to be posted at its bound."""


class UsageMissing(UsageError):  # noqa: N818 - a kind of UsageError
    """A well-formed event without usage (failed or cancelled before anything was billed, or not told)."""


class UsageKind(StrEnum):
    """What was billed."""

    RESPONSE = "response"
    TRANSCRIPTION = "transcription"
    CLOSING_RENDER = "closing_render"


class UsageStatus(StrEnum):
    """How the provider ended it. All of them are billed for what they used."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Usage:
    """One billed thing: disjoint meters (tokens), the Project's provider name, the exact model, UTC time."""

    key: str
    kind: UsageKind
    provider: str
    model: str
    meters: Mapping[Meter, int]
    occurred_at: datetime
    status: UsageStatus = UsageStatus.COMPLETED
    unmetered: bool = False


def usage_from_openai_response_done(
    event: Mapping[str, Any],
    *,
    provider_session: str,
    provider: str,
    model: str,
    occurred_at: datetime,
    kind: UsageKind = UsageKind.RESPONSE,
) -> Usage:
    """The usage of a raw `response.done`.

    OpenAI's numbers overlap (cached is a subset of input, both split by modality); here every token is in one meter.
    What the details
    do not explain is `unassigned_in`, or `thoughts_out` on the output side. Key: `<provider session>/<response id>`.
    """
    response = _mapping(event, "response")
    response_id = response.get("id")
    if not isinstance(response_id, str) or not response_id:
        raise UsageError("response.id is missing")
    if response.get("usage") is None:
        raise UsageMissing(f"response {response_id} carries no usage")
    try:
        status = UsageStatus(response.get("status") or "completed")
    except ValueError as error:
        raise UsageError(f"response.status {response.get('status')!r} is not known") from error
    meters = openai_response_meters(_mapping(response, "usage"))
    return Usage(f"{provider_session}/{response_id}", kind, provider, model, meters, occurred_at, status)


def openai_response_meters(usage: Mapping[str, Any]) -> dict[Meter, int]:
    """Disjoint meters of an OpenAI `usage` object; UsageError when the parts exceed the whole."""
    details = _mapping(usage, "input_token_details", optional=True)
    inputs = {name: _count(details, f"{name}_tokens") for name in ("text", "audio", "image")}
    total_in = _count(usage, "input_tokens", default=sum(inputs.values()))
    cached = _cached_split(details, inputs)
    out_details = _mapping(usage, "output_token_details", optional=True)
    text_out, audio_out = _count(out_details, "text_tokens"), _count(out_details, "audio_tokens")
    total_out = _count(usage, "output_tokens", default=text_out + audio_out)
    gap_in, gap_out = total_in - sum(inputs.values()), total_out - text_out - audio_out
    if gap_in < 0 or gap_out < 0:
        raise UsageError(f"token details exceed the totals: input gap {gap_in}, output gap {gap_out}")
    if not out_details:
        # Without a split the dearest reading is that all of it was speech.
        audio_out, gap_out = total_out, 0
    found = {
        Meter.TEXT_IN: inputs["text"] - cached["text"],
        Meter.TEXT_CACHED_IN: cached["text"],
        Meter.AUDIO_IN: inputs["audio"] - cached["audio"],
        Meter.AUDIO_CACHED_IN: cached["audio"],
        Meter.IMAGE_IN: inputs["image"] - cached["image"],
        Meter.IMAGE_CACHED_IN: cached["image"],
        Meter.UNASSIGNED_IN: gap_in,
        Meter.TEXT_OUT: text_out,
        Meter.AUDIO_OUT: audio_out,
        Meter.THOUGHTS_OUT: gap_out,
    }
    return {meter: count for meter, count in found.items() if count}


def _cached_split(details: Mapping[str, Any], inputs: Mapping[str, int]) -> dict[str, int]:
    """Cached tokens by modality. Without the split they are text first: the smaller discount, never too cheap."""
    split = _mapping(details, "cached_tokens_details", optional=True)
    total = _count(details, "cached_tokens")
    if split:
        cached = {name: _count(split, f"{name}_tokens") for name in ("text", "audio", "image")}
    else:
        text = min(total, inputs["text"])
        audio = min(total - text, inputs["audio"])
        cached = {"text": text, "audio": audio, "image": total - text - audio}
    for name, count in cached.items():
        if count > inputs[name]:
            raise UsageError(f"cached {name} tokens {count} exceed {name} tokens {inputs[name]}")
    return cached


def usage_from_openai_transcription(
    event: Mapping[str, Any], *, provider: str, model: str, occurred_at: datetime
) -> Usage:
    """The usage of `conversation.item.input_audio_transcription.completed`, billed to the transcription model.

    `usage.type` is `tokens`, or `duration` (whisper) whose seconds are rounded up. Key: `<item id>/<content index>`.
    """
    item = event.get("item_id")
    if not isinstance(item, str) or not item:
        raise UsageError("item_id is missing")
    if event.get("usage") is None:
        raise UsageMissing(f"transcription of item {item} carries no usage")
    usage = _mapping(event, "usage")
    meters: dict[Meter, int]
    if usage.get("type") == "duration":
        seconds = usage.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 86_400:
            raise UsageError(f"usage.seconds {seconds!r} is not a duration")
        meters = {Meter.ACTIVE_SECONDS: math.ceil(seconds)}
    else:
        details = _mapping(usage, "input_token_details", optional=True)
        audio, text = _count(details, "audio_tokens"), _count(details, "text_tokens")
        gap = _count(usage, "input_tokens", default=audio + text) - audio - text
        if gap < 0:
            raise UsageError(f"token details exceed the total: input gap {gap}")
        meters = {
            Meter.AUDIO_IN: audio,
            Meter.TEXT_IN: text,
            Meter.UNASSIGNED_IN: gap,
            Meter.TEXT_OUT: _count(usage, "output_tokens"),
        }
    index = _count(event, "content_index")
    found = {meter: count for meter, count in meters.items() if count}
    return Usage(f"{item}/{index}", UsageKind.TRANSCRIPTION, provider, model, found, occurred_at)


def _mapping(source: Mapping[str, Any], name: str, *, optional: bool = False) -> Mapping[str, Any]:
    value = source.get(name)
    if value is None and optional:
        return {}
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} is not an object")
    return value


def _count(source: Mapping[str, Any], name: str, default: int = 0) -> int:
    value = source.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{name}: {value!r} is not a whole number >= 0")
    return value
