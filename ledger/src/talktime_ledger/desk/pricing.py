"""Which prices hold: for new sessions (fail closed) and for what was already billed (post it all the same)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from talktime_ledger.cards import snapshot_core
from talktime_ledger.core.closing_texts import spoken_texts
from talktime_ledger.core.feasibility import Feasibility, judge_feasible
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.pricing import price_or_bound
from talktime_ledger.core.rates import PriceUnknown, RateBook, RateSnapshot
from talktime_ledger.core.resume_texts import resume_text
from talktime_ledger.core.worst_case import Caps, Legs, instruction_tokens_bound
from talktime_ledger.resources.project import AgentSpec, Api, Provider
from talktime_ledger.store import projects
from talktime_ledger.store.database import Connection
from talktime_ledger.store.sessions import SessionState
from talktime_ledger.wire import RateSnapshotWire, Usage

VENDOR = {Api.OPENAI_REALTIME: "openai", Api.GEMINI_LIVE: "google"}
COST_PROVIDER = {Api.OPENAI_REALTIME: "openai_realtime", Api.GEMINI_LIVE: "gemini_live"}
# Worst cases to hold at once: Gemini answers by itself.
HOLD = {Api.OPENAI_REALTIME: 1, Api.GEMINI_LIVE: 2}
REQUIRED = (Meter.TEXT_IN, Meter.AUDIO_IN, Meter.TEXT_OUT, Meter.AUDIO_OUT)
# An agent whose clock jumped does not choose another price.
CLOCK_TOLERANCE = timedelta(minutes=5)
# No interview lasts longer: prices that rise within it are in its worst case from the start.
LONGEST = timedelta(hours=24)


class RateDesk:
    """Keeps the parsed rate cards of the last seen revision (shared by all requests of one process)."""

    def __init__(self) -> None:
        self._seen: tuple[int, RateBook] = (-1, RateBook())

    async def book(self, connection: Connection, revision: int | None = None) -> RateBook:
        """The present cards; asks only for the revision when nothing changed, and not even that when it is given."""
        if revision is None:
            revision = await projects.revision(connection, "rates")
        if revision != self._seen[0]:
            self._seen = await projects.rate_book(connection)
        return self._seen[1]


def legs_for(provider: Provider, book: RateBook, at: datetime) -> Legs:
    """Everything that will bill, at the dearest it may become during a session; PriceUnknown names what is missing."""
    vendor, until = VENDOR[provider.api], at + LONGEST
    model = book.dearest(vendor, provider.model, at, until)
    for meter in REQUIRED:
        model.price(meter)
    transcription = None
    if provider.api is Api.OPENAI_REALTIME and provider.transcription_model:
        transcription = book.dearest(vendor, provider.transcription_model, at, until)
    return Legs(model, transcription)


def feasible(
    provider: Provider,
    agent: AgentSpec,
    instructions: str,
    session_limit: Decimal,
    legs: Legs,
    transport: Decimal = ZERO,
    participant_limit: Decimal | None = None,
) -> Feasibility:
    """W, C and whether the limits carry them, and the transport reserve."""
    texts = spoken_texts(agent.language, agent.wrap_up, agent.closing)
    return judge_feasible(
        legs,
        Caps(provider.caps.context_tokens, provider.caps.response_seconds),
        session_limit=session_limit,
        instruction_tokens=instruction_tokens_bound(
            instructions, (agent.greeting or "", resume_text(agent.language), *texts)
        ),
        closing=texts.closing,
        provider=provider.name,
        hold=HOLD[provider.api],
        transport=transport,
        participant_limit=participant_limit,
    )


@dataclass(frozen=True, slots=True)
class PricedUsage:
    """Cost in USD, the snapshot it was priced with, whether a price had to be assumed, and when it was used."""

    cost_usd: Decimal
    rates: RateSnapshot
    assumed_price: bool
    at: datetime


def price_usage(session: SessionState, usage: Usage, book: RateBook, now: datetime) -> PricedUsage:
    """Prices by the usage's own time; without a card by what the session was opened with, never not at all.

    A time outside the session's (the agent's clock jumped) is moved to the nearer end of it, and chooses no price: if
    the prices changed during the session the dearer one is taken, and the usage is marked as not surely priced.
    """
    earliest, latest = session.opened_at - CLOCK_TOLERANCE, now + CLOCK_TOLERANCE
    at, times = usage.occurred_at, [usage.occurred_at]
    if not earliest <= at <= latest:
        at, times = session.opened_at if at < earliest else now, [session.opened_at, now]
    priced = []
    for time in times:
        rates = _rates(session, usage.model, book, time)
        priced.append((price_or_bound(usage.meters, rates), rates))
    doubtful = len({one.usd for one, _ in priced}) > 1
    cost, rates = max(priced, key=lambda pair: pair[0].usd)
    return PricedUsage(cost.usd, rates, bool(cost.missing) or rates.model != usage.model or doubtful, at)


def _rates(session: SessionState, model: str, book: RateBook, at: datetime) -> RateSnapshot:
    try:
        return book.snapshot(session.vendor, model, at)
    except PriceUnknown:
        opened = [snapshot_core(RateSnapshotWire.model_validate(raw)) for raw in session.rates]
        return next((rates for rates in opened if rates.model == model), opened[0])
