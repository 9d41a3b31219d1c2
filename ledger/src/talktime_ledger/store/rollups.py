"""Daily sums of what was spent, and reports over them plus what has happened since: exact at every moment.

Money is of the UTC day of its usage; a session and its minutes are of the day it was opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from talktime_ledger.store.database import Connection, Record

SUMMED = (
    "ai_cost_usd",
    "transport_cost",
    "total_cost_usd",
    "unmetered_usd",
    "transport_unmetered_usd",
    "audio_in_tokens",
    "audio_out_tokens",
    "text_tokens",
)
COUNTED = ("sessions", "duration_sec", *SUMMED)
KEYS = ("project_id", "day", "provider", "model")
# The first roll-up of an old ledger reads all of it.
ROLL_UP_TIMEOUT_SEC = 600


def _meters(*names: str) -> str:
    return " + ".join(f"COALESCE((e.meters->>'{name}')::bigint, 0)" for name in names)


_TALKED = "e.leg = 'ai' AND e.usage_kind <> 'transcription'"
# What a bill says about no session names its vendor in the group.
_PROVIDER = """CASE COALESCE(s.api, split_part(e.invoice_group, '/', 1))
                    WHEN 'OpenAIRealtime' THEN 'openai_realtime' WHEN 'openai' THEN 'openai_realtime'
                    ELSE 'gemini_live' END"""
_MONEY = f"""SELECT e.project_id, (e.occurred_at AT TIME ZONE 'UTC')::date AS day, {_PROVIDER} AS provider,
                    COALESCE(s.model, e.usage_kind) AS model, 0::bigint AS sessions, 0::bigint AS duration_sec,
                    SUM(e.amount_usd) FILTER (WHERE e.leg = 'ai') AS ai_cost_usd,
                    SUM(e.amount_usd) FILTER (WHERE e.leg = 'transport') AS transport_cost,
                    SUM(e.amount_usd) AS total_cost_usd, SUM(e.unmetered_usd) AS unmetered_usd,
                    SUM(e.unmetered_usd) FILTER (WHERE e.leg = 'transport') AS transport_unmetered_usd,
                    SUM({_meters("audio_in", "audio_cached_in")}) FILTER (WHERE {_TALKED}) AS audio_in_tokens,
                    SUM({_meters("audio_out")}) FILTER (WHERE {_TALKED}) AS audio_out_tokens,
                    SUM({_meters("text_in", "text_cached_in", "text_out")}) FILTER (WHERE {_TALKED}) AS text_tokens
             FROM entries e LEFT JOIN sessions s ON s.id = e.session_id
             WHERE e.tx >= {{after}} {{more}} GROUP BY 1, 2, 3, 4"""
_SESSIONS = """SELECT s.project_id, (s.opened_at AT TIME ZONE 'UTC')::date AS day,
                      CASE s.api WHEN 'OpenAIRealtime' THEN 'openai_realtime' ELSE 'gemini_live' END AS provider,
                      s.model, COUNT(*) AS sessions, SUM(s.duration_sec) AS duration_sec, 0::numeric AS ai_cost_usd,
                      0::numeric AS transport_cost, 0::numeric AS total_cost_usd, 0::numeric AS unmetered_usd,
                      0::numeric AS transport_unmetered_usd,
                      0::bigint AS audio_in_tokens, 0::bigint AS audio_out_tokens, 0::bigint AS text_tokens
               FROM sessions s WHERE {which} GROUP BY 1, 2, 3, 4"""


async def roll_up(connection: Connection) -> None:
    """Adds to the daily sums what every transaction that has ended since has brought. Call it in a transaction."""
    await connection.execute(f"SET LOCAL statement_timeout = '{ROLL_UP_TIMEOUT_SEC}s'")
    through = await connection.fetchval("SELECT through FROM rollup_mark FOR UPDATE", timeout=ROLL_UP_TIMEOUT_SEC)
    horizon = await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    if horizon <= through:
        return
    columns = ", ".join((*KEYS, *COUNTED))
    money = _MONEY.format(after="$1", more="AND e.tx < $2")
    sessions = _SESSIONS.format(which="s.closed_tx >= $1 AND s.closed_tx < $2")
    sums = ", ".join(f"COALESCE(SUM({name}), 0) AS {name}" for name in COUNTED)
    adds = ", ".join(f"{name} = spend_daily.{name} + EXCLUDED.{name}" for name in COUNTED)
    await connection.execute(
        f"""INSERT INTO spend_daily ({columns})
            SELECT {", ".join(KEYS)}, {sums} FROM ({money} UNION ALL {sessions}) new GROUP BY {", ".join(KEYS)}
            ON CONFLICT ({", ".join(KEYS)}) DO UPDATE SET {adds}""",
        through,
        horizon,
        timeout=ROLL_UP_TIMEOUT_SEC,
    )
    await connection.execute("UPDATE rollup_mark SET through = $1", horizon)


async def spend(
    connection: Connection,
    keys: Sequence[str],
    namespace: str | None,
    project: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Sequence[Record]:
    """Sums per Project and `keys` (of day, provider, model) of the UTC days since..until (exclusive).

    Call it in a transaction that sees one moment throughout (`database.snapshot`): a roll-up in between would count
    twice. The mark goes into the query as a number, for the planner to see how little lies behind it.
    """
    through = await connection.fetchval("SELECT through FROM rollup_mark")
    columns = ", ".join((*KEYS, *COUNTED))
    names = ", ".join(("namespace", "project", *keys))
    shown = "".join(f", to_char(x.day, 'YYYY-MM-DD') AS {key}" if key == "day" else f", x.{key}" for key in keys)
    sums = ", ".join(f"COALESCE(SUM(x.{name}), 0) AS {name}" for name in COUNTED)
    groups = ", ".join(str(index) for index in range(1, 3 + len(keys)))
    found: Sequence[Record] = await connection.fetch(
        f"""WITH wanted AS (SELECT id, namespace, name FROM projects
                            WHERE ($1::text IS NULL OR namespace = $1) AND ($2::text IS NULL OR name = $2)),
                 x AS (SELECT {columns} FROM spend_daily WHERE project_id IN (SELECT id FROM wanted)
                         AND ($3::date IS NULL OR day >= $3) AND ($4::date IS NULL OR day < $4)
                       UNION ALL SELECT * FROM ({_MONEY.format(after="$5", more="")}) money
                       UNION ALL SELECT * FROM ({_SESSIONS.format(which="s.closed_tx >= $5")}) closed
                       UNION ALL SELECT * FROM ({_SESSIONS.format(which="s.state = 'open'")}) open)
            SELECT w.namespace, w.name AS project{shown}, {sums} FROM x JOIN wanted w ON w.id = x.project_id
            WHERE ($3::date IS NULL OR x.day >= $3) AND ($4::date IS NULL OR x.day < $4)
            GROUP BY {groups} ORDER BY {names}""",
        namespace,
        project,
        since.date() if since else None,
        until.date() if until else None,
        through,
    )
    return found
