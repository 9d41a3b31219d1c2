"""What the stateful test runs on: one database with a clock of our own, Projects and sessions in it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import asyncpg
from talktime_ledger import wire
from talktime_ledger.desk.errors import GrantRaceError
from talktime_ledger.desk.pricing import RateDesk
from talktime_ledger.desk.snapshots import Snapshots
from talktime_ledger.desk.together import Desk
from talktime_ledger.server.renewals import Renewals
from talktime_ledger.store import projects

from .conftest import TRANSCRIBE, project_push, rate_card
from .lawful_agent import Agent

VALID_SEC, GRACE_SEC = 300, 60
USD = Decimal
AMOUNTS = ("0.04", "0.08", "0.15", "0.3", "0.6")

# The functions come before those of the system where a connection says so: the database's clock is ours.
SKEW = """
CREATE SCHEMA skew;
CREATE TABLE skew.clock (ahead interval NOT NULL);
INSERT INTO skew.clock VALUES ('0');
CREATE FUNCTION skew.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
  'SELECT pg_catalog.clock_timestamp() + ahead FROM skew.clock';
CREATE FUNCTION skew.now() RETURNS timestamptz LANGUAGE sql STABLE AS
  'SELECT pg_catalog.now() + ahead FROM skew.clock';
"""


@dataclass
class World:
    """One database for all examples; each example has Projects of its own."""

    loop: asyncio.AbstractEventLoop
    pool: Any
    rates: RateDesk = field(default_factory=RateDesk)
    renewals: Renewals = field(init=False)
    examples: int = 0
    steps: int = 0
    idle: int = 0
    wrong: list[Exception] = field(default_factory=list)
    transactions: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.renewals = Renewals(self.transaction, Desk(self.rates, projects.Projects(), Snapshots(), VALID_SEC))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """One transaction."""
        self.transactions += 1
        async with self.pool.acquire() as connection, connection.transaction():
            yield connection

    def run(self, work: Awaitable[Any]) -> Any:
        """Waits for it."""
        return self.loop.run_until_complete(work)

    async def do(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """One transaction as the server runs it."""
        for _ in range(25):
            try:
                async with self.transaction() as connection:
                    return await work(connection)
            except (GrantRaceError, asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError) as lost_race:
                self.saw(type(lost_race).__name__)
        raise AssertionError("no end of races")

    def saw(self, what: str) -> None:
        """Counts what happened, so that a run can say what it has been through."""
        self.outcomes[what] = self.outcomes.get(what, 0) + 1


async def _pool(url: str) -> Any:
    from talktime_ledger.store.database import _as_it_is, _prepare

    path = {"search_path": "skew, public, pg_catalog", "timezone": "UTC", "statement_timeout": "20000"}
    return await asyncpg.create_pool(url, min_size=2, max_size=3, init=_prepare, reset=_as_it_is, server_settings=path)


async def prepared(url: str) -> Any:
    connection = await asyncpg.connect(url)
    await connection.execute(SKEW)
    await connection.close()
    pool = await _pool(url)
    async with pool.acquire() as connection:
        cards = {
            "mini": rate_card(),
            "transcribe": rate_card("gpt-4o-mini-transcribe", TRANSCRIBE),
            "here": _transport_card("selfhosted", "20"),
            "cloud": _transport_card("livekit", "40"),
        }
        for name, card in cards.items():
            body = card.model_dump(mode="json", by_alias=True, exclude_none=True)
            await connection.execute("INSERT INTO rate_cards (name, spec) VALUES ($1, $2)", name, body)
        await projects.bump(connection, "rates")
    return pool


def _transport_card(vendor: str, usd_per_million_seconds: str) -> Any:
    # Traffic of the same order: 15,000 bytes are a second of audio.
    prices = {"participant_seconds": usd_per_million_seconds, "egress_bytes": "0.001"}
    card = rate_card("participant", prices)
    return card.model_copy(update={"provider": type(card.provider)(vendor)})


@dataclass
class Interview:
    """One session as gateway and agents know it."""

    id: uuid.UUID
    project: str
    epoch: int = 1
    agents: list[Agent] = field(default_factory=list)
    seconds: int = 0


@dataclass
class Study:
    """A Project's spec as it is pushed."""

    name: str
    amount: str
    limit: str
    floor: str | None = None
    participant: str | None = None
    period: str = "Total"
    generation: int = 1
    transport: bool = False
    outage: str | None = None
    soft: int = 80
    policy: str = "WrapUpIfShort"
    paused: bool = False
    revision: int = 0
    capped: bool = field(init=False)
    """It had a participant limit from the beginning, so all its participants have accounts."""

    def __post_init__(self) -> None:
        self.capped = self.participant is not None

    def push(self) -> wire.ProjectPush:
        """As the operator tells it."""
        self.revision += 1
        session: dict[str, Any] = {"limit": self.limit}
        if self.floor:
            session["admitFloor"] = self.floor
        budget: dict[str, Any] = {
            "session": session,
            "period": self.period,
            "accountGeneration": self.generation,
            "includeTransport": self.transport,
            "softPercent": self.soft,
            "onProjectSoft": self.policy,
        }
        if self.participant:
            budget["participant"] = {"limit": self.participant}
        if self.outage:
            budget["outageReserve"] = self.outage
        return project_push(self.amount, self.limit, generation=self.revision, paused=self.paused, budget=budget)
