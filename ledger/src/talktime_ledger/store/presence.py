"""How long people were in rooms, how many rooms there were at once, who may be in one still. Read only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from talktime_ledger.store.database import Connection, Record

# A year of a large installation, read connection by connection.
TIMEOUT_SEC = 60.0
KEYS = {"project": ("namespace", "project"), "pool": ("pool",), "month": ("month",)}
"""What the report can be divided by, with the columns that stand for it."""

# A connection is kept as in `desk.connections.Kept.raw`; how long it lasted and what of that nobody saw is
# `core.transport.Connection`: until `left` when that was told, else until it was surely `gone`, else as far as `seen`.
_FOUND = """
found AS (SELECT p.namespace, p.name AS project, COALESCE(s.media->>'pool', '') AS pool,
                 to_char(s.opened_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month, s.attached_at,
                 COALESCE(s.closed_at, NOW()) AS ended, s.transport_seconds
          FROM sessions s JOIN projects p ON p.id = s.project_id
          WHERE ($1::text IS NULL OR p.namespace = $1) AND ($2::text IS NULL OR p.name = $2)
            AND ($3::timestamptz IS NULL OR s.opened_at >= $3) AND ($4::timestamptz IS NULL OR s.opened_at < $4)),
lasting AS (SELECT f.namespace, f.project, f.pool, f.month, COALESCE((c.value->>'video')::bigint, 0) AS video,
                   COALESCE((c.value->>'bytes')::bigint, 0) AS bytes,
                   COALESCE((c.value->>'cloud')::boolean, FALSE) AS cloud,
                   CASE jsonb_typeof(c.value) WHEN 'number' THEN c.value::bigint
                        ELSE GREATEST((c.value->>'seen')::bigint,
                                      COALESCE((c.value->>'left')::bigint, (c.value->>'gone')::bigint, 0))
                   END AS seconds
            FROM found f CROSS JOIN LATERAL jsonb_each(f.transport_seconds) c),
changes AS (SELECT namespace, project, pool, month, attached_at AS at, 1 AS change
            FROM found WHERE attached_at IS NOT NULL
            UNION ALL SELECT namespace, project, pool, month, ended, -1 FROM found WHERE attached_at IS NOT NULL)
"""


async def presence(
    connection: Connection,
    by: Sequence[str],
    namespace: str | None,
    project: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Sequence[Record]:
    """One row per combination of `by` (of KEYS; none: one row of all) for the sessions opened since..until (exclusive).

    An end counts before a beginning at the same moment, so who follows is not at once with whom he follows.
    """
    columns = [column for key in by for column in KEYS[key]]
    keys = ", ".join(columns) or "1"
    names = "".join(f"{column}, " for column in columns)
    using = ", ".join(columns) or "one"
    one = "" if columns else "1 AS one, "
    await connection.execute(f"SET LOCAL statement_timeout = '{int(TIMEOUT_SEC)}s'")
    found: Sequence[Record] = await connection.fetch(
        f"""WITH {_FOUND},
            talks AS (SELECT {names}{one}COUNT(attached_at) AS sessions,
                             COALESCE(SUM(EXTRACT(EPOCH FROM ended - attached_at))::bigint, 0) AS talk_sec
                      FROM found GROUP BY {using}),
            seconds AS (SELECT {names}{one}COUNT(*) AS connections, SUM(seconds)::bigint AS participant_seconds,
                               COALESCE(SUM(seconds) FILTER (WHERE NOT cloud), 0)::bigint AS selfhosted_seconds,
                               SUM(GREATEST(1, (seconds + 59) / 60))::bigint AS begun_minutes,
                               COALESCE(SUM(GREATEST(1, (seconds + 59) / 60)) FILTER (WHERE NOT cloud), 0)::bigint
                                 AS selfhosted_begun_minutes,
                               SUM(video)::bigint AS video_track_seconds, SUM(bytes)::bigint AS egress_bytes,
                               COALESCE(SUM(bytes) FILTER (WHERE NOT cloud), 0)::bigint AS selfhosted_egress_bytes
                        FROM lasting GROUP BY {using}),
            together AS (SELECT {names}{one}SUM(change) OVER (PARTITION BY {keys} ORDER BY at, change
                                                              ROWS UNBOUNDED PRECEDING) AS at_once FROM changes),
            peaks AS (SELECT {using}, MAX(at_once)::bigint AS peak_sessions FROM together GROUP BY {using})
            SELECT {names}t.sessions, t.talk_sec, COALESCE(p.peak_sessions, 0) AS peak_sessions,
                   COALESCE(c.connections, 0) AS connections, COALESCE(c.participant_seconds, 0) AS participant_seconds,
                   COALESCE(c.selfhosted_seconds, 0) AS selfhosted_seconds,
                   COALESCE(c.begun_minutes, 0) AS begun_minutes,
                   COALESCE(c.selfhosted_begun_minutes, 0) AS selfhosted_begun_minutes,
                   COALESCE(c.video_track_seconds, 0) AS video_track_seconds,
                   COALESCE(c.egress_bytes, 0) AS egress_bytes,
                   COALESCE(c.selfhosted_egress_bytes, 0) AS selfhosted_egress_bytes
            FROM talks t LEFT JOIN seconds c USING ({using}) LEFT JOIN peaks p USING ({using}) ORDER BY {using}""",
        namespace,
        project,
        since,
        until,
        timeout=TIMEOUT_SEC,
    )
    return found


async def unended(connection: Connection) -> Sequence[Record]:
    """Connections whose end nobody told, with their session: id, namespace, project, media, key, value.

    Of sessions opened within two days: none lasts longer than one, and a gateway that is back later than a day after
    its end has to leave it to the vendor's bill. Found by the index of each Project.
    """
    found: Sequence[Record] = await connection.fetch(
        """SELECT s.id, p.namespace, p.name AS project, s.media, c.key, c.value
           FROM projects p JOIN sessions s ON s.project_id = p.id AND s.opened_at > NOW() - INTERVAL '2 days'
                CROSS JOIN LATERAL jsonb_each(s.transport_seconds) c
           WHERE jsonb_typeof(c.value) = 'object' AND c.value ? 'joined_ms' AND NOT c.value ?| ARRAY['gone', 'left']
           ORDER BY s.opened_at, s.id, c.key"""
    )
    return found
