"""The house that the journeys share (hack/chaos/house.py: `make chaos` has one, too)."""

from __future__ import annotations

from hack.chaos.house import House, eventually, open_responses

__all__ = ["House", "eventually", "open_responses"]
