"""Participant-seconds of a room, as LiveKit bills them: every connection counts, agents and observers too. Pure.

Each connection has its own key ``identity/sid``, and its value is the seconds since the SFU saw it join. So the value
only grows, any replica computes the same one, and a restart loses nothing: the ledger keeps the highest per key.
"""

from __future__ import annotations

from collections.abc import Iterable

from .rooms import Present


def participant_seconds(present: Iterable[Present], now: float) -> dict[str, int]:
    """Seconds per connection; ``now`` is unix seconds."""
    return {f"{p.identity}/{p.sid}": int(now - p.joined_at) for p in present if p.joined_at and now > p.joined_at}
