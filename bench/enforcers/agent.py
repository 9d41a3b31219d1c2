"""An agent as a value that changes: the real agent's account and worst cases, the trace's turns instead of a voice.

No I/O: the run asks it what to send and tells it what came back. USD; times are virtual seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from talktime_agent.account import Account
from talktime_agent.gate import Bounds
from talktime_agent.till import granted
from talktime_ledger import wire
from talktime_ledger.core.usage import UsageKind

from bench.enforcers import study
from bench.enforcers.trace import Turn, Visit


@dataclass(slots=True)
class Agent:
    """One session's agent. `truth`: what the provider bills so far, whether anybody learns of it or not."""

    visit: Visit
    session: UUID
    bounds: Bounds
    epoch_start: datetime
    account: Account
    n: int
    index: int = 0
    truth: Decimal = Decimal(0)
    ends_by: float = float("inf")
    queue: dict[str, wire.Usage] = field(default_factory=dict)
    last: wire.Use | None = None

    @classmethod
    def attached(
        cls, visit: Visit, session: UUID, bounds: Bounds, start: datetime, grant: wire.Grant, sent_at: float
    ) -> Agent:
        """After attach, sent at `sent_at`."""
        return cls(visit, session, bounds, start, Account.opened(granted(grant), sent_at), grant.n)

    @property
    def turn(self) -> Turn:
        """The turn that comes or is going on."""
        return self.visit.turns[self.index]

    def hear(self, now: float) -> None:
        """The participant has spoken: transcribing it is billed, answered or not."""
        turn = self.turn
        self.account = self.account.held(self._key("item"), self.bounds.transcription(turn.heard_sec))
        self.truth += turn.heard_cost
        self._bill(self._key("item"), UsageKind.TRANSCRIPTION, turn.heard_meters, turn.heard_cost, now)

    def may_answer(self, now: float) -> bool:
        """The gate."""
        return self.account.may_respond(self._worst_case(), self.bounds.longest_response_sec, now).allowed

    def answer(self) -> None:
        """The response starts: it is billed whole from here on, whatever becomes of us."""
        self.account = self.account.held(self._key("resp"), self._worst_case())
        self.truth += self.turn.cost

    def answered(self, now: float) -> None:
        """The response is done and its usage known."""
        self._bill(self._key("resp"), UsageKind.RESPONSE, self.turn.meters, self.turn.cost, now)
        self.index += 1

    @property
    def talked_out(self) -> bool:
        """The interview is over."""
        return self.index == len(self.visit.turns)

    def short(self, now: float) -> bool:
        """Whether to ask for more before the next turn."""
        return self.account.short(self._wanted(), now)

    def exhausted(self, now: float) -> bool:
        """Nothing more will come and the next response does not fit."""
        return not self.account.holds and self.account.exhausted(self._wanted(), now)

    def use(self) -> wire.Use:
        """The next request."""
        self.n += 1
        usages = tuple(self.queue.values())
        in_flight = self.account.in_flight
        return wire.Use(epoch=1, n=self.n, usages=usages, in_flight=in_flight, want=self._wanted(), turns=self.index)

    def settled(self, request: wire.Use, grant: wire.Grant, sent_at: float) -> None:
        """Its answer. A wrap-up is heeded or not, and ends the session in time."""
        keys = [usage.key for usage in request.usages]
        self.account = self.account.granted(granted(grant), sent_at, keys)
        for key in keys:
            self.queue.pop(key, None)
        self.last = request
        if grant.wrap_up and self.visit.heeds_wrap_up:
            told = 60.0 * (grant.wrap_up_minutes or 3)
            self.ends_by = min(self.ends_by, sent_at + min(told, self.visit.wrap_up_sec))

    def goodbye(self, now: float) -> None:
        """The closing line is rendered, out of C."""
        self.truth += self.visit.goodbye_cost
        self._bill(
            f"{self.session}/bye", UsageKind.CLOSING_RENDER, self.visit.goodbye_meters, self.visit.goodbye_cost, now
        )

    def close(self, reason: str, now: float) -> wire.Close:
        """What is known and not yet answered, and what is open at its bound."""
        self.account = self.account.close()
        open_ones = tuple(wire.Unmetered(key=key, usd=amount) for key, amount in self.account.holds.items())
        return wire.Close(
            epoch=1,
            n=self.n + 1,
            usages=tuple(self.queue.values()),
            reason=reason,
            turns=self.index,
            duration_sec=max(0.0, now - self.visit.at),
            unmetered=open_ones,
        )

    def _key(self, what: str) -> str:
        return f"{self.session}/{what}_{self.index}"

    def _pending(self) -> tuple[int, float]:
        turn = self.visit.turns[min(self.index, len(self.visit.turns) - 1)]
        return turn.context_before, turn.heard_sec

    def _worst_case(self) -> Decimal:
        return self.bounds.response(*self._pending())

    def _wanted(self) -> Decimal:
        context, _ = self._pending()
        return self.bounds.wanted(context, 0.0)

    def _bill(self, key: str, kind: UsageKind, meters: dict[str, int], cost: Decimal, now: float) -> None:
        self.account = self.account.billed(key, cost)
        model = study.HEARD if kind is UsageKind.TRANSCRIPTION else study.MODEL
        self.queue[key] = wire.Usage.model_validate(
            {
                "key": key,
                "kind": kind,
                "provider": study.PROVIDER,
                "model": model,
                "meters": {name: count for name, count in meters.items() if count},
                "occurred_at": self.epoch_start + timedelta(seconds=now),
            }
        )
