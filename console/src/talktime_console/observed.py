"""The last sessions from the ledger for commands that do without it too: rows, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from talktime_ledger.wire import SessionRow

from . import remote
from .problems import CommandError
from .settings import Settings

DAYS = 30
MOST_SESSIONS = 10_000


@dataclass(frozen=True)
class Observed:
    """Sessions of the last 30 days, newest first; or ``missing`` says why there are none to look at."""

    rows: tuple[SessionRow, ...] = ()
    missing: str = ""


def observe(settings: Settings, project: str | None, now: datetime, offline: bool) -> Observed:
    """Ask the ledger. Only a Project that was named makes an unreachable ledger an error."""
    remote.project_of(project)
    if offline:
        return Observed(missing="not asked for (--offline)")
    if project is None and not settings.token_file.is_file():
        return Observed(missing=f"no ledger token at {settings.token_file} (TALKTIME_TOKEN_FILE)")
    since = (now - timedelta(days=DAYS)).isoformat().replace("+00:00", "Z")
    try:
        rows = remote.ask(settings, lambda client: remote.sessions(client, project, None, since, None, MOST_SESSIONS))
    except CommandError as error:
        if project is not None:
            raise
        return Observed(missing=str(error))
    return Observed(rows) if rows else Observed(missing=f"no session in the last {DAYS} days")
