"""What is assumed of an agent that was lost: everything it held for itself, until its own report replaces that (ADR 4).

Law 2 lets an agent spend all it holds without asking again: several responses, and the goodbye at the end. So nothing
less bounds what it may have spent since its last answered request. Worked example, USD: limit 1.00, W 0.10, C 0.01; it
holds 0.26 and is cut off. It answers twice for 0.10 and says goodbye for 0.01 before its validity ends: 0.21 spent,
0.10 by the rule "one W", and the 0.16 that rule released may be granted to others by then.
"""

from __future__ import annotations

from decimal import Decimal

from talktime_ledger.core.money import ZERO, usd


def assumed(*, attached: bool, reserved: Decimal, transport: Decimal) -> Decimal:
    """USD to post for a lost agent: what it held, without the transport reserve, which is not the agent's to spend.

    Without an agent nothing can have been spent.
    """
    return usd(max(ZERO, reserved - transport)) if attached else ZERO


def still_assumed(assumption: Decimal, reported: Decimal, *, final: bool) -> Decimal:
    """What is left of an assumption after a late report of the same agent that added `reported` USD.

    Only its close is its last word; after a late `use` it may still be talking, so the report is taken out of the
    assumption and the rest stays.
    """
    return ZERO if final else usd(max(ZERO, assumption - reported))
