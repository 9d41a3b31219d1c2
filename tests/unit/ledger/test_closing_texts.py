"""Texts at the limits: in the interview's language, own ones untouched, short, never about money."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from talktime_ledger.core.closing_texts import DEFAULTS, ENGLISH, spoken_texts
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.rates import RateSnapshot
from talktime_ledger.core.worst_case import Legs, closing_output_cap
from talktime_ledger.desk.opening import config_of
from talktime_ledger.desk.pricing import feasible
from talktime_ledger.resources.project import DEFAULT_CLOSING, DEFAULT_WRAP_UP, AgentSpec, ProjectSpec
from talktime_ledger.store.projects import Project

MINI = {"text_in": "0.6", "audio_in": "10", "text_out": "2.4", "audio_out": "20"}
RATES = RateSnapshot(
    "mini",
    "openai",
    "gpt-realtime-mini",
    datetime(2025, 1, 1, tzinfo=UTC),
    {Meter(m): Decimal(p) for m, p in MINI.items()},
    "test",
)
LEGS = Legs(RATES)

MONEY = re.compile(
    r"\b(budget|cost|money|price|usd|dollar|euro|geld|kosten|preis|argent|coût|dinero|coste|soldi|costo|dinheiro|custo"
    r"|kwota|koszt|pieniądze|kostnad|pengar|para|maliyet)|[$€£¥]|予算|費用|料金|预算|费用|예산|비용",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    ("tag", "language"),
    [("de", "de"), ("de-AT", "de"), ("pt_BR", "pt"), ("ZH-Hant-TW", "zh"), ("en-GB", "en"), ("", "en"), ("xx", "en")],
)
def test_a_default_is_given_in_the_interviews_language_and_an_unknown_one_keeps_english(
    tag: str, language: str
) -> None:
    assert spoken_texts(tag, DEFAULT_WRAP_UP, DEFAULT_CLOSING) == DEFAULTS[language]


def test_the_projects_own_words_always_win() -> None:
    assert spoken_texts("de", "Komm zum Ende.", "Tschüss.") == ("Komm zum Ende.", "Tschüss.")
    assert spoken_texts("de", DEFAULT_WRAP_UP, "Bye.") == (DEFAULTS["de"].wrap_up, "Bye.")


@pytest.mark.parametrize("language", sorted(DEFAULTS))
def test_every_text_is_usable_and_never_about_money(language: str) -> None:
    wrap_up, closing = DEFAULTS[language]
    AgentSpec.model_validate({"instructions": "x", "language": language, "wrapUp": wrap_up, "closing": closing})
    assert wrap_up.count("{minutes}") == 1
    assert "{" not in closing
    assert not MONEY.search(wrap_up + closing)
    # Spoken within the clip's 5 s like the English one, and its rendering fits the cap that C is computed from.
    wide = sum(2 if character > "\u2e80" else 1 for character in closing)
    assert wide <= len(ENGLISH.closing) + 5
    assert closing_output_cap(closing) >= 5 * 20 + len(closing)


def test_the_texts_that_are_spoken_are_those_that_c_is_computed_from(german: Project) -> None:
    provider = german.spec.providers[0]
    told = config_of(german, provider)
    assert (told.wrapUp, told.closing) == DEFAULTS["de"]
    mine = feasible(provider, german.spec.agent, "x", Decimal(1), LEGS)
    own = german.spec.agent.model_copy(update={"wrap_up": told.wrapUp, "closing": told.closing})
    assert mine == feasible(provider, own, "x", Decimal(1), LEGS)
    english = german.spec.agent.model_copy(update={"language": "en"})
    assert mine.goodbye != feasible(provider, english, "x", Decimal(1), LEGS).goodbye


@pytest.fixture
def german() -> Project:
    spec = ProjectSpec.model_validate(
        {
            "budget": {"amount": "10", "session": {"limit": "1"}},
            "providers": [
                {"name": "main", "api": "OpenAIRealtime", "model": "gpt-realtime-mini", "secretRef": {"name": "key"}}
            ],
            "agent": {"instructions": "x", "language": "de"},
            "media": {"poolRef": {"name": "eu"}},
        }
    )
    return Project(uuid.uuid4(), "study", "german", "u", 1, False, False, spec, "x", [])
