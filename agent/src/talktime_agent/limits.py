"""Soft and hard limits, as the agent acts on them. Pure: what the ledger judged, what the account holds -> a step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from talktime_ledger.resources.project import OnLedgerOutage

# The schema's default never comes without minutes; this is for a ledger that named none.
DEFAULT_MINUTES = 3


class Step(StrEnum):
    """What to do next."""

    GO_ON = "go_on"
    WRAP_UP = "wrap_up"
    CLOSE = "close"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Situation:
    """``exhausted``: the next response cannot be paid; ``expired``: the ledger is silent too long."""

    wrap_up_told: bool
    wrapped_up: bool
    exhausted: bool
    expired: bool
    fenced: bool
    on_outage: OnLedgerOutage


def next_step(now: Situation) -> tuple[Step, str]:
    """The step and the reason the session would end with. Hard goes before soft; the wrap-up is given once."""
    if now.fenced:
        return Step.LEAVE, "fenced"
    if now.exhausted:
        return Step.CLOSE, "budget"
    if now.expired:
        return (Step.CLOSE if now.on_outage is OnLedgerOutage.DRAIN else Step.LEAVE), "ledger_outage"
    if now.wrap_up_told and not now.wrapped_up:
        return Step.WRAP_UP, ""
    return Step.GO_ON, ""


def wrap_up_text(template: str, minutes: int | None) -> str:
    """The wrap-up instruction with its minutes. Only that placeholder is replaced; other braces stay."""
    return template.replace("{minutes}", str(DEFAULT_MINUTES if minutes is None else minutes))
