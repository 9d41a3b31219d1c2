"""Accounts: one balance row each. Money moves by single statements; a grant is guarded by the budget in its WHERE
clause.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from talktime_ledger.core.money import ZERO
from talktime_ledger.store.database import Connection, Record

COLUMNS = "id, project_id, kind, subject, period, generation, budget, posted, reserved, open_sessions, soft_at"


@dataclass(frozen=True, slots=True)
class Account:
    """One balance, USD."""

    id: int
    project_id: UUID
    kind: str
    subject: str
    period: str
    generation: int
    budget: Decimal
    posted: Decimal
    reserved: Decimal
    open_sessions: int
    soft_at: datetime | None

    @property
    def available(self) -> Decimal:
        """What can still be granted; negative after a lowered budget."""
        return self.budget - self.posted - self.reserved


@dataclass(frozen=True, slots=True)
class Move:
    """One change of a balance, USD. `posted` is spent now, `reserved` added to what is held (negative: taken or
    released). `floor`: a grant needs so much available before it (admission).
    """

    posted: Decimal = ZERO
    reserved: Decimal = ZERO
    sessions: int = 0
    soft_threshold: Decimal | None = None
    floor: Decimal | None = None


def account_of(row: Record) -> Account:
    """A typed account."""
    return Account(*(row[name.strip()] for name in COLUMNS.split(",")))


async def ensure(
    connection: Connection, project_id: UUID, kind: str, subject: str, period: str, generation: int, budget: Decimal
) -> Account:
    """The account, created at the first need with the present budget: the Project's own word, under a shared lock
    (`budget` may have been read before it was lowered).
    """
    find = f"""SELECT {COLUMNS} FROM accounts
               WHERE project_id = $1 AND kind = $2 AND subject = $3 AND period = $4 AND generation = $5"""
    row = await connection.fetchrow(find, project_id, kind, subject, period, generation)
    if row is not None:
        return account_of(row)
    await connection.execute(
        """WITH present AS (SELECT spec->'budget' AS budget FROM projects WHERE id = $1 FOR SHARE),
           amount AS (SELECT COALESCE((CASE $2::text WHEN 'project' THEN budget->>'amount'
                        ELSE budget->'participant'->>'limit' END)::numeric, $6) AS usd FROM present)
           INSERT INTO accounts (project_id, kind, subject, period, generation, budget, ceiling)
           SELECT $1, $2, $3, $4, $5, usd, usd FROM amount ON CONFLICT DO NOTHING""",
        project_id,
        kind,
        subject,
        period,
        generation,
        budget,
    )
    row = await connection.fetchrow(find, project_id, kind, subject, period, generation)
    assert row is not None
    return account_of(row)


async def read(connection: Connection, account_id: int) -> Account:
    """The balance as it is."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM accounts WHERE id = $1", account_id)
    assert row is not None
    return account_of(row)


async def grant(connection: Connection, account_id: int, move: Move) -> Account | None:
    """THE guarded statement: applies the move if the budget covers it, else changes nothing and returns None."""
    row = await connection.fetchrow(
        f"""UPDATE accounts SET posted = posted + $2, reserved = reserved + $3, open_sessions = open_sessions + $4,
                   soft_at = CASE WHEN soft_at IS NULL AND posted + $2 >= $5 THEN NOW() ELSE soft_at END
            WHERE id = $1 AND posted + reserved + $2 + $3 <= budget
              AND ($6::numeric IS NULL OR posted + reserved + $6 <= budget) RETURNING {COLUMNS}""",
        account_id,
        move.posted,
        move.reserved,
        move.sessions,
        move.soft_threshold,
        move.floor,
    )
    return account_of(row) if row else None


async def settle(connection: Connection, account_id: int, move: Move) -> Account:
    """Books what has already happened, without a guard. The ceiling rises only if more was billed than was held."""
    row = await connection.fetchrow(
        f"""UPDATE accounts SET posted = posted + $2, reserved = reserved + $3,
                   open_sessions = open_sessions + $4,
                   ceiling = GREATEST(ceiling, budget, posted + $2 + reserved + $3),
                   soft_at = CASE WHEN soft_at IS NULL AND posted + $2 >= $5 THEN NOW() ELSE soft_at END
            WHERE id = $1 RETURNING {COLUMNS}""",
        account_id,
        move.posted,
        move.reserved,
        move.sessions,
        move.soft_threshold,
    )
    assert row is not None
    return account_of(row)


async def rebudget(connection: Connection, account_id: int, budget: Decimal, soft_threshold: Decimal) -> None:
    """A new budget or soft limit takes effect at once; the soft latch is what these rules make of what is posted."""
    await connection.execute(
        """UPDATE accounts SET budget = $2,
             ceiling = CASE WHEN budget = $2 THEN ceiling ELSE GREATEST($2, posted + reserved) END,
             soft_at = CASE WHEN posted >= $3 THEN COALESCE(soft_at, NOW()) END
           WHERE id = $1""",
        account_id,
        budget,
        soft_threshold,
    )


async def audit(
    connection: Connection,
    project_id: UUID,
    account_id: int | None,
    who: str,
    what: str,
    old: str | None,
    new: str | None,
) -> None:
    """One row about a change of money rules: who, what, old, new."""
    await connection.execute(
        """INSERT INTO budget_audit (project_id, account_id, who, what, old_value, new_value)
           VALUES ($1, $2, $3, $4, $5, $6)""",
        project_id,
        account_id,
        who,
        what,
        old,
        new,
    )
