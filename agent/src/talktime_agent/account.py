"""The session's local view of its money: what the ledger granted, what is held for open things, what is not settled.

A pure state machine: every transition returns a new account; times (monotonic seconds) and amounts (USD) are passed in.
Law 2 rests on it: nothing that costs money starts without a hold that pays for its worst case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Self

from talktime_ledger.core.gate import Decision, Holdings, may_render_goodbye, may_respond, renew_soon
from talktime_ledger.core.money import ZERO


@dataclass(frozen=True, slots=True)
class Granted:
    """The money part of the ledger's last answer. USD; ``valid_sec`` counts from sending the request."""

    reserved: Decimal
    goodbye: Decimal
    posted: Decimal
    limit: Decimal
    valid_sec: float
    final: bool
    limit_state: str
    outage_reserve: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Account:
    """``holds``: bound by key of what is in flight; ``unsettled``: cost by key of usage the ledger has not answered.

    ``away``: the ledger did not answer the last request, so the outage reserve may be spent.
    """

    grant: Granted
    valid_until: float
    holds: Mapping[str, Decimal] = field(default_factory=dict)
    unsettled: Mapping[str, Decimal] = field(default_factory=dict)
    fenced: bool = False
    closing: bool = False
    away: bool = False

    @classmethod
    def opened(cls, grant: Granted, sent_at: float) -> Self:
        """The account after attach."""
        return cls(grant=grant, valid_until=sent_at + grant.valid_sec)

    @property
    def in_flight(self) -> Decimal:
        """Sum of the bounds of everything open."""
        return sum(self.holds.values(), ZERO)

    @property
    def not_settled(self) -> Decimal:
        """Cost known here that the ledger has not posted yet."""
        return sum(self.unsettled.values(), ZERO)

    @property
    def spent(self) -> Decimal:
        """All metered cost of the session so far."""
        return self.grant.posted + self.not_settled

    def holdings(self, now: float) -> Holdings:
        """What the gate looks at."""
        return Holdings(
            reserved=self.grant.reserved,
            goodbye=self.grant.goodbye,
            unsettled=self.not_settled,
            in_flight=self.in_flight,
            validity_left_sec=self.valid_until - now,
            fenced=self.fenced,
            closing=self.closing,
            aside=ZERO if self.away else self.grant.outage_reserve,
        )

    def may_respond(self, worst_case: Decimal, longest_sec: float, now: float) -> Decision:
        """Whether a response of at most this cost and length may start."""
        return may_respond(self.holdings(now), worst_case, longest_sec)

    def may_render(self, worst_case: Decimal, now: float) -> Decision:
        """Whether the goodbye may be rendered, out of C."""
        return may_render_goodbye(self.holdings(now), worst_case)

    def short(self, worst_case: Decimal, now: float) -> bool:
        """Whether to ask for more before the next round."""
        return not self.grant.final and renew_soon(self.holdings(now), worst_case)

    def exhausted(self, worst_case: Decimal, now: float) -> bool:
        """Nothing more will come and the next response does not fit."""
        return self.grant.final and self.holdings(now).free < worst_case

    def starved(self, worst_case: Decimal, now: float) -> bool:
        """The ledger is away and what is held, the outage reserve included, does not pay the next response."""
        return self.away and self.holdings(now).free < worst_case

    def valid(self, now: float) -> bool:
        """The grant still stands: nobody has swept the session behind our back."""
        return not self.fenced and now < self.valid_until

    def granted(self, grant: Granted, sent_at: float, settled: Iterable[str]) -> Account:
        """The ledger answered a request sent at ``sent_at`` that carried the usages ``settled``."""
        gone = set(settled)
        left = {key: amount for key, amount in self.unsettled.items() if key not in gone}
        return replace(self, grant=grant, valid_until=sent_at + grant.valid_sec, unsettled=left, away=False)

    def alone(self) -> Account:
        """The ledger does not answer: what is held must do, the outage reserve with it."""
        return replace(self, away=True)

    def held(self, key: str, worst_case: Decimal) -> Account:
        """Something that costs at most this much begins."""
        return replace(self, holds={**self.holds, key: worst_case})

    def renamed(self, old: str, new: str) -> Account:
        """The provider gave our request its own name."""
        if old not in self.holds:
            return self
        holds = {key: amount for key, amount in self.holds.items() if key != old}
        return replace(self, holds={**holds, new: self.holds[old]})

    def released(self, key: str) -> Account:
        """It ended without cost."""
        return replace(self, holds={other: amount for other, amount in self.holds.items() if other != key})

    def billed(self, key: str, cost: Decimal) -> Account:
        """Its real cost is known; the hold under the same key becomes that cost."""
        return replace(self.released(key), unsettled={**self.unsettled, key: cost})

    def fence(self) -> Account:
        """Another agent owns the session now: nothing may start here any more."""
        return replace(self, fenced=True)

    def close(self) -> Account:
        """The goodbye has begun: nothing may start any more but what C pays for."""
        return replace(self, closing=True)
