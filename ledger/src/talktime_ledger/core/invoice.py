"""A provider's bill, line by line, in one shape; and which model and meter a line is about. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum

from talktime_ledger.core.meters import Meter


class LineKind(StrEnum):
    """What an amount is for. Only usage is divided among sessions; the rest stays with the Project."""

    USAGE = "usage"
    TAX = "tax"
    CREDIT = "credit"
    ADJUSTMENT = "adjustment"
    ROUNDING = "rounding"


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One UTC day of one item. `billing`: the provider's own project id; quantity in tokens or seconds; USD, None in a
    usage report.
    """

    day: date
    billing: str
    item: str
    kind: LineKind
    amount: Decimal | None
    quantity: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What a line is about. Without a meter it is the whole model's."""

    model: str
    meter: Meter | None


# The same word of one model in different bills: "gpt-realtime-mini, audio input", "Gemini 3.8 Live audio input tokens".
_SNAPSHOT = re.compile(r"^[ -]?(\d{4}-\d{2}-\d{2}|preview|latest|\d{3})\b")
_OUT = frozenset({"output", "out", "response", "completion"})
_IN = frozenset({"input", "in", "prompt"})
_THOUGHTS = frozenset({"thoughts", "thinking", "reasoning"})
_CACHED = {
    Meter.TEXT_IN: Meter.TEXT_CACHED_IN,
    Meter.AUDIO_IN: Meter.AUDIO_CACHED_IN,
    Meter.IMAGE_IN: Meter.IMAGE_CACHED_IN,
}
# Video is metered as images (core/usage_gemini.py).
_INPUT = {"audio": Meter.AUDIO_IN, "image": Meter.IMAGE_IN, "video": Meter.IMAGE_IN, "text": Meter.TEXT_IN}


def item_of(text: str, models: Iterable[str]) -> Item | None:
    """The model (the longest of `models` that the text begins with or holds) and the meter its words name; None when
    the line is about none of the models.

    Examples: "gpt-realtime-mini, audio_in" and "gpt-realtime-mini-2025-10-06, cached audio input" of gpt-realtime-mini.
    """
    plain = " ".join(text.lower().split())
    found: tuple[int, str, str] | None = None
    for model in models:
        pattern = r"(?<![a-z0-9.])" + r"[ -]".join(re.escape(part) for part in model.lower().split("-"))
        match = re.search(pattern + r"(?![a-z0-9.])", plain)
        if match is None:
            continue
        rest = plain[match.end() :]
        # "gpt-realtime-mini" is not gpt-realtime: what follows with a dash must be a date or a version.
        if rest.startswith("-") and not _SNAPSHOT.match(rest):
            continue
        if found is None or len(model) > found[0]:
            found = (len(model), model, _SNAPSHOT.sub("", rest))
    return Item(found[1], meter_of(found[2])) if found else None


def meter_of(text: str) -> Meter | None:
    """The meter that the words after a model's name say; None when they say none."""
    for meter in sorted(Meter, key=lambda one: -len(one.value)):
        if re.search(rf"(?<![a-z]){meter.value}(?![a-z])", text):
            return meter
    words = set(re.findall(r"[a-z]+", text))
    if words & _THOUGHTS:
        return Meter.THOUGHTS_OUT
    if words & _OUT:
        return Meter.AUDIO_OUT if "audio" in words else Meter.TEXT_OUT
    if not words & _IN:
        return None
    meter = next((found for word, found in _INPUT.items() if word in words), Meter.TEXT_IN)
    return _CACHED[meter] if words & {"cached", "cache"} else meter
