"""Budget periods: `total`, or the UTC month on the database's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from talktime_ledger.resources.project import Period

# A response in flight at the turn of the month belongs to the old one; after this long nothing from before can be in
# flight.
TURN_GRACE = timedelta(seconds=300)


def period_of(period: Period, now: datetime) -> str:
    """The account's period: `total` or `2026-11`."""
    return "total" if period is Period.TOTAL else now.astimezone(UTC).strftime("%Y-%m")


def turns_over(held: str, present: str, nothing_in_flight: bool, now: datetime) -> bool:
    """Whether a session moves to the present period's account at this renewal."""
    if held == present:
        return False
    start = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return nothing_in_flight or present == "total" or now - start > TURN_GRACE
