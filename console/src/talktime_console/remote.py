"""Asking the ledger; what went wrong there in one sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from talktime_ledger.client import Invalid, LedgerClient, LedgerError, NotFound, Unauthorized
from talktime_ledger.wire import ProjectStatus, SessionRow, SpendRow, TransportRow

from .problems import CommandError, InputError
from .settings import Settings

T = TypeVar("T")


def ask(settings: Settings, question: Callable[[LedgerClient], Awaitable[T]]) -> T:
    """Run one question. Raises CommandError."""
    if not settings.token_file.is_file():
        raise CommandError(
            f"no token at {settings.token_file}: set TALKTIME_TOKEN_FILE to a file with a ServiceAccount token of "
            "audience talktime-ledger (kubectl create token talktime-console --audience talktime-ledger)"
        )

    async def go() -> T:
        client = LedgerClient(
            settings.ledger_url,
            token_path=settings.token_file,
            timeout_sec=settings.timeout_sec,
            patience_sec=settings.patience_sec,
        )
        async with client:
            return await question(client)

    try:
        return asyncio.run(go())
    except LedgerError as error:
        raise _told(error, settings.ledger_url) from error


def _told(error: LedgerError, url: str) -> CommandError:
    if isinstance(error, Unauthorized):
        return CommandError(f"the ledger at {url} does not accept the token: {error}")
    if isinstance(error, NotFound):
        return CommandError(f"the ledger knows no such project: {error}")
    if isinstance(error, Invalid):
        return InputError(f"the ledger cannot use that: {error}")
    return CommandError(f"the ledger at {url} cannot be reached (TALKTIME_LEDGER_URL): {error}")


def project_of(text: str | None) -> tuple[str | None, str | None]:
    """``ns/name`` as (namespace, name)."""
    if text is None:
        return None, None
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise InputError(f"--project {text!r}: write it as NAMESPACE/NAME")
    return namespace, name


async def spend(
    client: LedgerClient, project: str | None, namespace: str | None, since: str | None, until: str | None, by: str
) -> tuple[SpendRow, ...]:
    """Rows of the spend report."""
    own_namespace, name = project_of(project)
    return await client.spend(namespace=own_namespace or namespace, project=name, since=since, until=until, by=by)


async def statuses(client: LedgerClient, project: str | None, namespace: str | None) -> list[ProjectStatus]:
    """The Projects asked for, deleted ones with money on their account included."""
    own_namespace, name = project_of(project)
    if own_namespace is not None and name is not None:
        return [await client.project(own_namespace, name)]
    return [s for s in await client.projects() if namespace in (None, s.namespace)]


async def sessions(
    client: LedgerClient, project: str | None, namespace: str | None, since: str | None, until: str | None, limit: int
) -> tuple[SessionRow, ...]:
    """Sessions with their cost rows, newest first."""
    own_namespace, name = project_of(project)
    return await client.session_report(
        namespace=own_namespace or namespace, project=name, since=since, until=until, limit=limit
    )


async def pools(client: LedgerClient, since: str) -> tuple[TransportRow, ...]:
    """Participant-minutes and peak of each pool since, whoever used it: its nodes are there for all."""
    return await client.transport_report(since=since, by="pool")


async def transport(client: LedgerClient, project: str | None, since: str) -> TransportRow | None:
    """Participant-minutes and peak of all sessions since; None when there were none."""
    namespace, name = project_of(project)
    rows = await client.transport_report(namespace=namespace, project=name, since=since, by="")
    return rows[0] if rows else None
