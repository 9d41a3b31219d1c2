"""The study all enforcers run: a Project of 1,500 USD, nearly spent, 3 USD a session, gpt-realtime, two caps.

Worked example: W(cap) = 0.49 USD, C = 0.02 USD, so admission needs half the session limit, 1.50 USD. USD throughout.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from talktime_agent.gate import Bounds
from talktime_ledger import wire
from talktime_ledger.cards import rate_card
from talktime_ledger.core.pricing import price_or_bound
from talktime_ledger.core.rates import RateBook
from talktime_ledger.core.worst_case import Caps, Legs, instruction_tokens_bound
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.resources.rate_card import RateCardSpec

BUDGET = Decimal(1500)
LEFT_PER_SESSION = Decimal("0.3")
SESSION_LIMIT = Decimal(3)
ADMIT_FLOOR = SESSION_LIMIT / 2
SOFT_PERCENT = 80

MODEL, HEARD = "gpt-realtime", "gpt-4o-mini-transcribe"
PRICES = {
    MODEL: {
        "text_in": "4",
        "text_cached_in": "0.4",
        "audio_in": "32",
        "audio_cached_in": "0.4",
        "text_out": "16",
        "audio_out": "64",
    },
    HEARD: {"text_in": "1.25", "audio_in": "3", "text_out": "5"},
}
CAPS = Caps(context_tokens=12_000, response_seconds=60)
INSTRUCTIONS = "Ask about the week, listen, ask again. " * 50
NAMESPACE, PROVIDER = "bench", "main"


def spent(sessions: int) -> Decimal:
    """USD gone before our time: for 500 sessions nine tenths of the budget, so that it runs dry for any number."""
    return BUDGET - sessions * LEFT_PER_SESSION


def cards() -> dict[str, RateCardSpec]:
    """The two rate cards by name."""
    found = {}
    for model, prices in PRICES.items():
        entry: dict[str, Any] = {
            "effectiveFrom": "2025-01-01T00:00:00Z",
            "meters": {name: {"usdPerMillion": price} for name, price in prices.items()},
            "source": "bench",
            "checkedAt": "2026-11-01",
        }
        found[model] = RateCardSpec.model_validate({"provider": "openai", "model": model, "entries": [entry]})
    return found


def push() -> wire.ProjectPush:
    """The Project as the operator pushes it."""
    spec = {
        "budget": {
            "amount": str(BUDGET),
            "softPercent": SOFT_PERCENT,
            "session": {"limit": str(SESSION_LIMIT), "admitFloor": str(ADMIT_FLOOR)},
        },
        "providers": [
            {
                "name": PROVIDER,
                "api": "OpenAIRealtime",
                "model": MODEL,
                "secretRef": {"name": "key"},
                "transcriptionModel": HEARD,
                "caps": {"contextTokens": CAPS.context_tokens, "responseSeconds": CAPS.response_seconds},
            }
        ],
        "agent": {"instructions": INSTRUCTIONS},
        "media": {"poolRef": {"name": "eu"}},
    }
    return wire.ProjectPush(uid="bench", generation=1, instructions=INSTRUCTIONS, spec=ProjectSpec.model_validate(spec))


def legs() -> Legs:
    """What bills."""
    book = RateBook(tuple(rate_card(name, spec) for name, spec in cards().items()))
    at = rate_card(MODEL, cards()[MODEL]).entries[0].effective_from
    return Legs(book.snapshot("openai", MODEL, at), book.snapshot("openai", HEARD, at))


def bounds() -> Bounds:
    """The agent's worst cases, as it makes them of what the ledger tells at attach."""
    agent = push().spec.agent
    spoken = (agent.greeting or "", agent.wrap_up, agent.closing)
    return Bounds(legs(), CAPS, instruction_tokens_bound(INSTRUCTIONS, spoken), agent.closing)


def cost(meters: dict[str, int], model: str, of: Bounds) -> Decimal:
    """USD of one usage; ValueError when a meter has no price."""
    usage = wire.Usage.model_validate(
        {
            "key": "k",
            "kind": "response",
            "provider": PROVIDER,
            "model": model,
            "meters": meters,
            "occurred_at": "2026-01-01T00:00:00Z",
        }
    )
    priced = price_or_bound(usage.meters, of.rates_of(model))
    if priced.missing:
        raise ValueError(f"no price for {priced.missing}")
    return priced.usd
