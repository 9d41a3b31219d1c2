"""``talktime``: spend, sessions and prices on a terminal, as JSON or as CSV."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from talktime_ledger.client import LedgerClient
from talktime_ledger.wire import PlanRow, ProjectStatus, SpendRow

from . import files, prices_cli, reconcile_cli, remote
from .forms import moment
from .problems import CommandError, InputError
from .settings import Settings
from .sittings import sessions_table, with_costs
from .spending import GROUPS, budget_table, plan_table, spend_table
from .tables import Output, one_row
from .terminal import OutputOption, PlacesOption, ProjectOption, show

app = typer.Typer(
    help="Talktime: what interviews cost. Talks to the ledger at TALKTIME_LEDGER_URL with the ServiceAccount token in "
    "TALKTIME_TOKEN_FILE; `price` and `keys` need neither, `compare` and `economics` do without. "
    "Exit codes: 0 done, 1 it could not be done, 2 what was given cannot be used.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys = typer.Typer(help="Access keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")
prices_cli.add_to(app)
reconcile_cli.add_to(app)

NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Projects of one namespace.")]
SinceOption = Annotated[str | None, typer.Option("--since", help="From this time or date (UTC), inclusive.")]
UntilOption = Annotated[str | None, typer.Option("--until", help="To this time or date (UTC), exclusive.")]

_KEY = re.compile(r"^tt[so]_[A-Za-z0-9_\-]{16,200}$")


@app.command()
def report(
    project: ProjectOption = None,
    namespace: NamespaceOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    by: Annotated[str, typer.Option("--by", help="Any of day, provider, model, with commas; empty for one row.")] = (
        "provider,model"
    ),
    output: OutputOption = Output.TABLE,
    places: PlacesOption = 4,
) -> None:
    """Spend, average per session, how far each budget will go, and what is left of the transport plan in each month
    since ``--since`` (else the present one). CSV holds the spend.
    """
    groups = [name.strip() for name in by.split(",") if name.strip()]
    if unknown := [name for name in groups if name not in GROUPS]:
        raise InputError(f"{', '.join(unknown)} is no group", field="--by", fix=f"use {', '.join(GROUPS)}")
    since, until = _time("--since", since), _time("--until", until)

    async def question(
        client: LedgerClient,
    ) -> tuple[tuple[SpendRow, ...], tuple[SpendRow, ...], list[ProjectStatus], tuple[PlanRow, ...]]:
        rows = await remote.spend(client, project, namespace, since, until, ",".join(groups))
        whole = rows if not groups else await remote.spend(client, project, namespace, since, until, "")
        statuses = await remote.statuses(client, project, namespace)
        return rows, whole, statuses, await client.plan_report(since=since, until=until)

    rows, whole, statuses, plan = remote.ask(Settings(), question)
    tables = [spend_table(rows, groups, places), budget_table(statuses, whole, places), plan_table(plan, places)]
    show(tables if plan else tables[:2], output)


@app.command()
def sessions(
    project: ProjectOption = None,
    namespace: NamespaceOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The newest so many.")] = 100,
    output: OutputOption = Output.TABLE,
    places: PlacesOption = 4,
) -> None:
    """Sessions: duration, turns, tokens, AI and transport cost, how each ended."""
    since, until = _time("--since", since), _time("--until", until)
    rows = remote.ask(Settings(), lambda client: remote.sessions(client, project, namespace, since, until, limit))
    table = sessions_table(rows, datetime.now(UTC), places)
    show([table], output, {"sessions": with_costs(table, rows)})


@keys.command("hash")
def hash_key(
    file: Annotated[Path, typer.Argument(help="File with the key; - is stdin. Never an argument: shells remember.")] = (
        Path("-")
    ),
    output: OutputOption = Output.TABLE,
) -> None:
    """The SHA-256 of an access key, as the ledger knows it."""
    key = files.text_of(file).strip()
    if not _KEY.match(key):
        raise InputError("not an access key: they begin with tts_ (server) or tto_ (observer)")
    digest = hashlib.sha256(key.encode()).hexdigest()
    if output is Output.TABLE:
        typer.echo(digest)
        return
    kind = "server" if key.startswith("tts_") else "observer"
    show([one_row("key", kind=kind, sha256=digest)], output)


def _time(option: str, text: str | None) -> str | None:
    """The option as RFC 3339 in UTC."""
    if text is None:
        return None
    try:
        return moment(text).isoformat().replace("+00:00", "Z")
    except InputError as error:
        raise InputError(error.cause, field=option) from error


def main() -> None:
    """Entry point. A fault is one line on stderr: exit code 2 for what was given, 1 for what could not be done."""
    try:
        app()
    except CommandError as error:
        typer.echo(f"talktime: {error}", err=True)
        sys.exit(error.code)
    except BrokenPipeError:
        # `talktime sessions | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
