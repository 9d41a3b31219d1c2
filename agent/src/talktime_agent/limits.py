"""Soft and hard limits, as the agent acts on them. Pure: what the ledger judged, what the account holds -> a step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from talktime_ledger.resources.project import OnLedgerOutage

from talktime_agent.account import Account

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
    """``exhausted``: the next response cannot be paid and nothing more will come. ``outage``: the ledger is known to be
    away (`is_outage`); ``starved``: meanwhile what is held does not pay the next response; ``expired``: its validity
    does not carry one; ``lapsed``: it is over altogether.
    """

    wrap_up_told: bool
    wrapped_up: bool
    exhausted: bool
    expired: bool
    fenced: bool
    on_outage: OnLedgerOutage
    outage: bool = False
    starved: bool = False
    lapsed: bool = False


class Money(Protocol):
    """What the step depends on of the till."""

    @property
    def account(self) -> Account: ...
    @property
    def exhausted(self) -> bool: ...
    @property
    def expired(self) -> bool: ...
    @property
    def starved(self) -> bool: ...
    @property
    def valid(self) -> bool: ...


class Contact(Protocol):
    """What the step depends on of the charging loop."""

    @property
    def reachable(self) -> bool: ...
    @property
    def outage(self) -> bool: ...


def situation(
    money: Money, contact: Contact, *, wrap_up_told: bool, wrapped_up: bool, on_outage: OnLedgerOutage
) -> Situation:
    """The session's situation now. While the ledger answers, its next answer heals an expired grant."""
    away = not contact.reachable
    return Situation(
        wrap_up_told=wrap_up_told,
        wrapped_up=wrapped_up,
        exhausted=money.exhausted,
        expired=away and money.expired,
        fenced=money.account.fenced,
        on_outage=on_outage,
        outage=contact.outage,
        starved=money.starved,
        lapsed=away and not money.valid,
    )


# Only what lasts longer than a restart is an outage. A ledger of one replica was back 8 s after its container was
# killed (two cores, three interviews); a slower node needs longer, and the kubelet waits 10 s more when it died twice.
OUTAGE_SECONDS = 20.0
OUTAGE_ATTEMPTS = 3


def is_outage(failed_attempts: int, silent_sec: float) -> bool:
    """Whether the ledger is known to be away: several attempts failed, over some time."""
    return failed_attempts >= OUTAGE_ATTEMPTS and silent_sec >= OUTAGE_SECONDS


def next_step(now: Situation) -> tuple[Step, str]:
    """The step and the reason the session would end with. Hard goes before soft; the wrap-up is given once."""
    if now.fenced:
        return Step.LEAVE, "fenced"
    if now.exhausted:
        return Step.CLOSE, "budget"
    if now.lapsed:
        # Who slept through the validity may not be the only agent of this session any more: not a word.
        return Step.LEAVE, "ledger_outage"
    terminated = now.outage and now.on_outage is OnLedgerOutage.TERMINATE
    if terminated or now.expired or (now.outage and now.starved):
        return Step.CLOSE, "ledger_outage"
    if now.wrap_up_told and not now.wrapped_up:
        return Step.WRAP_UP, ""
    return Step.GO_ON, ""


def wrap_up_text(template: str, minutes: int | None) -> str:
    """The wrap-up instruction with its minutes. Only that placeholder is replaced; other braces stay."""
    return template.replace("{minutes}", str(DEFAULT_MINUTES if minutes is None else minutes))
