"""May a response start? Decided by the agent alone, on what it already holds (law 2). No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from talktime_ledger.core.money import ZERO

# A response may be generated slower than it is spoken, and its `response.done` may come late.
RESPONSE_SLACK_SEC = 15.0


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the session holds. USD; `unsettled` = cost known locally that the ledger has not answered yet; `in_flight` =
    sum of W of open responses.

    `reserved` and `goodbye` are those of the last Grant. `validity_left_sec` counts from the sending of that request,
    monotonic. `aside` = outage reserve, 0 while the ledger cannot be reached: then it is there to be spent.
    """

    reserved: Decimal
    goodbye: Decimal
    unsettled: Decimal
    in_flight: Decimal
    validity_left_sec: float
    fenced: bool = False
    closing: bool = False
    aside: Decimal = ZERO

    @property
    def free(self) -> Decimal:
        """USD a new response may cost at most."""
        return self.reserved - self.goodbye - self.aside - self.unsettled - self.in_flight


@dataclass(frozen=True, slots=True)
class Decision:
    """allowed, or the reason: `fenced`, `closing`, `money`, `validity`."""

    allowed: bool
    reason: str = ""


def may_respond(held: Holdings, worst_case: Decimal, longest_response_sec: float) -> Decision:
    """Whether a response of at most `worst_case` USD and `longest_response_sec` may start now."""
    if held.fenced:
        return Decision(False, "fenced")
    if held.closing:
        return Decision(False, "closing")
    if held.free < worst_case:
        return Decision(False, "money")
    if held.validity_left_sec <= longest_response_sec + RESPONSE_SLACK_SEC:
        return Decision(False, "validity")
    return Decision(True)


def may_render_goodbye(held: Holdings, worst_case: Decimal) -> Decision:
    """Whether the closing clip may be rendered now: it may use C, so only what others took counts against it."""
    if held.fenced:
        return Decision(False, "fenced")
    if held.reserved - held.unsettled - held.in_flight < worst_case:
        return Decision(False, "money")
    return Decision(True)


def renew_soon(held: Holdings, worst_case: Decimal) -> bool:
    """Ask for more before it is short: less than 1.5 W free (budgets: threshold of RFC 8506)."""
    return held.free < worst_case * Decimal("1.5")
