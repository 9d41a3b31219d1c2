"""What the handlers share, handed in through the application's state: no globals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, TypeVar

import asyncpg  # type: ignore[import-untyped] # ships no types
from fastapi import Depends, Request

from talktime_ledger.desk.errors import DeskError, GrantRaceError
from talktime_ledger.desk.pricing import RateDesk
from talktime_ledger.desk.snapshots import Snapshots
from talktime_ledger.desk.together import Desk
from talktime_ledger.server.auth import Caller, KeyRing, Role, caller_of
from talktime_ledger.server.hub import Hub
from talktime_ledger.server.metrics import Metrics
from talktime_ledger.server.renewals import Renewals
from talktime_ledger.server.sealing import Sealer
from talktime_ledger.server.settings import Settings
from talktime_ledger.server.steady import Steady
from talktime_ledger.store.database import Connection, Pool, snapshot
from talktime_ledger.store.projects import Projects
from talktime_ledger.wire import ProblemReason

Result = TypeVar("Result")

# A lost race means another session was served: many in a row are unlikely, endless ones are not waited for.
RACES = 25


@dataclass(slots=True)
class Ledger:
    """The parts of one server process."""

    settings: Settings
    pool: Pool
    keys: KeyRing
    hub: Hub
    rates: RateDesk
    metrics: Metrics
    renewals: Renewals = field(init=False)
    steady: Steady = field(default_factory=Steady)
    sealer: Sealer = field(init=False)

    def __post_init__(self) -> None:
        desk = Desk(self.rates, Projects(), Snapshots(), self.settings.valid_sec)
        self.renewals = Renewals(self.transaction, desk)
        self.sealer = Sealer.of(self.settings.context_keys.get_secret_value())

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction; committed synchronously before the answer is sent."""
        async with self.pool.acquire(timeout=5) as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A transaction whose queries all see the same moment; it writes nothing."""
        async with self.pool.acquire(timeout=5) as connection, snapshot(connection):
            yield connection

    async def racing(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Runs a transaction again when someone else took the money between its reading and its grant."""
        for _ in range(RACES):
            try:
                async with self.transaction() as connection:
                    return await work(connection)
            except (GrantRaceError, asyncpg.DeadlockDetectedError):
                continue
            except asyncpg.UniqueViolationError:
                # Two requests with one session id or usage key: the second reads what the first wrote.
                continue
        raise DeskError(ProblemReason.UNAVAILABLE, "too much contention, try again")


async def clock(connection: Connection) -> datetime:
    """The database's clock."""
    value: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return value


async def ledger_of(request: Request) -> Ledger:
    """The process's parts. A coroutine: the framework takes a plain function to a thread."""
    ledger: Ledger = request.app.state.ledger
    return ledger


async def authenticate(request: Request, ledger: Annotated[Ledger, Depends(ledger_of)]) -> Caller:
    """The caller of a request; DeskError Unauthorized or Forbidden."""
    return await identify(ledger, request.headers.get("authorization", ""))


async def identify(ledger: Ledger, authorization: str) -> Caller:
    """The caller by the Authorization header; DeskError Unauthorized or Forbidden."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise DeskError(ProblemReason.UNAUTHORIZED, "a ServiceAccount token is needed as bearer")
    subject = await ledger.keys.verify(token.strip())
    caller = caller_of(subject, ledger.settings)
    if caller is None:
        raise DeskError(ProblemReason.FORBIDDEN, f"{subject} has no role here")
    return caller


def require(caller: Caller, *roles: Role) -> None:
    """DeskError Forbidden unless the caller has one of the roles."""
    if caller.role not in roles:
        raise DeskError(ProblemReason.FORBIDDEN, f"{caller.role} may not do this")


def require_project(caller: Caller, namespace: str, project: str) -> None:
    """DeskError Forbidden for an agent of another Project."""
    if not caller.may_touch(namespace, project):
        raise DeskError(ProblemReason.FORBIDDEN, f"an agent of {caller.namespace}/{caller.project} may not touch this")


Parts = Annotated[Ledger, Depends(ledger_of)]
Who = Annotated[Caller, Depends(authenticate)]
