"""What is assumed of an agent that was lost: everything it may have spent and not reported, at its bound, until a late
report.
"""

from __future__ import annotations

from decimal import Decimal

from talktime_ledger.core.money import ZERO, usd


def assumed(*, attached: bool, reserved: Decimal, fixed: Decimal, w: Decimal, in_flight: Decimal) -> Decimal:
    """USD to post for a lost agent: W of what may have been in flight (unknown = yes), never more than was held beside
    the goodbye.

    Without an agent nothing can have been in flight.
    """
    if not attached:
        return ZERO
    return usd(min(max(ZERO, reserved - fixed), max(w, in_flight)))


def still_assumed(assumption: Decimal, reported: Decimal, in_flight: Decimal) -> Decimal:
    """What is left of an assumption after a late report of the same agent: nothing once it has nothing in flight."""
    return usd(max(ZERO, assumption - reported)) if in_flight > 0 else ZERO
