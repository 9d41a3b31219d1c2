"""A model of an agent that honours law 2 and nothing else: it spends all it may, as late and as often as it may."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from talktime_ledger import wire

from .conftest import usage

ZERO = Decimal(0)
TOKEN = Decimal("0.00002")
"""USD of one token of speech (gpt-realtime-mini)."""
# It opens nothing later than validity minus the longest response and its slack.
LONGEST = timedelta(seconds=25)


def tokens(amount: Decimal, quarters: int) -> int:
    """Whole tokens that cost at most so many quarters of an amount."""
    return int(amount * quarters / 4 / TOKEN)


@dataclass
class Agent:
    """One job process: what it believes to hold, what it really spent, what it has not been answered. USD."""

    session_id: uuid.UUID
    epoch: int
    worker: str
    w: Decimal
    c: Decimal
    n: int = 0
    begun: int = 0
    came: bool = False
    """The ledger took it in; whether it knows that is `attached`."""
    attached: bool = False
    over: bool = False
    """It spends nothing any more: closed, fenced and told so, or dead."""
    dead: bool = False
    silent: bool = False
    """It has said its last word, or died without a spool: nothing of it will come."""
    reserved: Decimal = ZERO
    goodbye: Decimal = ZERO
    valid_until: datetime | None = None
    open: dict[str, Decimal] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    pending: wire.Use | None = None
    last_word: wire.Close | None = None
    lost: bool = False
    """Its pod told its loss: the session goes on without it."""
    unmetered: dict[str, Decimal] = field(default_factory=dict)

    @property
    def true_cost(self) -> Decimal:
        """What the provider will bill for it so far."""
        return sum(self.spent.values()) * TOKEN

    @property
    def unsettled(self) -> Decimal:
        """What it spent and the ledger has not answered."""
        return (sum(self.spent.values()) - sum(self.settled.values())) * TOKEN

    @property
    def in_flight(self) -> Decimal:
        """Bounds of its open responses."""
        return sum(self.open.values(), ZERO)

    def start(self, now: datetime) -> bool:
        """Opens a response if law 2 allows it."""
        if self.over or not self.attached or self.valid_until is None or now > self.valid_until - LONGEST:
            return False
        if self.reserved - self.goodbye - self.unsettled - self.in_flight < self.w:
            return False
        self.begun += 1
        self.open[f"{self.epoch}/{self.worker}/{self.begun}"] = self.w
        return True

    def snapshot(self, quarters: int) -> None:
        """The provider tells what the first open response has cost so far."""
        for key in list(self.open)[:1]:
            count = max(self.spent.get(key, 0), tokens(self.w, quarters))
            self.spent[key] = count
            self.open[key] = self.w - count * TOKEN

    def finish(self, quarters: int) -> None:
        """The first open response is done."""
        self.snapshot(quarters)
        for key in list(self.open)[:1]:
            del self.open[key]

    def say_goodbye(self) -> bool:
        """Out of C, also when nothing else is left; the whole of it. False: it cannot."""
        if self.over or not self.attached or self.reserved - self.unsettled - self.in_flight < self.c:
            return False
        self.begun += 1
        key = f"{self.epoch}/{self.worker}/{self.begun}"
        self.spent[key], self.kinds[key] = tokens(self.c, 4), "closing_render"
        return True

    def usages(self, now: datetime) -> tuple[wire.Usage, ...]:
        """Everything that is not settled in its present form."""
        return tuple(
            usage(key, count, kind=self.kinds.get(key, "response"), occurred_at=now)
            for key, count in self.spent.items()
            if self.settled.get(key) != count
        )

    def next_use(self, now: datetime) -> wire.Use:
        """The next request; exactly this one until it is answered."""
        if self.pending is None:
            self.n += 1
            self.pending = wire.Use(
                epoch=self.epoch, n=self.n, usages=self.usages(now), in_flight=self.in_flight, want=ZERO
            )
        return self.pending

    def granted(self, grant: wire.Grant, sent_at: datetime) -> None:
        """What it may spend from now on."""
        self.n, self.reserved, self.goodbye = max(self.n, grant.n), grant.reserved, grant.goodbye
        self.valid_until, self.attached = sent_at + timedelta(seconds=grant.valid_sec), True

    def answered(self, request: wire.Use, grant: wire.Grant, sent_at: datetime) -> None:
        """The ledger answered."""
        self.pending = None
        for one in request.usages:
            self.settled[one.key] = next(iter(one.meters.values()), 0)
        self.granted(grant, sent_at)

    def refused(self) -> None:
        """Fenced, or the session is closed: it stops, and still owes its last word."""
        self.over, self.pending = True, None

    def closing(self, now: datetime, reason: str) -> wire.Close:
        """Its last word: what is open stands at its bound. A repeat is the same."""
        if self.last_word is None:
            self.over = True
            bounds = {key: self.w for key in self.open if key not in self.spent}
            for key in self.open:
                # A response that was told of in part: the rest of it at its bound is one usage more.
                if key in self.spent:
                    bounds[f"{key}/rest"] = self.w - self.spent[key] * TOKEN
            self.unmetered, self.open = bounds, {}
            self.last_word = wire.Close(
                epoch=self.epoch,
                n=self.n + 1,
                reason=reason,
                usages=self.usages(now),
                unmetered=tuple(wire.Unmetered(key=key, usd=amount) for key, amount in bounds.items()),
            )
        return self.last_word
