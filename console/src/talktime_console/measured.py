"""What the ledger's sessions tell: time to first audio, sessions at once, how long they are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from talktime_ledger.wire import SessionRow


@dataclass(frozen=True)
class FirstAudio:
    """Milliseconds from an agent taking the session up to its first word: median, 95th percentile, of how many."""

    median_ms: int
    p95_ms: int
    sessions: int


def first_audio(rows: Iterable[SessionRow]) -> Mapping[str, FirstAudio]:
    """By model, of sessions that were taken up and spoke."""
    found: dict[str, list[int]] = {}
    for row in rows:
        spoke = min((event.at for event in row.session.events if event.name == "first_audio"), default=None)
        began = row.session.attached_at
        if spoke is not None and began is not None and spoke >= began:
            found.setdefault(row.session.model, []).append(int((spoke - began).total_seconds() * 1000))
    return {m: FirstAudio(percentile(ms, 50), percentile(ms, 95), len(ms)) for m, ms in found.items()}


def percentile(values: Sequence[int], percent: int) -> int:
    """Nearest rank: the smallest value that at least so many percent are not above."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def peak(rows: Iterable[SessionRow], now: datetime) -> int:
    """The most sessions at once, from being taken up to being closed (open ones last until ``now``)."""
    changes: list[tuple[datetime, int]] = []
    for row in rows:
        if row.session.attached_at is not None:
            changes += [(row.session.attached_at, 1), (row.session.closed_at or now, -1)]
    most = at_once = 0
    for _, change in sorted(changes):  # an end before a beginning at the same moment
        at_once += change
        most = max(most, at_once)
    return most


def mean_minutes(rows: Sequence[SessionRow], now: datetime) -> Decimal | None:
    """Mean length in minutes of the sessions that were taken up; None of none."""
    lengths = [
        int(((row.session.closed_at or now) - row.session.attached_at).total_seconds())
        for row in rows
        if row.session.attached_at is not None
    ]
    return Decimal(sum(lengths)) / len(lengths) / 60 if lengths else None
