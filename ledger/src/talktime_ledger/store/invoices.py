"""What a day has on the books by session, and the writing of a bill's corrections, set by set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.store.database import Connection

# A day of a large installation is more than an API call's worth.
TIMEOUT_SEC = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """One session's part in one day, at one account. `provider`: the Project's name of it; `billing`: the provider's
    own project, if the Project named one at open.
    """

    session_id: UUID
    account_id: int
    participant_account_id: int | None
    project_id: UUID
    provider: str
    billing: str | None


@dataclass(slots=True)
class Sums:
    """USD and counts of a Row under one model; counts by the snapshot they were priced with."""

    estimate: Decimal = ZERO
    unmetered: Decimal = ZERO
    corrected: Decimal = ZERO
    resolved: Decimal = ZERO
    counts: dict[tuple[str | None, Meter], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Correction:
    """What a bill adds to one Row's model, USD; `unmetered` falls by what the bill has told."""

    row: Row
    model: str
    group: str
    day: date
    amount: Decimal
    unmetered: Decimal


def bounds(day: date) -> tuple[datetime, datetime]:
    """The UTC day, its end exclusive."""
    begin = datetime.combine(day, time(), UTC)
    return begin, begin + timedelta(days=1)


def within(day: date) -> datetime:
    """The time that a day's corrections carry."""
    return bounds(day)[1] - timedelta(microseconds=1)


async def patient(connection: Connection) -> None:
    """Gives this transaction the time a bill needs; one bill at a time."""
    await connection.execute(f"SET LOCAL statement_timeout = '{int(TIMEOUT_SEC)}s'")
    await connection.execute("SELECT pg_advisory_xact_lock(7426003)", timeout=TIMEOUT_SEC)


async def booked(connection: Connection, vendor: str, day: date) -> dict[tuple[Row, str], Sums]:
    """By Row and model: what entries of that UTC day say."""
    begin, end = bounds(day)
    found: dict[tuple[Row, str], Sums] = {}
    sums = await connection.fetch(
        """SELECT e.session_id, e.account_id, e.participant_account_id, e.project_id, s.provider,
                  s.billing, e.model, SUM(e.amount_usd) FILTER (WHERE e.kind <> 'invoice') AS estimate,
                  SUM(e.unmetered_usd) FILTER (WHERE e.kind <> 'invoice') AS unmetered,
                  SUM(e.amount_usd) FILTER (WHERE e.kind = 'invoice') AS corrected,
                  SUM(e.unmetered_usd) FILTER (WHERE e.kind = 'invoice') AS resolved
           FROM entries e JOIN sessions s ON s.id = e.session_id
           WHERE e.leg = 'ai' AND e.occurred_at >= $2 AND e.occurred_at < $3 AND s.vendor = $1
           GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 7""",
        vendor,
        begin,
        end,
        timeout=TIMEOUT_SEC,
    )
    for row in sums:
        found[Row(*tuple(row)[:6]), row["model"]] = Sums(
            row["estimate"] or ZERO, row["unmetered"] or ZERO, row["corrected"] or ZERO, row["resolved"] or ZERO
        )
    counts = await connection.fetch(
        """SELECT e.session_id, e.account_id, e.participant_account_id, e.project_id, s.provider,
                  s.billing, e.model, e.snapshot_id, m.key AS meter, SUM(m.value::bigint)::bigint AS count
           FROM entries e JOIN sessions s ON s.id = e.session_id, jsonb_each_text(e.meters) m
           WHERE e.leg = 'ai' AND e.occurred_at >= $2 AND e.occurred_at < $3 AND s.vendor = $1 AND e.kind <> 'invoice'
           GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9""",
        vendor,
        begin,
        end,
        timeout=TIMEOUT_SEC,
    )
    for row in counts:
        found[Row(*tuple(row)[:6]), row["model"]].counts[row["snapshot_id"], Meter(row["meter"])] = row["count"]
    return found


async def counted(connection: Connection, vendor: str, model: str, meter: Meter, since: date, until: date) -> int:
    """What our sessions used of a meter on these UTC days, the last exclusive."""
    count: int = await connection.fetchval(
        """SELECT COALESCE(SUM((e.meters->>$3)::bigint), 0)::bigint
           FROM entries e JOIN sessions s ON s.id = e.session_id
           WHERE e.leg = 'ai' AND e.kind <> 'invoice' AND e.model = $2 AND s.vendor = $1
             AND e.occurred_at >= $4 AND e.occurred_at < $5""",
        vendor,
        model,
        meter.value,
        bounds(since)[0],
        bounds(until)[0],
        timeout=TIMEOUT_SEC,
    )
    return count


async def snapshots(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Bodies of price snapshots by id."""
    rows = await connection.fetch("SELECT id, body FROM price_snapshots WHERE id = ANY($1)", list(ids))
    return {row["id"]: row["body"] for row in rows}


async def keep(
    connection: Connection, vendor: str, source: str, digest: str, final: bool, who: str, lines: Sequence[Sequence[Any]]
) -> int:
    """Stores a bill as it came; lines = (day, billing, item, kind, quantity, amount). Returns its id."""
    number: int = await connection.fetchval(
        "INSERT INTO invoices (vendor, source, digest, final, who) VALUES ($1, $2, $3, $4, $5) RETURNING id",
        vendor,
        source,
        digest,
        final,
        who,
    )
    await connection.copy_records_to_table(
        "invoice_lines",
        records=[(number, *line) for line in lines],
        columns=["invoice_id", "day", "billing", "item", "kind", "quantity", "amount_usd"],
        timeout=TIMEOUT_SEC,
    )
    return number


async def settle_group(
    connection: Connection,
    key: str,
    vendor: str,
    day: date,
    billing: str,
    model: str,
    final: bool,
    amounts: tuple[Decimal, Decimal, Decimal],
    invoice: int,
) -> None:
    """The latest word on a group; amounts = (estimate, billed, unattributed) in USD."""
    await connection.execute(
        """INSERT INTO invoice_groups (key, vendor, day, billing, model, final, estimate_usd, billed_usd,
                                       unattributed_usd, invoice_id)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
           ON CONFLICT (key) DO UPDATE SET final = EXCLUDED.final, estimate_usd = EXCLUDED.estimate_usd,
             billed_usd = EXCLUDED.billed_usd, unattributed_usd = EXCLUDED.unattributed_usd,
             invoice_id = EXCLUDED.invoice_id, settled_at = NOW()""",
        key,
        vendor,
        day,
        billing,
        model,
        final,
        *amounts,
        invoice,
    )


async def correct(connection: Connection, corrections: Sequence[Correction]) -> None:
    """Appends the corrections and moves sessions, costs and accounts along. Sessions before accounts, each in order."""
    if not corrections:
        return
    await connection.copy_records_to_table(
        "entries",
        records=[
            (
                one.row.account_id,
                one.row.participant_account_id,
                one.row.project_id,
                one.row.session_id,
                "invoice",
                "invoice",
                "ai",
                one.model,
                one.amount,
                one.unmetered,
                within(one.day),
                one.group,
            )
            for one in corrections
        ],
        columns=[
            "account_id",
            "participant_account_id",
            "project_id",
            "session_id",
            "kind",
            "usage_kind",
            "leg",
            "model",
            "amount_usd",
            "unmetered_usd",
            "occurred_at",
            "invoice_group",
        ],
        timeout=TIMEOUT_SEC,
    )
    by_session: dict[UUID, list[Decimal]] = {}
    for one in corrections:
        sums = by_session.setdefault(one.row.session_id, [ZERO, ZERO])
        sums[0] += one.amount
        sums[1] += one.unmetered
    ids = sorted(by_session)
    await connection.execute(
        "SELECT 1 FROM sessions WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", ids, timeout=TIMEOUT_SEC
    )
    await connection.execute(
        """UPDATE sessions s SET posted = s.posted + d.amount
           FROM unnest($1::uuid[], $2::numeric[]) AS d(id, amount) WHERE s.id = d.id""",
        ids,
        [by_session[key][0] for key in ids],
        timeout=TIMEOUT_SEC,
    )
    await connection.execute(
        """UPDATE session_costs c SET ai_cost_usd = c.ai_cost_usd + d.amount,
                  total_cost_usd = c.total_cost_usd + d.amount, unmetered_usd = c.unmetered_usd + d.unmetered
           FROM unnest($1::uuid[], $2::numeric[], $3::numeric[]) AS d(id, amount, unmetered)
           WHERE c.session_id = d.id""",
        ids,
        [by_session[key][0] for key in ids],
        [by_session[key][1] for key in ids],
        timeout=TIMEOUT_SEC,
    )
    by_account: dict[int, Decimal] = {}
    for one in corrections:
        for account in (one.row.account_id, one.row.participant_account_id):
            if account is not None:
                by_account[account] = by_account.get(account, ZERO) + one.amount
    await move_accounts(connection, by_account)


async def move_accounts(connection: Connection, amounts: Mapping[int, Decimal]) -> None:
    """Posts what was billed, unguarded: it is a fact, no grant. Grants stop by themselves once nothing is available."""
    ids = sorted(amounts)
    await connection.execute("SELECT 1 FROM accounts WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", ids)
    await connection.execute(
        """UPDATE accounts a SET posted = a.posted + d.amount,
                  ceiling = GREATEST(a.ceiling, a.budget, a.posted + d.amount + a.reserved)
           FROM unnest($1::bigint[], $2::numeric[]) AS d(id, amount) WHERE a.id = d.id""",
        ids,
        [amounts[key] for key in ids],
        timeout=TIMEOUT_SEC,
    )


async def charged(connection: Connection, group: str) -> dict[tuple[UUID, int], Decimal]:
    """What earlier runs have put on accounts under a group without sessions, by Project and account."""
    rows = await connection.fetch(
        """SELECT project_id, account_id, SUM(amount_usd) AS amount FROM entries
           WHERE invoice_group = $1 AND session_id IS NULL GROUP BY 1, 2 ORDER BY 2""",
        group,
    )
    return {(row["project_id"], row["account_id"]): row["amount"] for row in rows}


async def charge(
    connection: Connection, group: str, project_id: UUID, account_id: int, kind: str, day: date, amount: Decimal
) -> None:
    """Puts tax, a credit or the like on a Project's account."""
    await connection.execute(
        """INSERT INTO entries (account_id, project_id, kind, usage_kind, leg, model, amount_usd, occurred_at,
                                invoice_group)
           VALUES ($1, $2, 'invoice', $3, 'ai', '', $4, $5, $6)""",
        account_id,
        project_id,
        kind,
        amount,
        within(day),
        group,
    )
    await move_accounts(connection, {account_id: amount})


async def restate(
    connection: Connection, vendor: str, days: Sequence[date], billings: Mapping[tuple[str, str], str]
) -> None:
    """Sets `state` of the costs of sessions with usage on these days: invoiced when every day and model of theirs has a
    final bill at their billing project, provisional when some bill has spoken. `billings`: (Project id, provider) to
    the billing project of sessions that have kept none.
    """
    begin, end = bounds(min(days))[0], bounds(max(days))[1]
    await connection.execute(
        """WITH touched AS (SELECT DISTINCT e.session_id FROM entries e JOIN sessions s ON s.id = e.session_id
                            WHERE e.occurred_at >= $2 AND e.occurred_at < $3 AND e.leg = 'ai' AND s.vendor = $1
                              AND s.state = 'closed'),
                named AS (SELECT * FROM unnest($4::uuid[], $5::text[], $6::text[]) AS n(project_id, provider, billing)),
                mine AS (SELECT s.id AS session_id, COALESCE(s.billing, n.billing, '') AS billing
                         FROM touched t JOIN sessions s ON s.id = t.session_id
                         LEFT JOIN named n ON n.project_id = s.project_id AND n.provider = s.provider),
                parts AS (SELECT e.session_id, m.billing, (e.occurred_at AT TIME ZONE 'UTC')::date AS day, e.model
                          FROM entries e JOIN mine m USING (session_id)
                          WHERE e.leg = 'ai' AND e.kind <> 'invoice' GROUP BY 1, 2, 3, 4),
                told AS (SELECT p.session_id, bool_or(g.day IS NOT NULL) AS one,
                                bool_and(COALESCE(g.final, FALSE)) AS each
                         FROM parts p LEFT JOIN invoice_groups g
                           ON g.vendor = $1 AND g.day = p.day AND g.billing = p.billing AND g.model = p.model
                         GROUP BY 1),
                now AS (SELECT session_id, CASE WHEN each THEN 'invoiced' WHEN one THEN 'provisional'
                                           ELSE 'estimated' END AS state FROM told)
           UPDATE session_costs c SET state = now.state
           FROM now WHERE c.session_id = now.session_id AND c.state <> now.state""",
        vendor,
        begin,
        end,
        [project for project, _ in billings],
        [provider for _, provider in billings],
        list(billings.values()),
        timeout=TIMEOUT_SEC,
    )


async def over_budget(connection: Connection) -> list[str]:
    """Projects whose account has more posted than its budget, by name."""
    rows = await connection.fetch(
        """SELECT p.namespace || '/' || p.name AS name FROM accounts a JOIN projects p ON p.id = a.project_id
           WHERE a.kind = 'project' AND a.posted > a.budget GROUP BY 1 ORDER BY 1"""
    )
    return [row["name"] for row in rows]
