"""Per-minute models (GPT-Live style): the provider tells cumulative seconds per connection; what is new is the usage.

A cumulative value is never posted as it is: its difference to the one before is, so that each second is priced by the
rate of its own time, and a repeated or reordered report adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.usage import Usage, UsageError, UsageKind

Seconds = Mapping[Meter, int]
METERS = (Meter.ACTIVE_SECONDS, Meter.STANDBY_SECONDS)


def cumulative_seconds(usage: Mapping[str, Any]) -> dict[Meter, int]:
    """`{active_seconds, standby_seconds}` of one report, a started second counting as one; UsageError names the
    field.
    """
    found: dict[Meter, int] = {}
    for meter in METERS:
        value = usage.get(meter.value, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 31_536_000:
            raise UsageError(f"{meter.value}: {value!r} is not a number of seconds")
        found[meter] = math.ceil(value)
    return found


def usage_from_cumulative(
    now: Seconds, before: Seconds, *, connection: str, provider: str, model: str, occurred_at: datetime
) -> Usage | None:
    """The seconds of `connection` that are in `now` and were not in `before`; None when there are none.

    Key: `<connection>/<active>+<standby>`, the cumulative values it leads to: a repeated report has the same key and,
    against the same `before`, the same body.
    """
    new = {meter: now.get(meter, 0) - before.get(meter, 0) for meter in METERS}
    meters = {meter: seconds for meter, seconds in new.items() if seconds > 0}
    if not meters:
        return None
    reached = "+".join(str(max(now.get(meter, 0), before.get(meter, 0))) for meter in METERS)
    return Usage(f"{connection}/{reached}", UsageKind.RESPONSE, provider, model, meters, occurred_at)


def reached(now: Seconds, before: Seconds) -> dict[Meter, int]:
    """The cumulative values after a report: an older report that comes late takes nothing back."""
    return {meter: max(now.get(meter, 0), before.get(meter, 0)) for meter in METERS}
