"""The hot way: sessions of one Project, renewed together. One statement locks and reads them, then one statement per
session writes all there is to write; the writes of several sessions travel in one go.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from talktime_ledger.core.money import wire
from talktime_ledger.store.accounts import COLUMNS as ACCOUNT
from talktime_ledger.store.accounts import Account, Move
from talktime_ledger.store.database import Connection
from talktime_ledger.store.projects import Version
from talktime_ledger.store.sessions import NAMES, SessionState, state_of
from talktime_ledger.store.usages import COSTS_ADD, COSTS_COLUMNS, COUNTED, Entry, Event, cost_difference


@dataclass(frozen=True, slots=True)
class Held:
    """A session under its row lock, and what its renewal depends on. `repeats`: a usage key of the request is known, or
    something was assumed of this epoch.
    """

    session: SessionState
    account: Account
    project: Version
    now: datetime
    rates_revision: int
    repeats: bool


@dataclass(frozen=True, slots=True)
class Booking:
    """One new usage with its entry."""

    key: str
    event: Event
    entry: Entry


@dataclass(frozen=True, slots=True)
class Write:
    """All that one renewal changes. `answer`: the grant as JSON text; `snapshots`: bodies of the prices used."""

    before: SessionState
    after: SessionState
    answer: str
    bookings: Sequence[Booking]
    provider: str
    snapshots: Sequence[object]
    move: Move
    guarded: bool
    participant_move: Move
    participant_guarded: bool


_ACCOUNT = [name.strip() for name in ACCOUNT.split(",")]
_LOCK = f"""SELECT {", ".join(f"s.{name}" for name in NAMES)},
      {", ".join(f"a.{name} AS a_{name}" for name in _ACCOUNT)},
      p.xmin AS p_xmin, p.updated_at AS p_updated_at, clock_timestamp() AS now,
      (SELECT value FROM revisions WHERE name = 'rates') AS rates_revision,
      EXISTS (SELECT FROM usage_events u WHERE u.session_id = s.id AND u.key = ANY($2))
      OR (s.epoch > 1 AND EXISTS (SELECT FROM usage_events u WHERE u.session_id = s.id AND u.key LIKE 'assumed/%'
                                  AND u.epoch = s.epoch AND u.cost_usd > 0)) AS repeats
    FROM sessions s JOIN projects p ON p.id = s.project_id JOIN accounts a ON a.id = s.account_id
    WHERE s.id = ANY($1) AND p.namespace = $3 AND p.name = $4 ORDER BY s.id FOR UPDATE OF s"""


async def lock(
    connection: Connection, names: tuple[str, str], session_ids: Sequence[UUID], keys: Sequence[str]
) -> dict[UUID, Held]:
    """Locks those sessions that the Project (namespace, name) has, in the order of their ids. `keys`: of the usages to
    come, of all sessions: one that has another's key counts as a repeat too, which providers' keys never make happen.
    """
    rows = await connection.fetch(_LOCK, session_ids, keys, *names)
    return {
        row["id"]: Held(
            state_of(row),
            Account(*(row[f"a_{name}"] for name in _ACCOUNT)),
            (row["project_id"], row["p_xmin"], row["p_updated_at"]),
            row["now"],
            row["rates_revision"],
            row["repeats"],
        )
        for row in rows
    }


# The columns a renewal changes, beside last_answer and events.
_RENEWED = (
    "worker",
    "transport_hold_usd",
    "posted",
    "reserved",
    "in_flight",
    "burn_usd_min",
    "last_n",
    "last_use_at",
    "valid_until",
    "attached_at",
    "soft_at",
    "hard_at",
    "wrap_up_at",
    "turns",
    "events",
)
_KEPT = tuple(name for name in NAMES if name not in {*_RENEWED, "last_answer"})
_FIRST_COUNTED = 8
_FIRST_RENEWED = _FIRST_COUNTED + len(COUNTED)
_ANSWER = _FIRST_RENEWED + len(_RENEWED)
_MOVE = _ANSWER + 1
# The account's row is taken last: whoever else wants it waits only for this commit.
_WRITE = f"""WITH given AS (
      SELECT * FROM json_to_recordset($2) AS u(key text, kind text, entry text, model text,
        meters jsonb, occurred_at timestamptz, status text, unmetered boolean, cost_usd numeric, unmetered_usd numeric,
        epoch integer, snapshot_id text)),
    made AS (
      INSERT INTO usage_events (session_id, key, kind, model, meters, occurred_at, status, unmetered, cost_usd, epoch,
                                snapshot_id)
      SELECT $1, key, kind, model, meters, occurred_at, status, unmetered, cost_usd, epoch, snapshot_id FROM given
      RETURNING id, key),
    written AS (
      INSERT INTO entries (account_id, participant_account_id, project_id, session_id, kind, usage_kind, leg, model,
                           meters, amount_usd, unmetered_usd, occurred_at, usage_event_id, snapshot_id)
      SELECT $3, $4, $5, $1, entry, kind, 'ai', model, meters, cost_usd, unmetered_usd, occurred_at, made.id,
             snapshot_id FROM given JOIN made USING (key) RETURNING id),
    projected AS (
      INSERT INTO session_costs (session_id, project_id, provider, model, rate_snapshot, {COSTS_COLUMNS})
      SELECT $1, $5, $6, s.model, $7, {", ".join(f"${_FIRST_COUNTED + index}" for index in range(len(COUNTED)))}
      FROM sessions s WHERE s.id = $1 AND EXISTS (SELECT FROM given)
      {COSTS_ADD} RETURNING id),
    renewed AS (
      UPDATE sessions SET {", ".join(f"{name} = ${_FIRST_RENEWED + index}" for index, name in enumerate(_RENEWED))},
             last_answer = ${_ANSWER}::text::jsonb
      WHERE id = $1 RETURNING id),
    participant AS (
      UPDATE accounts SET posted = posted + ${_MOVE}, reserved = reserved + ${_MOVE + 1},
        ceiling = CASE WHEN ${_MOVE + 2}::boolean THEN ceiling
                       ELSE GREATEST(ceiling, budget, posted + ${_MOVE} + reserved + ${_MOVE + 1}) END
      WHERE id = $4 AND (SELECT COUNT(*) FROM written) >= 0 AND (SELECT COUNT(*) FROM renewed) = 1
        AND (NOT ${_MOVE + 2}::boolean OR posted + reserved + ${_MOVE} + ${_MOVE + 1} <= budget) RETURNING id)
    UPDATE accounts SET posted = posted + ${_MOVE + 3}, reserved = reserved + ${_MOVE + 4},
      ceiling = CASE WHEN ${_MOVE + 5}::boolean THEN ceiling
                     ELSE GREATEST(ceiling, budget, posted + ${_MOVE + 3} + reserved + ${_MOVE + 4}) END,
      soft_at = CASE WHEN soft_at IS NULL AND posted + ${_MOVE + 3} >= ${_MOVE + 6} THEN NOW() ELSE soft_at END
    WHERE id = $3 AND (SELECT COUNT(*) FROM written) >= 0 AND (SELECT COUNT(*) FROM projected) >= 0
      AND (SELECT COUNT(*) FROM renewed) = 1 AND ($4::bigint IS NULL OR EXISTS (SELECT FROM participant))
      AND (NOT ${_MOVE + 5}::boolean OR posted + reserved + ${_MOVE + 3} + ${_MOVE + 4} <= budget)
    RETURNING soft_at"""


def writable(one: Write) -> bool:
    """Whether the statement covers everything that changed."""
    return all(getattr(one.before, name) == getattr(one.after, name) for name in _KEPT)


async def write(connection: Connection, writes: Sequence[Write]) -> bool:
    """Writes renewals in one go, in their order. False if a budget did not cover one of them: the caller must roll
    back. asyncpg.UniqueViolationError if a usage key was there already.
    """
    rows = await connection.fetchmany(_WRITE, [_arguments(one) for one in writes])
    return len(rows) == len(writes)


def _arguments(one: Write) -> tuple[object, ...]:
    after = one.after
    costs: dict[str, int | Decimal] = dict.fromkeys(COUNTED, 0)
    for booking in one.bookings:
        for name, value in cost_difference(booking.entry).items():
            costs[name] += value
    return (
        after.id,
        json.dumps([_row(booking) for booking in one.bookings]),
        after.account_id,
        after.participant_account_id,
        after.project_id,
        one.provider,
        one.snapshots,
        *costs.values(),
        *(getattr(after, name) for name in _RENEWED),
        one.answer,
        one.participant_move.posted,
        one.participant_move.reserved,
        one.participant_guarded,
        one.move.posted,
        one.move.reserved,
        one.guarded,
        one.move.soft_threshold,
    )


def _row(booking: Booking) -> dict[str, object]:
    event, entry = booking.event, booking.entry
    return {
        "key": booking.key,
        "kind": event.kind,
        "entry": entry.kind,
        "model": event.model,
        "meters": dict(event.meters),
        "occurred_at": event.occurred_at.isoformat(),
        "status": event.status,
        "unmetered": event.unmetered,
        "cost_usd": wire(event.cost_usd),
        "unmetered_usd": wire(entry.unmetered_usd),
        "epoch": event.epoch,
        "snapshot_id": entry.snapshot_id,
    }
