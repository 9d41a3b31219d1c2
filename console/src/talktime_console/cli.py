"""``talktime``: spend, sessions and prices on a terminal, as JSON or as CSV."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from talktime_ledger.client import LedgerClient
from talktime_ledger.wire import ProjectStatus, SpendRow

from . import files, offline, remote
from .problems import CommandError, InputError
from .settings import Settings
from .sittings import sessions_table
from .spending import GROUPS, budget_table, spend_table
from .tables import Output, Table, one_row, render

app = typer.Typer(
    help="Talktime: what interviews cost. Talks to the ledger at TALKTIME_LEDGER_URL with the ServiceAccount token in "
    "TALKTIME_TOKEN_FILE; `price` and `keys` need neither.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys = typer.Typer(help="Access keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")

OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to show it.")]
ProjectOption = Annotated[str | None, typer.Option("--project", "-p", help="One Project, as NAMESPACE/NAME.")]
NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Projects of one namespace.")]
SinceOption = Annotated[str | None, typer.Option("--since", help="From this time or date (UTC), inclusive.")]
UntilOption = Annotated[str | None, typer.Option("--until", help="To this time or date (UTC), exclusive.")]
PlacesOption = Annotated[int, typer.Option("--places", min=2, max=9, help="Decimals of USD.")]

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
    """Spend, average per session, and how far each budget will go. CSV holds the spend."""
    groups = [name.strip() for name in by.split(",") if name.strip()]
    if unknown := [name for name in groups if name not in GROUPS]:
        raise InputError(f"--by {', '.join(unknown)}: only {', '.join(GROUPS)}")
    since, until = _time("--since", since), _time("--until", until)

    async def question(
        client: LedgerClient,
    ) -> tuple[tuple[SpendRow, ...], tuple[SpendRow, ...], list[ProjectStatus]]:
        rows = await remote.spend(client, project, namespace, since, until, ",".join(groups))
        whole = rows if not groups else await remote.spend(client, project, namespace, since, until, "")
        return rows, whole, await remote.statuses(client, project, namespace)

    rows, whole, statuses = remote.ask(Settings(), question)
    _show([spend_table(rows, groups, places), budget_table(statuses, whole, places)], output)


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
    _show([sessions_table(rows, datetime.now(UTC), places)], output)


@app.command()
def price(
    usage: Annotated[Path, typer.Argument(help="JSON or JSON lines of usage, or raw provider events; - is stdin.")],
    rate_card: Annotated[
        list[Path], typer.Option("--rate-card", "-r", help="RateCard YAML, or a directory of them. Repeatable.")
    ],
    model: Annotated[str | None, typer.Option("--model", "-m", help="For usage that names no model.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="Price at this time; else at each usage's own.")] = None,
    vendor: Annotated[str | None, typer.Option("--vendor", help="When several vendors sell the model.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Price usage offline, by the same rules as the ledger. CSV holds the usages."""
    items = offline.items_of(files.usages(usage), str(usage))
    when = None if at is None else offline.moment(at)
    priced = offline.price_items(items, files.rate_cards(rate_card), model, when, vendor)
    _show(offline.priced_tables(priced), output)


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
    _show([one_row("key", kind=kind, sha256=digest)], output)


def _time(option: str, text: str | None) -> str | None:
    """The option as RFC 3339 in UTC."""
    if text is None:
        return None
    try:
        return offline.moment(text).isoformat().replace("+00:00", "Z")
    except InputError as error:
        raise InputError(f"{option}: {error}") from error


def _show(tables: list[Table], output: Output) -> None:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo(render(tables, output, width), nl=False)


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
