"""A table for a terminal, for JSON or for CSV. Money is text all the way: never a float."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.console import Console
from rich.table import Table as RichTable


class Output(StrEnum):
    """How to show it."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True)
class Column:
    """``key`` in JSON and CSV, ``title`` on a terminal; numbers align right."""

    key: str
    title: str
    right: bool = False


Cell = str | int | None


@dataclass(frozen=True)
class Table:
    """Rows of cells in the order of the columns. A None cell is empty (null in JSON)."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None

    def records(self) -> list[dict[str, Cell]]:
        """One mapping per row."""
        return [dict(zip((c.key for c in self.columns), row, strict=True)) for row in self.rows]


def one_row(name: str, **cells: Cell) -> Table:
    """A table of a single row, columns named like the cells."""
    return Table(name, name, tuple(Column(key, key.upper()) for key in cells), (tuple(cells.values()),))


def render(
    tables: Sequence[Table], output: Output, width: int | None = None, document: Mapping[str, object] | None = None
) -> str:
    """The text of all tables. JSON: ``document``, else one object with a list per table. CSV: the first table only."""
    if output is Output.JSON:
        found = {table.name: table.records() for table in tables} if document is None else document
        return json.dumps(found, indent=2) + "\n"
    if output is Output.CSV:
        return _csv(tables[0])
    return "\n".join(_terminal(table, width) for table in tables)


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    writer.writerows([["" if cell is None else _safe(cell) for cell in row] for row in table.rows])
    return text.getvalue()


def _safe(cell: str | int) -> str | int:
    """A spreadsheet would run a text beginning like a formula; names come from people."""
    if isinstance(cell, str) and cell[:1] in "=+@\t\r" and cell:
        return "'" + cell
    return cell


def _terminal(table: Table, width: int | None) -> str:
    shown = RichTable(title=table.title, title_justify="left", show_footer=table.total is not None, highlight=False)
    for index, column in enumerate(table.columns):
        footer = "" if table.total is None or table.total[index] is None else str(table.total[index])
        shown.add_column(column.title, footer=footer, justify="right" if column.right else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*("" if cell is None else str(cell) for cell in row))
    text = io.StringIO()
    # A pipe has no width of its own; folding there would break what people grep for.
    Console(file=text, width=width or 200, markup=False, emoji=False, highlight=False).print(shown)
    return text.getvalue()
