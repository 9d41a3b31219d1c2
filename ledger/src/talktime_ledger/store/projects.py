"""Projects as the operator told them, refusals, provider reports, clips, pools, rate cards, revisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from talktime_ledger.cards import rate_card
from talktime_ledger.core.rates import RateBook
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.store.database import Connection


@dataclass(frozen=True, slots=True)
class Project:
    """A Project as pushed."""

    id: UUID
    namespace: str
    name: str
    uid: str
    generation: int
    paused: bool
    deleted: bool
    spec: ProjectSpec
    instructions: str
    access_keys: list[dict[str, Any]]


PROJECT_NAMES = (
    "id",
    "namespace",
    "name",
    "uid",
    "generation",
    "paused",
    "deleted_at",
    "spec",
    "instructions",
    "access_keys",
)
_COLUMNS = ", ".join(PROJECT_NAMES)


def project_of(row: Mapping[str, Any]) -> Project:
    """A typed Project."""
    return Project(
        row["id"],
        row["namespace"],
        row["name"],
        row["uid"],
        row["generation"],
        row["paused"],
        row["deleted_at"] is not None,
        ProjectSpec.model_validate(row["spec"]),
        row["instructions"],
        row["access_keys"],
    )


async def find(
    connection: Connection, namespace: str, name: str, *, lock: bool = False, share: bool = False
) -> Project | None:
    """By name; deleted ones too. `share`: it stays as it is until the transaction ends; `lock`: and nobody shares."""
    suffix = " FOR NO KEY UPDATE" if lock else " FOR SHARE" if share else ""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM projects WHERE namespace = $1 AND name = $2{suffix}",
        namespace,
        name,
    )
    return project_of(row) if row else None


async def by_id(connection: Connection, project_id: UUID) -> Project:
    """By id."""
    row = await connection.fetchrow(f"SELECT {_COLUMNS} FROM projects WHERE id = $1", project_id)
    assert row is not None
    return project_of(row)


Version = tuple[UUID, int, datetime]
"""A Project's id and what changes with every write of its row (xmin, updated_at)."""


class Projects:
    """Parsed Projects by version, bounded: a spec is validated once per change, not once per call."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._kept: dict[UUID, tuple[Version, Project]] = {}

    async def of(self, connection: Connection, version: Version) -> Project:
        """The Project, at this version or a newer one."""
        kept = self._kept.get(version[0])
        if kept is not None and kept[0] == version:
            return kept[1]
        project = await by_id(connection, version[0])
        if len(self._kept) >= self._most:
            self._kept.clear()
        self._kept[version[0]] = (version, project)
        return project


async def everything(connection: Connection) -> list[Project]:
    """All, by name."""
    rows = await connection.fetch(f"SELECT {_COLUMNS} FROM projects ORDER BY namespace, name")
    return [project_of(row) for row in rows]


async def save(
    connection: Connection,
    namespace: str,
    name: str,
    uid: str,
    generation: int,
    paused: bool,
    spec: dict[str, Any],
    instructions: str,
    access_keys: list[dict[str, Any]],
) -> Project:
    """Inserts or replaces; a deleted Project of the same name is alive again, with its id and so its accounts."""
    row = await connection.fetchrow(
        f"""INSERT INTO projects (namespace, name, uid, generation, paused, spec, instructions, access_keys)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
            ON CONFLICT (namespace, name) DO UPDATE SET uid = $3, generation = $4, paused = $5, spec = $6,
              instructions = $7, access_keys = $8, deleted_at = NULL, updated_at = NOW()
            RETURNING {_COLUMNS}""",
        namespace,
        name,
        uid,
        generation,
        paused,
        spec,
        instructions,
        access_keys,
    )
    assert row is not None
    return project_of(row)


async def mark_deleted(connection: Connection, namespace: str, name: str) -> UUID | None:
    """No new sessions from now on; rows stay."""
    value = await connection.fetchval(
        """UPDATE projects SET deleted_at = COALESCE(deleted_at, NOW()), updated_at = NOW()
           WHERE namespace = $1 AND name = $2 RETURNING id""",
        namespace,
        name,
    )
    return value if isinstance(value, UUID) else None


async def refused(connection: Connection, project_id: UUID, reason: str) -> None:
    """Counts a refusal."""
    await connection.execute(
        """INSERT INTO refusals (project_id, reason, count) VALUES ($1, $2, 1)
           ON CONFLICT (project_id, reason) DO UPDATE SET count = refusals.count + 1, last_at = NOW()""",
        project_id,
        reason,
    )


async def report_provider(
    connection: Connection, project_id: UUID, provider: str, ok: bool, code: str, message: str
) -> bool:
    """Keeps the last report. `since` moves when the code changes and with every refusal: who fixed a key must be told
    from who still has the old one. Returns whether there is something new to know."""
    return bool(
        await connection.fetchval(
            """INSERT INTO provider_reports (project_id, provider, ok, code, message) VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT (project_id, provider) DO UPDATE SET ok = $3, code = $4, message = $5, since = NOW()
               WHERE NOT $3 OR (provider_reports.ok, provider_reports.code) IS DISTINCT FROM ($3, $4)
               RETURNING TRUE""",
            project_id,
            provider,
            ok,
            code,
            message,
        )
    )


async def revision(connection: Connection, name: str) -> int:
    """Version of `rates` or `directory`."""
    value = await connection.fetchval("SELECT value FROM revisions WHERE name = $1", name)
    return int(value)


async def bump(connection: Connection, name: str) -> None:
    """Tells all replicas that their copy is old."""
    await connection.execute("UPDATE revisions SET value = value + 1 WHERE name = $1", name)


async def rate_book(connection: Connection) -> tuple[int, RateBook]:
    """All rate cards with their revision."""
    version = await revision(connection, "rates")
    rows = await connection.fetch("SELECT name, spec FROM rate_cards ORDER BY name")
    return version, RateBook(tuple(rate_card(row["name"], RateCardSpec.model_validate(row["spec"])) for row in rows))
