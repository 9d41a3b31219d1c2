"""Usage events (latest revision each), append-only entries, price snapshots, and the projection session_costs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from talktime_ledger.cards import snapshot_wire
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.rates import RateSnapshot
from talktime_ledger.core.usage import UsageKind
from talktime_ledger.store.database import Connection, Record


@dataclass(frozen=True, slots=True)
class Event:
    """A usage event as stored."""

    id: int
    kind: str
    model: str
    meters: Mapping[Meter, int]
    occurred_at: datetime
    status: str
    unmetered: bool
    cost_usd: Decimal
    epoch: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement of money; `meters` are differences. account_id None: outside every budget."""

    account_id: int | None
    participant_account_id: int | None
    project_id: UUID
    session_id: UUID
    kind: str
    usage_kind: str
    leg: str
    model: str
    meters: Mapping[Meter, int]
    amount_usd: Decimal
    unmetered_usd: Decimal
    occurred_at: datetime
    usage_event_id: int | None = None
    snapshot_id: str | None = None


async def find(connection: Connection, session_id: UUID, key: str) -> Event | None:
    """The stored event under a key."""
    row = await connection.fetchrow(
        """SELECT id, kind, model, meters, occurred_at, status, unmetered, cost_usd, epoch FROM usage_events
           WHERE session_id = $1 AND key = $2""",
        session_id,
        key,
    )
    return _event(row) if row else None


def _event(row: Record) -> Event:
    return Event(
        row["id"],
        row["kind"],
        row["model"],
        {Meter(name): count for name, count in row["meters"].items()},
        row["occurred_at"],
        row["status"],
        row["unmetered"],
        row["cost_usd"],
        row["epoch"],
    )


async def revise(connection: Connection, event_id: int, event: Event, snapshot_id: str | None) -> None:
    """Replaces the latest revision (the difference is a correction entry)."""
    await connection.execute(
        """UPDATE usage_events SET kind = $2, model = $3, meters = $4, occurred_at = $5, status = $6, unmetered = $7,
                  cost_usd = $8, snapshot_id = $9, revision = revision + 1 WHERE id = $1""",
        event_id,
        event.kind,
        event.model,
        dict(event.meters),
        event.occurred_at,
        event.status,
        event.unmetered,
        event.cost_usd,
        snapshot_id,
    )


async def shares(connection: Connection, session_id: UUID, event_id: int) -> list[tuple[int, Decimal]]:
    """Which budgets carry an event's money (it may have been corrected after the month turned), the newest first."""
    rows = await connection.fetch(
        """SELECT account_id, SUM(amount_usd) AS amount FROM entries
           WHERE session_id = $1 AND usage_event_id = $2 AND account_id IS NOT NULL
           GROUP BY account_id ORDER BY MAX(id) DESC""",
        session_id,
        event_id,
    )
    return [(row["account_id"], row["amount"]) for row in rows]


def snapshot_key(rates: RateSnapshot) -> str:
    """Content address of a snapshot."""
    body = snapshot_wire(rates).model_dump_json()
    return hashlib.sha256(body.encode()).hexdigest()[:32]


async def keep_snapshot(connection: Connection, rates: RateSnapshot) -> str:
    """Stores a snapshot once; returns its id."""
    key = snapshot_key(rates)
    await connection.execute(
        """INSERT INTO price_snapshots (id, card, vendor, model, effective_from, body) VALUES ($1, $2, $3, $4, $5, $6)
           ON CONFLICT DO NOTHING""",
        key,
        rates.card,
        rates.vendor,
        rates.model,
        rates.effective_from,
        snapshot_wire(rates).model_dump(mode="json"),
    )
    return key


async def append(connection: Connection, entry: Entry) -> None:
    """One entry; never changed afterwards."""
    await connection.execute(
        """INSERT INTO entries (account_id, participant_account_id, project_id, session_id, kind, usage_kind, leg,
        model,
                                meters, amount_usd, unmetered_usd, occurred_at, usage_event_id, snapshot_id)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)""",
        entry.account_id,
        entry.participant_account_id,
        entry.project_id,
        entry.session_id,
        entry.kind,
        entry.usage_kind,
        entry.leg,
        entry.model,
        dict(entry.meters),
        entry.amount_usd,
        entry.unmetered_usd,
        entry.occurred_at,
        entry.usage_event_id,
        entry.snapshot_id,
    )


COUNTED = (
    "audio_in_tokens",
    "audio_out_tokens",
    "text_tokens",
    "ai_cost_usd",
    "transport_cost",
    "total_cost_usd",
    "audio_in_cached_tokens",
    "text_in_tokens",
    "text_in_cached_tokens",
    "text_out_tokens",
    "thoughts_tokens",
    "other_tokens",
    "transcription_audio_tokens",
    "transcription_text_tokens",
    "transcription_cost_usd",
    "closing_cost_usd",
    "unmetered_usd",
    "responses",
)


def cost_difference(entry: Entry) -> dict[str, int | Decimal]:
    """What an entry adds to each counted column of session_costs.

    audio_in_tokens includes cached; text_tokens = in (cached too) + out. Transcription has columns of its own, so that
    the audio
    the participant spoke is not counted twice.
    """
    get = entry.meters.get
    transport = entry.leg == "transport"
    result: dict[str, int | Decimal] = dict.fromkeys(COUNTED, 0)
    result["transport_cost" if transport else "ai_cost_usd"] = entry.amount_usd
    result["total_cost_usd"] = entry.amount_usd
    result["unmetered_usd"] = entry.unmetered_usd
    if transport:
        return result
    if entry.usage_kind == UsageKind.TRANSCRIPTION:
        result["transcription_audio_tokens"] = get(Meter.AUDIO_IN, 0) + get(Meter.AUDIO_CACHED_IN, 0)
        result["transcription_text_tokens"] = get(Meter.TEXT_IN, 0) + get(Meter.TEXT_OUT, 0)
        result["transcription_cost_usd"] = entry.amount_usd
        return result
    cached_audio, cached_text = get(Meter.AUDIO_CACHED_IN, 0), get(Meter.TEXT_CACHED_IN, 0)
    text_in, text_out = get(Meter.TEXT_IN, 0) + cached_text, get(Meter.TEXT_OUT, 0)
    result |= {
        "audio_in_tokens": get(Meter.AUDIO_IN, 0) + cached_audio,
        "audio_in_cached_tokens": cached_audio,
        "audio_out_tokens": get(Meter.AUDIO_OUT, 0),
        "text_tokens": text_in + text_out,
        "text_in_tokens": text_in,
        "text_in_cached_tokens": cached_text,
        "text_out_tokens": text_out,
        "thoughts_tokens": get(Meter.THOUGHTS_OUT, 0),
        "other_tokens": get(Meter.TOOL_PROMPT_IN, 0)
        + get(Meter.UNASSIGNED_IN, 0)
        + get(Meter.IMAGE_IN, 0)
        + get(Meter.IMAGE_CACHED_IN, 0),
        "responses": 1 if entry.kind == "usage" else 0,
        "closing_cost_usd": entry.amount_usd if entry.usage_kind == UsageKind.CLOSING_RENDER else ZERO,
    }
    return result


COSTS_COLUMNS = ", ".join(COUNTED)
_ADDS = ", ".join(f"{name} = session_costs.{name} + EXCLUDED.{name}" for name in COUNTED)
COSTS_ADD = f"""ON CONFLICT (session_id, provider, model) DO UPDATE SET {_ADDS},
      rate_snapshot = session_costs.rate_snapshot || COALESCE((SELECT jsonb_agg(item)
        FROM jsonb_array_elements(EXCLUDED.rate_snapshot) item
        WHERE NOT session_costs.rate_snapshot @> jsonb_build_array(item)), '[]'::jsonb)"""
_PROJECT_COSTS = f"""INSERT INTO session_costs
      (session_id, project_id, provider, model, rate_snapshot, {COSTS_COLUMNS})
    VALUES ($1, $2, $3, $4, $5, {", ".join(f"${index}" for index in range(6, 6 + len(COUNTED)))})
    {COSTS_ADD}"""


async def project_costs(
    connection: Connection,
    session_id: UUID,
    project_id: UUID,
    provider: str,
    model: str,
    sums: Mapping[str, int | Decimal],
    snapshots: list[dict[str, Any]],
) -> None:
    """Adds to the session's row, created at the first need; rate_snapshot gains those it has not yet."""
    await connection.execute(
        _PROJECT_COSTS, session_id, project_id, provider, model, snapshots, *(sums[name] for name in COUNTED)
    )


_BOOK = f"""WITH kept AS (
      INSERT INTO price_snapshots (id, card, vendor, model, effective_from, body)
      SELECT $11, $12, $13, $14, $15, $16 WHERE $11::text IS NOT NULL ON CONFLICT DO NOTHING),
    made AS (
      INSERT INTO usage_events (session_id, key, kind, model, meters, occurred_at, status, unmetered, cost_usd, epoch,
                                snapshot_id)
      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
      ON CONFLICT (session_id, key) DO NOTHING RETURNING id),
    written AS (
      INSERT INTO entries (account_id, participant_account_id, project_id, session_id, kind, usage_kind, leg, model,
                           meters, amount_usd, unmetered_usd, occurred_at, usage_event_id, snapshot_id)
      SELECT $17, $18, $19, $1, $20, $3, $21, $4, $5, $9, $22, $6, made.id, $11 FROM made),
    projected AS (
      INSERT INTO session_costs (session_id, project_id, provider, model, rate_snapshot, {COSTS_COLUMNS})
      SELECT $1, $19, $23, $24, $25, {", ".join(f"${index}" for index in range(26, 26 + len(COUNTED)))} FROM made
      {COSTS_ADD})
    SELECT id FROM made"""


async def book(
    connection: Connection, key: str, event: Event, entry: Entry, rates: RateSnapshot | None, provider: str, model: str
) -> bool:
    """A new event with its entry, its snapshot and its share of session_costs (of `provider` and the talking `model`),
    in one statement: all or, if the key is already there, nothing (False).
    """
    body = snapshot_wire(rates).model_dump(mode="json") if rates else None
    sums = cost_difference(entry)
    value = await connection.fetchval(
        _BOOK,
        entry.session_id,
        key,
        event.kind,
        event.model,
        dict(event.meters),
        event.occurred_at,
        event.status,
        event.unmetered,
        event.cost_usd,
        event.epoch,
        entry.snapshot_id,
        rates.card if rates else None,
        rates.vendor if rates else None,
        rates.model if rates else None,
        rates.effective_from if rates else None,
        body,
        entry.account_id,
        entry.participant_account_id,
        entry.project_id,
        entry.kind,
        entry.leg,
        entry.unmetered_usd,
        provider,
        model,
        [body] if body else [],
        *(sums[name] for name in COUNTED),
    )
    return value is not None


async def finish_costs(connection: Connection, session_id: UUID, duration_sec: int, turns: int) -> None:
    """Duration and turns, known for sure at the close."""
    await connection.execute(
        "UPDATE session_costs SET duration_sec = $2, turns = $3 WHERE session_id = $1", session_id, duration_sec, turns
    )


async def costs(connection: Connection, session_ids: list[UUID]) -> list[Record]:
    """The cost rows of sessions."""
    rows: list[Record] = await connection.fetch(
        "SELECT * FROM session_costs WHERE session_id = ANY($1) ORDER BY created_at, model", session_ids
    )
    return rows
