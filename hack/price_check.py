#!/usr/bin/env python3
"""Our rate cards against a second opinion: genai-prices, pinned, its data in the wheel (no network).

Usage: price_check.py           exit 1 and say what is wrong
       price_check.py --write   first refresh what is made from the cards: the copies the console ships, docs/prices.md

Fails when a card leaves a meter unsaid, when a talking model has no audio price, when a price in force differs from
genai-prices, when genai-prices does not know a model and nobody wrote down why, when one of 1,000 generated usages is
priced differently, and when a copy is stale. Cards marked `historic` are exempt: their conflicts are listed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from genai_prices import __version__, data_snapshot
from genai_prices.types import ModelPrice
from talktime_console import article, files
from talktime_ledger.core.meters import TOKENS, Meter
from talktime_ledger.core.rates import Absent, RateCard, RateEntry, RateSnapshot, resolve

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # run as a script, it finds its own directory only

from hack import price_sample  # noqa: E402

CARDS = ROOT / "examples" / "rate-cards"
SHIPPED = files.BUNDLED
DOCUMENT = ROOT / "docs" / "prices.md"

TIME = frozenset({Meter.ACTIVE_SECONDS, Meter.STANDBY_SECONDS})
TRANSPORT = frozenset({Meter.PARTICIPANT_SECONDS, Meter.EGRESS_BYTES})
THEIRS = {
    Meter.TEXT_IN: "input_mtok",
    Meter.TEXT_CACHED_IN: "cache_read_mtok",
    Meter.AUDIO_IN: "input_audio_mtok",
    Meter.AUDIO_CACHED_IN: "cache_audio_read_mtok",
    Meter.IMAGE_IN: "input_image_mtok",
    Meter.IMAGE_CACHED_IN: "cache_image_read_mtok",
    Meter.TEXT_OUT: "output_mtok",
    Meter.AUDIO_OUT: "output_audio_mtok",
    Meter.ACTIVE_SECONDS: "audio_hours",
}
"""Their price of the same thing: USD per million tokens, or per hour. Thoughts and tool prompts they bill as text."""

UNKNOWN_THERE = {
    "gpt-live-1.1": "genai-prices 0.2.3 has gpt-live-1 only, and no standby price at all; ours is OpenAI's model page",
}
"""Models in force without a second opinion, and why."""

NEAREST = {"gemini-2.0-flash-live": "gemini-2.0-flash"}
"""Historic models that they never had, and the nearest one to list conflicts with."""


def required(vendor: str) -> frozenset[Meter]:
    """The meters a card must speak about, if only to say `absent`."""
    return TOKENS | TIME if vendor in ("openai", "google") else TRANSPORT


def unsaid(card: RateCard, entry: RateEntry) -> Iterator[str]:
    """Meters that are neither a price nor sameAs, free or absent; talking models without an audio price."""
    for meter in sorted(required(card.vendor) - entry.terms.keys()):
        yield f"{card.name}: {meter} is not said (a price, sameAs, free or absent)"
    if card.vendor not in ("openai", "google") or "transcribe" in card.model:
        return
    if isinstance(entry.terms.get(Meter.ACTIVE_SECONDS, Absent()), Absent):
        for meter in (Meter.AUDIO_IN, Meter.AUDIO_OUT):
            if isinstance(entry.terms.get(meter), Absent):
                yield f"{card.name}: a talking model billed by token has no price for {meter}"


def per_unit(meter: Meter, rates: RateSnapshot) -> Decimal | None:
    """Our price in their unit (per million tokens, per hour), to 1e-9; None when the model has no such meter."""
    found = rates.prices.get(meter)
    if found is None:
        return None
    amount = found * 3600 / 1_000_000 if meter in TIME else found
    return amount.quantize(Decimal("1e-9"))


def second_opinion(vendor: str, model: str, at: datetime) -> ModelPrice | None:
    """Their prices of the model; None when they do not know it."""
    try:
        _, found = data_snapshot.get_snapshot().find_provider_model(model, None, vendor, None)
    except LookupError:
        return None
    return found.get_prices(at)


def conflicts(rates: RateSnapshot, theirs: ModelPrice) -> list[str]:
    """Meters on which we differ, with both prices."""
    found = []
    for meter, name in THEIRS.items():
        ours, other = per_unit(meter, rates), getattr(theirs, name, None)
        if other is not None and not isinstance(other, Decimal):
            found.append(f"{meter}: {ours} here, tiers there")
        elif ours != other:
            found.append(f"{meter}: {_said(ours)} here, {_said(other)} there")
    return found


def _said(amount: Decimal | None) -> str:
    return "absent" if amount is None else f"{amount.normalize():f}"


def check(cards: Sequence[RateCard], at: datetime) -> tuple[list[str], list[str]]:
    """(what is wrong, what is worth knowing)."""
    wrong: list[str] = []
    told: list[str] = []
    for card in cards:
        for entry in card.entries:
            wrong += unsaid(card, entry)
        if card.vendor not in ("openai", "google"):
            continue
        entry = card.entry_at(at)
        nearest = NEAREST.get(card.model, card.model) if entry.historic else card.model
        theirs = second_opinion(card.vendor, nearest, at)
        if theirs is None:
            if entry.historic:
                told.append(f"{card.name}: {entry.historic}; genai-prices does not know the model any more")
            elif card.model in UNKNOWN_THERE:
                told.append(f"{card.name}: no second opinion, {UNKNOWN_THERE[card.model]}")
            else:
                wrong.append(f"{card.name}: genai-prices does not know {card.model}; say why in UNKNOWN_THERE")
            continue
        if card.model in UNKNOWN_THERE:
            wrong.append(f"{card.name}: genai-prices knows {card.model} now; take it out of UNKNOWN_THERE")
        differing = conflicts(resolve(card, entry), theirs)
        if entry.historic:
            told += [f"{card.name}: {entry.historic}, {difference} ({nearest})" for difference in differing]
        else:
            wrong += [f"{card.name}: {difference}" for difference in differing]
            told += [] if differing else [f"{card.name}: agrees on {len(THEIRS)} meters"]
    return wrong, told


def copies() -> dict[Path, str]:
    """What is made from the cards: path and content as they should be."""
    made = {SHIPPED / path.name: path.read_text(encoding="utf-8") for path in sorted(CARDS.glob("*.yaml"))}
    made[DOCUMENT] = article.filled(DOCUMENT.read_text(encoding="utf-8"))
    return made


def stale() -> list[Path]:
    """Copies that differ, and shipped cards that are no example any more."""
    made = copies()
    gone = [path for path in SHIPPED.glob("*.yaml") if path not in made]
    return [
        path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    ] + gone


def write() -> None:
    """Refresh them."""
    for path in stale():
        text = copies().get(path)
        if text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="refresh the copies first")
    parser.add_argument("--cards", type=Path, default=CARDS, help="directory of RateCards to check")
    given = parser.parse_args()
    if given.write:
        write()
    cards, now = files.rate_cards([given.cards]), datetime.now(UTC)
    wrong, told = check(cards, now)
    if shared := price_sample.shared(cards, now):
        differing = price_sample.differing(shared, now)
        wrong += differing
        told.append(f"{price_sample.USAGES:,} usages, {len(differing)} differ ({len(shared)} models)")
    wrong += [f"{path.relative_to(ROOT)} is stale: run hack/price_check.py --write" for path in stale()]
    sys.stdout.write(f"genai-prices {__version__}\n" + "".join(f"  {line}\n" for line in told))
    sys.stderr.write("".join(f"price_check: {line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
