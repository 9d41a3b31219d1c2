"""BudgetFeasible: can a session under these caps be held at all within its limit? limit >= C + 4 W(cap)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from talktime_ledger.core.meters import OUTPUTS, UNCACHED_INPUTS
from talktime_ledger.core.money import per_million, shown
from talktime_ledger.core.worst_case import Caps, Legs, output_cap
from talktime_ledger.core.worst_cases import worst_cases

# A session that cannot pay for four worst cases is a greeting and a goodbye.
RESPONSES = 4


@dataclass(frozen=True, slots=True)
class Feasibility:
    """ok, or a reason and a sentence with the numbers and the cap to lower."""

    ok: bool
    w: Decimal
    goodbye: Decimal
    needed: Decimal
    reason: str = ""
    message: str = ""


def judge_feasible(
    legs: Legs,
    caps: Caps,
    *,
    session_limit: Decimal,
    instruction_tokens: int,
    closing: str,
    provider: str,
    hold: int = 1,
) -> Feasibility:
    """Feasibility of one provider of a Project. hold: worst cases held at once (2 where the provider answers by
    itself).

    PriceUnknown when the card lacks a price.
    """
    rules = worst_cases(legs.model.vendor)
    w = rules.capped(legs, caps, instruction_tokens=instruction_tokens)
    goodbye = rules.goodbye(legs.model, closing)
    needed = goodbye + RESPONSES * max(1, hold) * w
    if session_limit >= needed:
        return Feasibility(True, w, goodbye, needed)
    advice = _advice(legs, caps, (session_limit - goodbye) / (RESPONSES * max(1, hold)), w, needed)
    message = (
        f"budget.session.limit {shown(session_limit)} is below {shown(needed)} USD = goodbye {shown(goodbye)} + "
        f"{RESPONSES * max(1, hold)} x worst response {shown(w)} of provider {provider}: {advice}"
    )
    return Feasibility(False, w, goodbye, needed, "SessionLimitTooLow", message)


def _advice(legs: Legs, caps: Caps, affordable: Decimal, w: Decimal, needed: Decimal) -> str:
    """The cap whose part of W is larger, and a value that fits; else the limit."""
    context_part = per_million(caps.context_tokens, legs.model.dearest(UNCACHED_INPUTS))
    answer_part = per_million(output_cap(caps.response_seconds), legs.model.dearest(OUTPUTS))
    excess = w - affordable
    if context_part >= answer_part and context_part > 0:
        fits = (caps.context_tokens * (context_part - excess) / context_part).to_integral_value(rounding=ROUND_FLOOR)
        if fits >= 500:
            return f"lower caps.contextTokens from {caps.context_tokens} to {fits} or less, or raise the limit"
    elif answer_part > 0:
        fits = (caps.response_seconds * (answer_part - excess) / answer_part).to_integral_value(rounding=ROUND_FLOOR)
        if fits >= 2:
            return f"lower caps.responseSeconds from {caps.response_seconds} to {fits} or less, or raise the limit"
    enough = needed.quantize(Decimal("0.01"), rounding=ROUND_CEILING)
    return (
        f"lower caps.contextTokens ({caps.context_tokens}) and caps.responseSeconds ({caps.response_seconds}), "
        f"or raise the limit to {enough} or more"
    )
