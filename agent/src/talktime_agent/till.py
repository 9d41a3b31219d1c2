"""The till: the mutable shell around the account. Takes the meter's facts, prices them, spools them, queues them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol

from talktime_ledger.core.gate import Decision
from talktime_ledger.core.limits import LimitState
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.money import wire as money_text
from talktime_ledger.core.pricing import price_or_bound
from talktime_ledger.wire import Attachment, Grant, GrantState, Session, SessionEvent, Unmetered, Usage, Use

from talktime_agent.account import Account, Granted
from talktime_agent.clock import Clock
from talktime_agent.facts import (
    HEARD_STEP_SECONDS,
    Billed,
    Committed,
    Connected,
    Fact,
    Fault,
    Free,
    Heard,
    Opened,
    Refused,
    Unmeterable,
)
from talktime_agent.gate import Bounds
from talktime_agent.observers import CostNow, audio_tokens

logger = logging.getLogger("talktime.agent.till")

# The wire's bound of one request; the rest goes with the next.
MAX_USAGES = 200
MAX_EVENTS = 50


class Journal(Protocol):
    """Where everything that is owed is written before it is sent (the spool)."""

    def write(self, kind: str, at: float, **fields: object) -> None: ...


class Context(Protocol):
    """What the next response costs depends on this (a meter)."""

    @property
    def context_tokens(self) -> int: ...
    @property
    def pending_seconds(self) -> float: ...


def granted(grant: Grant) -> Granted:
    """The money part of a grant."""
    return Granted(
        reserved=grant.reserved,
        goodbye=grant.goodbye,
        posted=grant.posted,
        limit=grant.session_limit,
        valid_sec=float(grant.valid_sec),
        final=grant.state is GrantState.FINAL,
        limit_state=str(grant.limit_state),
        outage_reserve=grant.outage_reserve,
    )


def _seconds_before(session: Session, now: datetime) -> float:
    """Seconds since another agent took it up first; 0 without one."""
    if session.epoch == 1 or session.attached_at is None:
        return 0.0
    return max(0.0, (now - session.attached_at).total_seconds())


class Till:
    """One session's money in this process."""

    def __init__(
        self,
        attachment: Attachment,
        bounds: Bounds,
        meter: Context,
        journal: Journal,
        clock: Clock,
        sent_at: float,
    ) -> None:
        """``sent_at``: monotonic seconds when attach was sent (validity counts from there)."""
        self.account = Account.opened(granted(attachment.grant), sent_at)
        self.bounds = bounds
        self.epoch = attachment.session.epoch
        self.turns = attachment.session.turns
        self.n = attachment.grant.n
        self._meter = meter
        self._journal = journal
        self._clock = clock
        # Of the session, not of this agent: the one before may have talked for long.
        self._opened = clock.monotonic() - _seconds_before(attachment.session, clock.wall())
        self._queue: dict[str, Usage] = {}
        self._events: list[SessionEvent] = []
        self._audio: dict[str, tuple[int, int]] = {}
        self._lost: set[str] = set()
        self._expected: dict[str, Decimal] = {}
        self._asked: set[str] = set()
        self._hard = False

    # what may start

    def worst_case(self) -> Decimal:
        """W of a response that would start now, USD."""
        return self.bounds.response(self._meter.context_tokens, self._meter.pending_seconds)

    def wanted(self) -> Decimal:
        """W of the response after the next turn, USD."""
        return self.bounds.wanted(self._meter.context_tokens, self._meter.pending_seconds)

    def may_respond(self) -> Decision:
        """Whether a response may start now; where the provider answers by itself, whether it may hear the user."""
        needed = self.bounds.ahead(self._meter.context_tokens, self._meter.pending_seconds)
        return self.account.may_respond(needed, self.bounds.longest_response_sec, self._clock.monotonic())

    def request(self, request: str, bound: Decimal | None = None) -> None:
        """A response.create goes out under this event id; its bound is held from here on (default W now)."""
        self._asked.add(request)
        self._hold(request, self.worst_case() if bound is None else bound)

    def nothing_was_asked(self) -> None:
        """The provider never took us in, so no request has reached it: their holds are free again."""
        for request in (*self._asked, *self._expected):
            self._release(request)

    @property
    def short(self) -> bool:
        """Ask the ledger for more before it is needed."""
        return self.account.short(self.bounds.hold * self.wanted(), self._clock.monotonic())

    @property
    def exhausted(self) -> bool:
        """The hard limit: nothing more will come and the next response does not fit, whatever the open ones cost."""
        return self.quiet and self.account.exhausted(self.bounds.hold * self.wanted(), self._clock.monotonic())

    @property
    def expired(self) -> bool:
        """The grant's validity does not carry one more response (the ledger has not answered for long)."""
        decision = self.may_respond()
        return not decision.allowed and decision.reason == "validity"

    @property
    def starved(self) -> bool:
        """The ledger is away, and the next response does not fit into what is held, whatever the open ones cost."""
        return self.quiet and self.account.starved(self.bounds.hold * self.wanted(), self._clock.monotonic())

    @property
    def valid(self) -> bool:
        """The session is still ours: beyond the validity another agent may have it, or the sweep."""
        return self.account.valid(self._clock.monotonic())

    @property
    def quiet(self) -> bool:
        """Nothing is open at the provider whose usage may still come, and no answer to what it heard."""
        return not self._expected and all(key in self._lost for key in self.account.holds)

    # what happened

    def apply(self, facts: Iterable[Fact], *, aside: bool = False) -> None:
        """Takes a meter's facts, in their order; ``aside``: not of the conversation (the rendering of the goodbye)."""
        for fact in facts:
            match fact:
                case Committed(item, seconds):
                    bound = self.bounds.transcription(seconds)
                    if bound:
                        self._hold(f"{item}/0", bound)
                case Heard(key):
                    self._expect(key)
                case Opened(key, request):
                    if request is not None and request in self.account.holds:
                        self._rename(request, key)
                    else:
                        # Not asked for by us: it costs all the same.
                        self._hold(key, self._unasked())
                case Billed(usage):
                    self._bill(Usage.of(usage), aside)
                case Free(key) | Refused(key, _):
                    self._release(key)
                case Unmeterable(key, why):
                    logger.warning("usage unknown, kept at its bound", extra={"usage": key, "why": why})
                    self._lost.add(key)
                    if key not in self.account.holds:
                        self._hold(key, self._expected.pop(key, ZERO) or self.worst_case())
                case Connected(_, replaced):
                    if replaced:
                        # Requests without an answer and transcriptions went down with it, too: no usage comes for them.
                        self._lost |= set(self.account.holds)
                case Fault():
                    pass

    def turn(self) -> None:
        """The user has spoken and is being answered."""
        self.turns += 1
        self._journal.write("turn", self._now(), turns=self.turns)

    def event(self, name: str) -> datetime:
        """Something the ledger keeps in the session's timeline."""
        event = SessionEvent(name=name, at=self._clock.wall())
        self._events.append(event)
        self._journal.write("event", event.at.timestamp(), event=event.model_dump(mode="json"))
        return event.at

    # to and from the ledger

    @property
    def owes(self) -> bool:
        """Whether there is something to tell the ledger."""
        return bool(self._queue or self._events)

    def next_use(self) -> Use:
        """The next request. The caller repeats exactly this one until it is answered: a repeated n has one answer."""
        self.n += 1
        usages = tuple(list(self._queue.values())[:MAX_USAGES])
        self._journal.write("sent", self._now(), n=self.n)
        return Use(
            epoch=self.epoch,
            n=self.n,
            usages=usages,
            in_flight=self.account.in_flight,
            want=self.wanted(),
            turns=self.turns,
            events=tuple(self._events[:MAX_EVENTS]),
        )

    def answered(self, use: Use, grant: Grant, sent_at: float) -> None:
        """The ledger answered ``use``, sent at ``sent_at`` (monotonic seconds)."""
        # A newer snapshot of the same usage, metered meanwhile, is still owed.
        keys = [usage.key for usage in use.usages if self._queue.get(usage.key) == usage]
        self.account = self.account.granted(granted(grant), sent_at, keys)
        for key in keys:
            self._queue.pop(key, None)
        del self._events[: len(use.events)]
        self._journal.write("acked", self._now(), n=use.n, keys=keys, events=len(use.events))

    def rest(self) -> tuple[tuple[Usage, ...], tuple[Unmetered, ...], tuple[SessionEvent, ...]]:
        """What close must carry: usages not answered, open things at their bound, events."""
        held = {**self.account.holds, **self._expected}
        open_ones = tuple(Unmetered(key=key, usd=amount) for key, amount in held.items())
        return tuple(self._queue.values()), open_ones, tuple(self._events)

    def alone(self) -> None:
        """The ledger does not answer."""
        self.account = self.account.alone()

    def fence(self) -> None:
        """Another agent has the session."""
        self.account = self.account.fence()

    def reach_hard_limit(self) -> None:
        """The session ends for money. Observers hear so, too: the ledger's last grant may have been final and not yet
        at its limit.
        """
        self._hard = True
        self.event("hard_limit")

    def begin_closing(self) -> None:
        """Nothing but the goodbye may start from here on."""
        self.account = self.account.close()

    @property
    def elapsed_sec(self) -> float:
        """Seconds since the session's first attach."""
        return self._clock.monotonic() - self._opened

    def cost_now(self) -> CostNow:
        """For observers."""
        return CostNow(
            total=self.account.spent,
            audio_in_tokens=self.audio_tokens[0],
            audio_out_tokens=self.audio_tokens[1],
            elapsed_sec=self.elapsed_sec,
            budget=self.account.grant.limit,
            limit_state=LimitState.HARD if self._hard else self.account.grant.limit_state,
        )

    @property
    def audio_tokens(self) -> tuple[int, int]:
        """Audio tokens (in including cached, out) of the conversation, for the cross-check."""
        return sum(heard for heard, _ in self._audio.values()), sum(spoken for _, spoken in self._audio.values())

    def _now(self) -> float:
        return self._clock.wall().astimezone(UTC).timestamp()

    def _hold(self, key: str, bound: Decimal) -> None:
        self.account = self.account.held(key, bound)
        self._journal.write("hold", self._now(), key=key, usd=money_text(bound))

    def _unasked(self) -> Decimal:
        """W of an answer that has just begun by itself: where providers do that, the meter's context counts it in."""
        own = self.bounds.answer_tokens if self.bounds.hold > 1 else 0
        return self.bounds.response(max(0, self._meter.context_tokens - own), self._meter.pending_seconds)

    def _expect(self, key: str) -> None:
        """What the provider heard may cost an answer, known or not. The gate let it be heard while two worst cases were
        free; this is one of them, so it takes nothing from what is free, but it is there when that answer is lost.
        """
        before = list(self._expected).index(key) if key in self._expected else len(self._expected)
        seconds = self._meter.pending_seconds + HEARD_STEP_SECONDS
        self._expected[key] = bound = self.bounds.unheard_of(before, self._meter.context_tokens, seconds)
        self._journal.write("hold", self._now(), key=key, usd=money_text(bound))

    def _rename(self, old: str, new: str) -> None:
        bound = self.account.holds[old]
        self.account = self.account.renamed(old, new)
        self._journal.write("hold", self._now(), key=new, usd=money_text(bound))
        self._journal.write("release", self._now(), key=old)

    def _release(self, key: str) -> None:
        if key in self.account.holds or self._expected.pop(key, None) is not None:
            self.account = self.account.released(key)
            self._journal.write("release", self._now(), key=key)

    def _bill(self, usage: Usage, aside: bool) -> None:
        priced = price_or_bound(usage.meters, self.bounds.rates_of(usage.model))
        if priced.missing:
            logger.error("a billed meter has no price", extra={"meters": [str(meter) for meter in priced.missing]})
        self._journal.write("usage", self._now(), usage=usage.model_dump(mode="json"))
        self._release(usage.key)
        self.account = self.account.billed(usage.key, priced.usd)
        self._queue[usage.key] = usage
        if usage.model == self.bounds.legs.model.model and not aside:
            # By key: a later snapshot takes the place of an earlier one.
            self._audio[usage.key] = audio_tokens(usage.meters)
