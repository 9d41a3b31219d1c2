"""What the ledger's sessions tell: time to first audio; participant-minutes, sessions at once, their length. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from talktime_ledger.wire import SessionRow, TransportRow

from .shape import Shape, Stays


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


@dataclass(frozen=True)
class Month:
    """What transport was needed for: sessions, the most at once, and their shape, measured."""

    sessions: int
    peak: int
    shape: Shape

    @property
    def told(self) -> str:
        """In words, for the source of a result."""
        stays = self.shape.stays
        people = "nobody told participant-minutes, so participants x length"
        if stays is not None:
            people = f"{round(stays.begun_minutes * self.sessions):,} participant-minutes"
        return f"{self.sessions:,} sessions, {people}, {self.peak} at once"


def month_of(row: TransportRow, shape: Shape) -> Month | None:
    """``shape`` with what was measured; None when no agent took any session up."""
    if not row.sessions:
        return None
    length = Decimal(row.talk_sec) / row.sessions / 60
    found = replace(shape, minutes=max(round(length, 2), Decimal("0.01")))
    if row.connections:
        stays = Stays(Decimal(row.participant_seconds) / row.sessions, Decimal(row.begun_minutes) / row.sessions)
        # How many receive at once: for the traffic alone.
        present = max(1, round(Decimal(row.participant_seconds) / max(1, row.talk_sec)))
        found = replace(found, stays=stays, participants=present)
    return Month(row.sessions, max(1, row.peak_sessions), found)
