"""BudgetFeasible: can a session under these caps be held at all within its limits?

Session limit >= C + 4 W(cap), participant limit >= C + W(cap); with the transport reserve where the budget includes
transport, and 2 W for each W where the provider answers by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from talktime_ledger.core.meters import OUTPUTS, UNCACHED_INPUTS
from talktime_ledger.core.money import ZERO, per_million, shown
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
    transport: Decimal = ZERO,
    participant_limit: Decimal | None = None,
) -> Feasibility:
    """Feasibility of one provider of a Project. hold: worst cases held at once (2 where the provider answers by
    itself); transport: USD held ahead for the participants' minutes.

    PriceUnknown when the card lacks a price.
    """
    rules = worst_cases(legs.model.vendor)
    w = rules.capped(legs, caps, instruction_tokens=instruction_tokens)
    goodbye = rules.goodbye(legs.model, closing)
    fixed, held = goodbye + transport, max(1, hold)
    needed, least = fixed + RESPONSES * held * w, fixed + held * w
    reserve = f"transport reserve {shown(transport)} + " if transport else ""

    def too_low(field: str, limit: Decimal, below: Decimal, responses: int) -> str:
        advice = _advice(legs, caps, (limit - fixed) / responses, w, below)
        if transport:
            advice += ", or lower media.maxParticipants"
        return (
            f"{field} {shown(limit)} is below {shown(below)} USD = goodbye {shown(goodbye)} + {reserve}"
            f"{responses} x worst response {shown(w)} of provider {provider}: {advice}"
        )

    if session_limit < needed:
        message = too_low("budget.session.limit", session_limit, needed, RESPONSES * held)
        return Feasibility(False, w, goodbye, needed, "SessionLimitTooLow", message)
    if participant_limit is not None and participant_limit < least:
        message = too_low("budget.participant.limit", participant_limit, least, held)
        return Feasibility(False, w, goodbye, least, "ParticipantLimitTooLow", message)
    return Feasibility(True, w, goodbye, needed)


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
