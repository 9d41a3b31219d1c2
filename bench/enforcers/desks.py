"""The ledger as its callers see it: its desk functions in this process, or its server over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol, TypeVar
from uuid import UUID

import asyncpg  # type: ignore[import-untyped] # ships no types
from talktime_ledger import client, wire
from talktime_ledger.desk import closing, opening, using
from talktime_ledger.desk.errors import DeskError, GrantRaceError
from talktime_ledger.desk.pricing import RateDesk
from talktime_ledger.desk.snapshots import Snapshots
from talktime_ledger.desk.together import Ask
from talktime_ledger.desk.together import Desk as Together
from talktime_ledger.server.hub import Hub
from talktime_ledger.server.renewals import Renewals
from talktime_ledger.server.sweeper import sweep_once
from talktime_ledger.store import sessions
from talktime_ledger.store.database import Connection, Pool
from talktime_ledger.store.projects import Projects
from talktime_ledger.wire import ProblemReason

Result = TypeVar("Result")

VALID_SEC = 300
SWEEP_AFTER_SEC = 60
STARVED = (asyncpg.QueryCanceledError, TimeoutError)
"""The pool's time limits on a machine that has no time for us."""
SWEEP_LOOKS, SWEEP_LOOK_SEC = 300, 0.1
RACES = 25
"""The server's own patience with lost races."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """No session. `available`, `reserved`: as in the row the decision was made on (None: not told), USD."""

    reason: ProblemReason
    available: Decimal
    reserved: Decimal | None


class Desk(Protocol):
    """What gateway and agents ask of the ledger. All of it may be repeated."""

    async def open(self, request: wire.SessionOpen) -> Refusal | None:
        """None: the session is open."""
        ...

    async def attach(self, session: UUID, request: wire.Attach) -> wire.Grant:
        """The agent comes."""
        ...

    async def use(self, session: UUID, request: wire.Use) -> wire.Grant:
        """Posts and renews."""
        ...

    async def close(self, session: UUID, request: wire.Close) -> Decimal:
        """Ends it; USD posted."""
        ...

    async def sweep(self) -> None:
        """What the ledger's own clock does."""
        ...


class _Reader:
    """A connection that remembers the project's balance as the transaction last read it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.row: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetchrow(self, query: str, *args: Any) -> Any:
        row = await self._connection.fetchrow(query, *args)
        if row is not None and "FROM accounts" in query and row["kind"] == "project":
            self.row = row
        return row


class DirectDesk:
    """The desk functions over a pool, as the server calls them: renewals that wait at once are committed together, the
    rest is one transaction each, run again after a lost race.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rates = RateDesk()
        self._hub = Hub("", 1.0)
        self._renewals = Renewals(self._one, Together(self._rates, Projects(), Snapshots(), VALID_SEC))
        self._project: dict[UUID, tuple[str, str]] = {}
        self.transactions = 0
        self.together = 0

    async def open(self, request: wire.SessionOpen) -> Refusal | None:
        """As the protocol says."""
        reader: list[_Reader] = []

        async def work(connection: Connection) -> None:
            seen = _Reader(connection)
            reader[:] = [seen]
            now = await connection.fetchval("SELECT clock_timestamp()")
            book = await self._rates.book(connection)
            await opening.open_session(seen, request, book, now, VALID_SEC)

        try:
            await self._transaction(work)
        except DeskError as error:
            if error.status not in (402, 503):
                raise
            row = reader[0].row
            return Refusal(error.reason, row["budget"] - row["posted"] - row["reserved"], row["reserved"])
        self._project[request.session_id] = (request.namespace, request.project)
        return None

    async def attach(self, session: UUID, request: wire.Attach) -> wire.Grant:
        """As the protocol says."""

        async def work(connection: Connection) -> wire.Grant:
            found = await using.locked(connection, session)
            return (await using.attach(connection, found, request, VALID_SEC)).grant

        return await self._transaction(work)

    async def use(self, session: UUID, request: wire.Use) -> wire.Grant:
        """As the protocol says."""
        with contextlib.suppress(*STARVED):
            answer = await self._renewals.use(self._project[session], Ask(session, request))
            if answer is not None:
                self.together += 1
                return wire.Grant.model_validate_json(answer)

        async def work(connection: Connection) -> wire.Grant | using.Refusal:
            found = await using.locked(connection, session)
            book = await self._rates.book(connection, found.rates_revision)
            result = await using.use(connection, found, request, book, VALID_SEC)
            return result if isinstance(result, wire.Grant | using.Refusal) else result.grant

        result = await self._transaction(work)
        if isinstance(result, using.Refusal):
            raise result.error
        return result

    async def close(self, session: UUID, request: wire.Close) -> Decimal:
        """As the protocol says."""

        async def work(connection: Connection) -> closing.Closed | using.Refusal:
            found = await using.locked(connection, session)
            book = await self._rates.book(connection, found.rates_revision)
            return await closing.close(connection, found, request, book, by_agent=True)

        result = await self._transaction(work)
        if isinstance(result, using.Refusal):
            raise result.error
        return result.session.posted

    async def sweep(self) -> None:
        """As the protocol says."""
        try:
            self.transactions += await sweep_once(self._pool, SWEEP_AFTER_SEC, self._hub)
        except STARVED:
            return  # the next round does it, as in the server

    @asynccontextmanager
    async def _one(self) -> AsyncIterator[Connection]:
        self.transactions += 1
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection

    async def _transaction(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        for _ in range(RACES):
            try:
                async with self._one() as connection:
                    return await work(connection)
            except (GrantRaceError, asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError):
                continue
            except STARVED:
                # The server would answer 5xx, and its client repeat the request.
                continue
        raise DeskError(ProblemReason.UNAVAILABLE, "too much contention, try again")


class HttpDesk:
    """The server through its own client, which repeats a request (same id, same n) until it is answered."""

    def __init__(self, gateway: client.LedgerClient, agent: client.LedgerClient, pool: Pool) -> None:
        """`pool` looks behind the server's back."""
        self._gateway, self._agent, self._pool = gateway, agent, pool
        self.transactions = 0

    async def open(self, request: wire.SessionOpen) -> Refusal | None:
        """As the protocol says."""
        self.transactions += 1
        try:
            await self._gateway.open_session(request)
        except client.Refused as error:
            told = error.problem
            if told is None or told.available is None:
                raise
            return Refusal(told.reason, told.available, None)
        return None

    async def attach(self, session: UUID, request: wire.Attach) -> wire.Grant:
        """As the protocol says."""
        self.transactions += 1
        return (await self._agent.attach(session, request)).grant

    async def use(self, session: UUID, request: wire.Use) -> wire.Grant:
        """As the protocol says."""
        self.transactions += 1
        return await self._agent.use(session, request)

    async def close(self, session: UUID, request: wire.Close) -> Decimal:
        """As the protocol says."""
        self.transactions += 1
        return (await self._agent.close(session, request)).posted

    async def sweep(self) -> None:
        """The server sweeps by itself; virtual time waits until it has."""
        for _ in range(SWEEP_LOOKS):
            async with self._pool.acquire() as connection:
                if not await sessions.overdue(connection, SWEEP_AFTER_SEC):
                    return
            await asyncio.sleep(SWEEP_LOOK_SEC)
