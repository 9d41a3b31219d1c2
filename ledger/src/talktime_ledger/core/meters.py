"""The meters: disjoint, so that a token is in exactly one of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Meter(StrEnum):
    """What is counted. Tokens unless the name says seconds or bytes; `*_in` are the uncached parts."""

    TEXT_IN = "text_in"
    TEXT_CACHED_IN = "text_cached_in"
    AUDIO_IN = "audio_in"
    AUDIO_CACHED_IN = "audio_cached_in"
    IMAGE_IN = "image_in"
    IMAGE_CACHED_IN = "image_cached_in"
    TEXT_OUT = "text_out"
    AUDIO_OUT = "audio_out"
    THOUGHTS_OUT = "thoughts_out"
    TOOL_PROMPT_IN = "tool_prompt_in"
    UNASSIGNED_IN = "unassigned_in"
    ACTIVE_SECONDS = "active_seconds"
    STANDBY_SECONDS = "standby_seconds"
    PARTICIPANT_SECONDS = "participant_seconds"
    VIDEO_TRACK_SECONDS = "video_track_seconds"
    EGRESS_BYTES = "egress_bytes"


INPUTS = frozenset(
    {
        Meter.TEXT_IN,
        Meter.TEXT_CACHED_IN,
        Meter.AUDIO_IN,
        Meter.AUDIO_CACHED_IN,
        Meter.IMAGE_IN,
        Meter.IMAGE_CACHED_IN,
        Meter.TOOL_PROMPT_IN,
        Meter.UNASSIGNED_IN,
    }
)
UNCACHED_INPUTS = INPUTS - {Meter.TEXT_CACHED_IN, Meter.AUDIO_CACHED_IN, Meter.IMAGE_CACHED_IN}
OUTPUTS = frozenset({Meter.TEXT_OUT, Meter.AUDIO_OUT, Meter.THOUGHTS_OUT})
TOKENS = INPUTS | OUTPUTS

# Token clocks of OpenAI Realtime (guide "realtime costs"): user audio 1 token / 100 ms, assistant audio 1 token / 50
# ms.
OPENAI_AUDIO_IN_PER_SECOND = 10
OPENAI_AUDIO_OUT_PER_SECOND = 20

Counts = Mapping[Meter, int]


class MeterError(ValueError):
    """A meter is unknown or its count is not a whole number >= 0."""


def counts(raw: Mapping[str, int]) -> dict[Meter, int]:
    """Typed counts from names; zeros are left out. MeterError names the bad meter."""
    result: dict[Meter, int] = {}
    for name, value in raw.items():
        try:
            meter = Meter(name)
        except ValueError as error:
            raise MeterError(f"unknown meter {name!r}") from error
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise MeterError(f"meter {name}: {value!r} is not a whole number >= 0")
        if value:
            result[meter] = value
    return result


def add(left: Counts, right: Counts) -> dict[Meter, int]:
    """Sum meter by meter."""
    return {meter: left.get(meter, 0) + right.get(meter, 0) for meter in Meter if meter in left or meter in right}
