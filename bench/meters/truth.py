"""The books of sessions against what the provider billed for them. Pure.

A billed thing is either in the books, token for token under its own key, or it never reached us; then the session was
posted a bound for it, marked `unmetered`, that is at least its cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.pricing import price
from talktime_ledger.core.rates import RateSnapshot

Rates = Mapping[str, RateSnapshot]


@dataclass(frozen=True, slots=True)
class Kept:
    """One row of `usage_events`. USD."""

    key: str
    model: str
    meters: Mapping[str, int]
    usd: Decimal
    unmetered: bool


@dataclass(slots=True)
class Outcome:
    """Of some sessions. `difference`: tokens by (model, meter) that ledger or truth has alone, of what had to be there
    (one too many here makes up for none that is missing there); USD else.

    `statuses`: how what was billed ended, by the provider."""

    responses: int = 0
    tokens: int = 0
    difference: Counter[tuple[str, str]] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    true_usd: Decimal = ZERO
    undelivered: int = 0
    undelivered_usd: Decimal = ZERO
    unmetered_usd: Decimal = ZERO
    problems: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Takes another's figures in."""
        self.responses += other.responses
        self.tokens += other.tokens
        self.difference.update(other.difference)
        self.statuses.update(other.statuses)
        self.true_usd += other.true_usd
        self.undelivered += other.undelivered
        self.undelivered_usd += other.undelivered_usd
        self.unmetered_usd += other.unmetered_usd
        self.problems += other.problems


def key_of(record: Mapping[str, Any]) -> str:
    """The usage key of a truth record."""
    if record["kind"] == "transcription":
        return f"{record['item_id']}/0"
    return f"{record['provider_session']}/{record['response_id']}"


def cost(model: str, meters: Mapping[str, int], rates: Rates) -> Decimal:
    """USD. PriceUnknown for a counted meter without a price."""
    return price({Meter(name): count for name, count in meters.items() if count}, rates[model])


def compare(truth: Iterable[Mapping[str, Any]], kept: Iterable[Kept], rates: Rates, *, died: bool) -> Outcome:
    """`died`: the agent was killed, so what was written to its socket last may never have been read by it."""
    outcome = Outcome()
    rows = {row.key: row for row in kept}
    metered = {key: row for key, row in rows.items() if not row.unmetered}
    bounds = {key: row.usd for key, row in rows.items() if row.unmetered}
    outcome.unmetered_usd = sum(bounds.values(), ZERO)
    left = dict(bounds)
    uncovered = ZERO
    for record in truth:
        key, model, meters = key_of(record), str(record["model"]), record["meters"]
        usd = cost(model, meters, rates)
        outcome.responses += 1
        outcome.tokens += sum(meters.values())
        outcome.true_usd += usd
        outcome.statuses[str(record.get("status", ""))] += 1
        row = metered.pop(key, None)
        if row is not None:
            _differ(outcome, key, row, model, meters)
            continue
        if record["delivered"] and not died:
            outcome.difference.update({(model, meter): count for meter, count in meters.items() if count})
            outcome.problems.append(f"{key}: delivered and not in the books")
            continue
        outcome.undelivered += 1
        outcome.undelivered_usd += usd
        if key not in left:
            uncovered += usd
        elif left.pop(key) < usd:
            outcome.problems.append(f"{key}: {usd} USD are over its bound of {bounds[key]}")
    # A request whose answer had not even begun for us is held under the request's name.
    if uncovered > sum(left.values(), ZERO):
        outcome.problems.append(f"{uncovered} USD were lost, the bounds left for them are {sum(left.values(), ZERO)}")
    for key, row in metered.items():
        _differ(outcome, key, row, row.model, {})
    return outcome


def _differ(outcome: Outcome, key: str, row: Kept, model: str, meters: Mapping[str, int]) -> None:
    for name in {*row.meters, *meters}:
        if count := row.meters.get(name, 0) - meters.get(name, 0):
            outcome.difference[model, name] += abs(count)
            outcome.problems.append(f"{key}: {name} differs by {count}")
    if meters and row.model != model:
        outcome.problems.append(f"{key}: booked as {row.model}, billed as {model}")
