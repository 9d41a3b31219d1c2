"""When a status is written: states at once, amounts at most every so often, nothing when nothing changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

AMOUNTS: tuple[tuple[str, str], ...] = (
    ("budget", "posted"),
    ("budget", "reserved"),
    ("budget", "available"),
    ("budget", "forecast"),
    ("budget", "usedPercent"),
    ("sessions", "open"),
    ("sessions", "attached"),
    ("sessions", "waiting"),
    ("sessions", "completed"),
    ("agents", "busy"),
)
MICRO = Decimal("0.000001")


def usd(value: Decimal) -> str:
    """USD to the micro-dollar, half-even, without needless zeros beyond two places."""
    text = f"{value.quantize(MICRO, rounding=ROUND_HALF_EVEN):f}"
    whole, _, places = text.partition(".")
    return f"{whole}.{places.rstrip('0').ljust(2, '0')}"


def percent(part: Decimal, whole: Decimal) -> str:
    if whole == 0:
        return "-"
    return f"{(part * 100 / whole).quantize(Decimal('0.1'), rounding=ROUND_HALF_EVEN)}%"


def _states(status: Mapping[str, Any]) -> Any:
    out = copy.deepcopy(dict(status))
    for group, field in AMOUNTS:
        if isinstance(out.get(group), dict):
            out[group].pop(field, None)
    for node in out.get("nodes") or ():
        node.pop("rooms", None)
    if isinstance(out.get("sessions"), int):
        del out["sessions"]
    return out


def write_after(
    before: Mapping[str, Any], wanted: Mapping[str, Any], since_last: float, interval: float
) -> float | None:
    """Seconds until the status should be written: 0 = now, None = not at all.

    `since_last`: seconds since this object's status was last written.
    """
    if before == wanted:
        return None
    if _states(before) != _states(wanted):
        return 0.0
    return max(0.0, interval - since_last)
