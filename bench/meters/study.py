"""What is held: one Project per lane, two vendors, each also under a brief output cap; real cards of examples/."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from talktime_ledger import wire
from talktime_ledger.cards import rate_card
from talktime_ledger.core.rates import RateBook
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.resources.rate_card import RateCardSpec

from bench.meters.plans import Vendor
from bench.meters.truth import Rates

CARDS = Path(__file__).resolve().parents[2] / "examples" / "rate-cards"
NAMESPACE = "bench"
MODEL: dict[Vendor, str] = {"openai": "gpt-realtime-2.1-mini", "google": "gemini-3.8-live"}
HEARD = "gpt-4o-mini-transcribe"
VENDOR_OF = {MODEL["openai"]: "openai", HEARD: "openai", MODEL["google"]: "google"}
API: dict[Vendor, str] = {"openai": "OpenAIRealtime", "google": "GeminiLive"}
SECONDS, BRIEF_SECONDS = 20, 2
CONTEXT_TOKENS = 4000
INSTRUCTIONS = (
    "You hold a calm research interview about everyday work in small libraries. Ask one short question at a time, "
    "listen, and follow up on what the person said. Never judge, never give advice, and stay with the topic."
)


def cards() -> dict[str, RateCardSpec]:
    """By name."""
    found = {}
    for model in VENDOR_OF:
        told = yaml.safe_load((CARDS / f"{model}.yaml").read_text(encoding="utf-8"))
        found[model] = RateCardSpec.model_validate(told["spec"])
    return found


def rates() -> Rates:
    """Prices of today, by model."""
    book = RateBook(tuple(rate_card(name, spec) for name, spec in cards().items()))
    return {model: book.snapshot(vendor, model, datetime.now(UTC)) for model, vendor in VENDOR_OF.items()}


def price_file(of: Rates) -> dict[str, Any]:
    """The same prices as the simulator is told them for its invoice."""
    return {
        "models": {
            model: {str(meter): str(usd) for meter, usd in snapshot.prices.items()} for model, snapshot in of.items()
        }
    }


def provider_name(vendor: Vendor, *, brief: bool) -> str:
    """The Project's name of it."""
    return f"{vendor}-brief" if brief else vendor


def push(endpoints: dict[Vendor, str]) -> wire.ProjectPush:
    """The Project as the operator pushes it; ample limits, for what is measured is the meter."""
    providers = [
        {
            "name": provider_name(vendor, brief=brief),
            "api": API[vendor],
            "model": MODEL[vendor],
            "secretRef": {"name": "key"},
            "endpoint": endpoint,
            "caps": {"contextTokens": CONTEXT_TOKENS, "responseSeconds": BRIEF_SECONDS if brief else SECONDS},
        }
        for vendor, endpoint in endpoints.items()
        for brief in (False, True)
    ]
    spec = {
        "budget": {"amount": "1000", "session": {"limit": str(Decimal(5))}},
        "providers": providers,
        "agent": {"instructions": INSTRUCTIONS, "greeting": "Greet the participant and ask the first question."},
        "media": {"poolRef": {"name": "eu"}},
    }
    return wire.ProjectPush(uid="bench", generation=1, instructions=INSTRUCTIONS, spec=ProjectSpec.model_validate(spec))
