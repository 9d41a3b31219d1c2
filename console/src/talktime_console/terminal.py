"""What every command of the line shares: its options and how it shows a result."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from .forms import moment
from .problems import InputError
from .tables import Output, Table, render

OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to show it.")]
ProjectOption = Annotated[str | None, typer.Option("--project", "-p", help="One Project, as NAMESPACE/NAME.")]
RateCardOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--rate-card", "-r", help="RateCard YAML, or a directory of them; else the cards shipped with this command."
    ),
]
PlacesOption = Annotated[int, typer.Option("--places", min=2, max=9, help="Decimals of USD.")]


def show(
    tables: Sequence[Table], output: Output, document: Mapping[str, object] | None = None, notes: Sequence[str] = ()
) -> None:
    """Print it. ``notes`` stand under the tables on a terminal only."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo(render(tables, output, width, document), nl=False)
    if output is Output.TABLE:
        for note in notes:
            typer.echo(note)


def examples(*lines: str) -> str:
    """The end of a ``--help``: commands to copy (``\\b`` keeps their lines apart)."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def instant(text: str, option: str) -> datetime:
    """The time given with an option, in UTC."""
    try:
        return moment(text)
    except InputError as error:
        raise InputError(error.cause, field=option) from error
