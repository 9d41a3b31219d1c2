"""Gemini Live usage: one `usageMetadata` object -> disjoint meters, under the key (connection, generation) of law 3.

Gemini tells usage as growing snapshots of one generation, the last one valid; each has the key of its generation, so
that a later one replaces it. What overlaps on the wire is taken apart: the cached part is in the prompt, thoughts and
the results of server-side tools are beside it, and some prompt tokens have no modality at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.usage import Usage, UsageError, UsageKind, UsageMissing, UsageStatus

# Modalities as the API names them; anything else is a token of no modality, priced at the dearer rate.
MODALITIES = {"TEXT": "text", "DOCUMENT": "text", "AUDIO": "audio", "IMAGE": "image", "VIDEO": "image"}
KINDS = ("text", "audio", "image")


def usage_from_gemini_metadata(
    metadata: Mapping[str, Any],
    *,
    connection: str,
    generation: int,
    provider: str,
    model: str,
    occurred_at: datetime,
    status: UsageStatus = UsageStatus.COMPLETED,
    kind: UsageKind = UsageKind.RESPONSE,
) -> Usage:
    """The usage of a raw `usageMetadata` (camelCase, as on the wire). `generation` counts from 1 in its connection."""
    meters = gemini_meters(metadata)
    return Usage(f"{connection}/{generation}", kind, provider, model, meters, occurred_at, status)


def gemini_meters(metadata: Mapping[str, Any]) -> dict[Meter, int]:
    """Disjoint meters; UsageError when the parts exceed the whole, UsageMissing when there is no count in it.

    `promptTokenCount` minus its modality details is `unassigned_in`. Output tokens that the details do not explain are
    taken as audio, the dearer kind.
    """
    if not any(name.endswith("TokenCount") for name in metadata):
        raise UsageMissing("usageMetadata carries no counts")
    inputs, strange = _by_kind(metadata, "promptTokensDetails")
    prompt = _count(metadata, "promptTokenCount", default=sum(inputs.values()) + strange)
    unassigned = prompt - sum(inputs.values())
    if unassigned < strange:
        raise UsageError(f"prompt details exceed promptTokenCount {prompt} by {strange - unassigned}")
    cached, unassigned = _cached(metadata, inputs, unassigned)
    # The Live API says response, the same object of other Gemini calls says candidates.
    name = "response" if "responseTokenCount" in metadata or "responseTokensDetails" in metadata else "candidates"
    outputs, strange = _by_kind(metadata, f"{name}TokensDetails")
    answer = _count(metadata, f"{name}TokenCount", default=sum(outputs.values()) + strange)
    if answer < outputs["text"]:
        raise UsageError(f"{name} details exceed {name}TokenCount {answer}")
    found = {
        Meter.TEXT_IN: inputs["text"] - cached["text"],
        Meter.TEXT_CACHED_IN: cached["text"],
        Meter.AUDIO_IN: inputs["audio"] - cached["audio"],
        Meter.AUDIO_CACHED_IN: cached["audio"],
        Meter.IMAGE_IN: inputs["image"] - cached["image"],
        Meter.IMAGE_CACHED_IN: cached["image"],
        Meter.UNASSIGNED_IN: unassigned,
        Meter.TOOL_PROMPT_IN: _count(metadata, "toolUsePromptTokenCount"),
        Meter.TEXT_OUT: outputs["text"],
        Meter.AUDIO_OUT: answer - outputs["text"],
        Meter.THOUGHTS_OUT: _count(metadata, "thoughtsTokenCount"),
    }
    return {meter: count for meter, count in found.items() if count}


def _by_kind(metadata: Mapping[str, Any], name: str) -> tuple[dict[str, int], int]:
    """(tokens by kind, tokens of a modality nobody knows)."""
    rows = metadata.get(name) or ()
    if not isinstance(rows, list | tuple):
        raise UsageError(f"{name} is not a list")
    found, strange = dict.fromkeys(KINDS, 0), 0
    for row in rows:
        if not isinstance(row, Mapping):
            raise UsageError(f"{name} holds something that is not an object")
        kind = MODALITIES.get(str(row.get("modality", "")).upper())
        if kind is None:
            strange += _count(row, "tokenCount")
        else:
            found[kind] += _count(row, "tokenCount")
    return found, strange


def _cached(metadata: Mapping[str, Any], inputs: Mapping[str, int], unassigned: int) -> tuple[dict[str, int], int]:
    """(cached tokens by kind, what is left unassigned). Without a split they are text first, never too cheap."""
    split, _ = _by_kind(metadata, "cacheTokensDetails")
    total = _count(metadata, "cachedContentTokenCount", default=sum(split.values()))
    if sum(split.values()) == total:
        cached = split
    else:
        text = min(total, inputs["text"])
        audio = min(total - text, inputs["audio"])
        cached = {"text": text, "audio": audio, "image": min(total - text - audio, inputs["image"])}
        unassigned_cached = total - sum(cached.values())
        if unassigned_cached > unassigned:
            raise UsageError(f"cachedContentTokenCount {total} exceeds the prompt")
    for kind, count in cached.items():
        if count > inputs[kind]:
            raise UsageError(f"cached {kind} tokens {count} exceed {kind} tokens {inputs[kind]}")
    return cached, unassigned


def _count(source: Mapping[str, Any], name: str, default: int = 0) -> int:
    value = source.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{name}: {value!r} is not a whole number >= 0")
    return value
