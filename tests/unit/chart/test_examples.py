"""The examples are what the README tells people to apply: they must be valid, priced, feasible and sourced."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from talktime_ledger.cards import rate_card
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.rates import RateBook
from talktime_ledger.core.worst_case import Caps, Legs, capped_response_bound, goodbye_bound, text_tokens_bound
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.resources.rate_card import RateCardSpec

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
CURRENT = {
    "gpt-realtime",
    "gpt-realtime-1.5",
    "gpt-realtime-2",
    "gpt-realtime-2.1",
    "gpt-realtime-mini",
    "gpt-realtime-2.1-mini",
    "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe",
    "gemini-3.8-live",
    "gemini-3.1-flash-live-preview",
    "gemini-live-2.5-flash",
}


def documents() -> list[dict[str, Any]]:
    files = sorted(EXAMPLES.rglob("*.yaml"))
    return [doc for file in files for doc in yaml.safe_load_all(file.read_text()) if doc]


def of_kind(kind: str) -> list[Any]:
    found = [doc for doc in documents() if doc["kind"] == kind]
    return [pytest.param(doc, id=doc["metadata"]["name"]) for doc in found]


def book() -> RateBook:
    cards = [doc for doc in documents() if doc["kind"] == "RateCard"]
    return RateBook(
        tuple(rate_card(doc["metadata"]["name"], RateCardSpec.model_validate(doc["spec"])) for doc in cards)
    )


@pytest.mark.parametrize("card", of_kind("RateCard"))
def test_a_rate_card_is_valid_sourced_and_resolves(card: dict[str, Any]) -> None:
    spec = RateCardSpec.model_validate(card["spec"])
    for entry in spec.entries:
        assert entry.source
        assert entry.checked_at <= NOW.date()
    assert book().snapshot(spec.provider, spec.model, NOW).prices


def test_every_current_model_has_audio_and_text_prices() -> None:
    cards = [RateCardSpec.model_validate(doc["spec"]) for doc in documents() if doc["kind"] == "RateCard"]
    current = {card.model: card for card in cards if not card.entries[-1].historic}
    assert set(current) >= CURRENT
    for model in CURRENT:
        snapshot = book().snapshot(current[model].provider, model, NOW)
        spoken = {Meter.TEXT_OUT} if "transcribe" in model else {Meter.TEXT_OUT, Meter.AUDIO_OUT}
        assert {Meter.TEXT_IN, Meter.AUDIO_IN} | spoken <= set(snapshot.prices), model


def test_historic_prices_are_marked() -> None:
    for doc in documents():
        if doc["kind"] == "RateCard" and doc["metadata"]["name"].startswith("historic-"):
            assert {entry["historic"] for entry in doc["spec"]["entries"]} == {"published-comparison"}


@pytest.mark.parametrize("pool", of_kind("SFUPool"))
def test_a_pool_is_valid(pool: dict[str, Any]) -> None:
    SFUPoolSpec.model_validate(pool["spec"])


@pytest.mark.parametrize("project", of_kind("Project"))
def test_a_project_is_priced_and_feasible(project: dict[str, Any]) -> None:
    spec = ProjectSpec.model_validate(project["spec"])
    for provider in spec.providers:
        transcription = provider.transcription_model
        vendor = {"OpenAIRealtime": "openai", "GeminiLive": "google"}[provider.api]
        legs = Legs(
            book().snapshot(vendor, provider.model, NOW),
            book().snapshot("openai", transcription, NOW) if transcription else None,
        )
        caps = Caps(provider.caps.context_tokens, provider.caps.response_seconds)
        tokens = text_tokens_bound(spec.agent.instructions or "")
        worst = capped_response_bound(legs, caps, instruction_tokens=tokens)
        goodbye = goodbye_bound(legs.model, spec.agent.closing)
        assert Decimal(spec.budget.session.limit) >= goodbye + 4 * worst
        assert Decimal(spec.budget.session.limit) <= Decimal(spec.budget.amount)


def test_the_interview_guide_is_long_enough_to_be_cached() -> None:
    interviews = yaml.safe_load((EXAMPLES / "30-project-interviews.yaml").read_text())
    assert len(interviews["spec"]["agent"]["instructions"]) / 4 > 1024


def test_every_secret_an_example_names_is_in_the_examples_or_is_the_readers_own() -> None:
    here = {(d["metadata"]["namespace"], d["metadata"]["name"]) for d in documents() if d["kind"] == "Secret"}
    for doc in documents():
        if doc["kind"] == "Project" and doc["metadata"]["namespace"] == "demo":
            for provider in doc["spec"]["providers"]:
                assert ("demo", provider["secretRef"]["name"]) in here
