"""The rate cards: complete, agreeing with a second opinion, shipped as they are, and what the check refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from talktime_console import article, files
from talktime_console.offline import cards_of
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.rates import RateBook, RateCard

from hack import price_check

AT = datetime(2026, 11, 22, tzinfo=UTC)
CARDS = {card.name: card for card in files.rate_cards([price_check.CARDS])}


def changed(name: str, **meters: Any) -> RateCard:
    """An example card with other meters; None takes one out."""
    document = yaml.safe_load((price_check.CARDS / f"{name}.yaml").read_text())
    for meter, rate in meters.items():
        if rate is None:
            del document["spec"]["entries"][0]["meters"][meter]
        else:
            document["spec"]["entries"][0]["meters"][meter] = rate
    (card,) = cards_of([document], name)
    return card


def test_the_examples_pass_and_what_is_shipped_is_theirs() -> None:
    wrong, told = price_check.check(list(CARDS.values()), AT)
    assert wrong == []
    assert price_check.stale() == [], "run hack/price_check.py --write"
    assert [line for line in told if "historic-gpt-4o-realtime" in line and "audio_in: 100 here, 40 there" in line]


@pytest.mark.parametrize(
    ("name", "meters", "says"),
    [
        ("gpt-realtime-2.1", {"audio_out": {"usdPerMillion": "640"}}, "audio_out: 640 here, 64 there"),
        ("gpt-realtime-2.1", {"audio_cached_in": {"absent": True}}, "audio_cached_in: absent here, 0.4 there"),
        ("gpt-realtime-2.1", {"audio_cached_in": None}, "audio_cached_in is not said"),
        (
            "gpt-realtime-2.1",
            {"audio_in": {"absent": True}, "unassigned_in": {"absent": True}},
            "no price for audio_in",
        ),
        ("gemini-3.8-live", {"text_out": {"free": True}}, "text_out: 0 here, 4.5 there"),
        ("gpt-live-1", {"active_seconds": {"usdPerHour": "5"}}, "active_seconds: 5 here, 3 there"),
        ("gpt-live-1", {"standby_seconds": None}, "standby_seconds is not said"),
        ("livekit-cloud", {"egress_bytes": None}, "egress_bytes is not said"),
    ],
)
def test_a_wrong_or_missing_price_is_found(name: str, meters: dict[str, Any], says: str) -> None:
    wrong, _ = price_check.check([changed(name, **meters)], AT)
    assert [line for line in wrong if says in line], wrong


def test_a_model_without_a_second_opinion_needs_a_reason() -> None:
    document = yaml.safe_load((price_check.CARDS / "gpt-realtime-2.1.yaml").read_text())
    document["spec"]["model"] = "nobody-knows-1"
    wrong, _ = price_check.check(cards_of([document], "x"), AT)
    assert wrong == ["gpt-realtime-2.1: genai-prices does not know nobody-knows-1; say why in UNKNOWN_THERE"]


def test_historic_cards_are_exempt_but_must_be_complete() -> None:
    wrong, told = price_check.check([changed("historic-gpt-4o-realtime", audio_in={"usdPerMillion": "7"})], AT)
    assert wrong == []
    assert [line for line in told if "audio_in: 7 here" in line]
    wrong, _ = price_check.check([changed("historic-gpt-4o-realtime", image_in=None)], AT)
    assert len(wrong) == 1


@pytest.mark.parametrize(
    ("name", "meter", "usd_per_million"),
    [
        ("historic-gpt-4o-realtime", Meter.AUDIO_IN, "100"),
        ("historic-gpt-4o-realtime", Meter.AUDIO_OUT, "200"),
        ("historic-gpt-4o-realtime", Meter.TEXT_OUT, "20"),
        ("historic-gpt-4o-mini-realtime", Meter.AUDIO_OUT, "20"),
        ("historic-gpt-4o-mini-realtime", Meter.TEXT_OUT, "2.40"),
        ("historic-gemini-2.0-flash-live", Meter.AUDIO_IN, "0.70"),
        ("historic-gemini-2.0-flash-live", Meter.TEXT_OUT, "0.60"),
    ],
)
def test_the_published_prices_are_marked_as_such(name: str, meter: Meter, usd_per_million: str) -> None:
    card = CARDS[name]
    assert card.entry_at(AT).historic == "published-comparison"
    assert RateBook((card,)).snapshot(card.vendor, card.model, AT).price(meter) == Decimal(usd_per_million)


def test_a_plan_has_a_fee_and_an_allowance_that_no_session_is_priced_with() -> None:
    card = CARDS["livekit-cloud"]
    entry = card.entry_at(AT)
    assert entry.monthly_fee == 50
    allowance = entry.allowances[Meter.PARTICIPANT_SECONDS]
    assert (allowance.quantity, allowance.per) == (150_000 * 60, "Month")
    assert RateBook((card,)).snapshot("livekit", "participant", AT).price(Meter.PARTICIPANT_SECONDS) > 0


@pytest.mark.parametrize("bad", [{"quantity": 0}, {"quantity": 1, "per": "Week"}, {"quantity": "many"}])
def test_an_allowance_is_checked(bad: dict[str, Any]) -> None:
    document = yaml.safe_load((price_check.CARDS / "livekit-cloud.yaml").read_text())
    document["spec"]["entries"][0]["freeAllowance"] = {"participant_seconds": bad}
    with pytest.raises(Exception, match="freeAllowance"):
        cards_of([document], "x")


def test_a_stale_copy_or_figure_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = price_check.DOCUMENT.read_text()
    document = tmp_path / "prices.md"
    document.write_text(text.replace("27.0150", "27.0800", 1))
    monkeypatch.setattr(price_check, "DOCUMENT", document)
    assert price_check.stale() == [document]
    assert article.filled(document.read_text()) == text


def test_no_published_figure_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other claims change the published column and the differences, never the computed one."""
    before = article.BLOCKS["comparison"]()
    claims = article.published()
    altered = {name: claim.model_copy(update={"session": Decimal("99.99")}) for name, claim in claims.models.items()}
    monkeypatch.setattr(article, "published", lambda: claims.model_copy(update={"models": altered}))
    after = article.BLOCKS["comparison"]()
    assert after != before

    def computed(table: str) -> list[str]:
        return [row.split(" | ")[3] for row in table.splitlines()[2:]]

    assert computed(after) == computed(before)
