"""How much of a run was asked for and not done: a run that ends early must not look like a whole one. Pure."""

from __future__ import annotations

from collections.abc import Mapping

Short = dict[str, dict[str, int]]


def short(asked: Mapping[str, int], ran: Mapping[str, int]) -> Short:
    """By kind of round, where fewer ran than were asked for: how many of each."""
    return {
        kind: {"asked": count, "ran": ran.get(kind, 0)} for kind, count in asked.items() if ran.get(kind, 0) < count
    }


def in_words(found: Short) -> list[str]:
    return [f"{kind} is short: asked {one['asked']}, ran {one['ran']}" for kind, one in found.items()]
