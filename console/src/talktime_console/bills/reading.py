"""Reads bill files, tells their kind apart, and refuses what is broken before anything is sent."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from talktime_ledger.core.invoice import InvoiceLine

from talktime_console import files
from talktime_console.problems import InputError

from . import google, openai
from .lines import Bill, merged


class Source(StrEnum):
    """Kinds of bills."""

    AUTO = "auto"
    OPENAI_PAGES = "openai-pages"
    OPENAI_CSV = "openai-csv"
    GCP_STANDARD = "gcp-standard"
    GCP_FOCUS = "gcp-focus"


VENDORS = {
    Source.OPENAI_PAGES: "openai",
    Source.OPENAI_CSV: "openai",
    Source.GCP_STANDARD: "google",
    Source.GCP_FOCUS: "google",
}


def bill_of(paths: Sequence[Path], source: Source = Source.AUTO) -> tuple[Bill, str]:
    """The bill in the files and the SHA-256 of them all. InputError names the file and the place."""
    texts = [(str(path), files.text_of(path)) for path in paths]
    kinds = {name: _kind(name, text) if source is Source.AUTO else source for name, text in texts}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{name} is {kind}" for name, kind in kinds.items())
        raise InputError(f"one kind of bill at a time: {told}")
    kind = next(iter(kinds.values()))
    lines = merged(_lines(kind, texts))
    if not lines:
        raise InputError("no line in it", field=texts[0][0])
    digest = hashlib.sha256("\0".join(text for _, text in sorted(texts)).encode()).hexdigest()
    return Bill(VENDORS[kind], " ".join(Path(name).name for name, _ in texts)[:200], lines), digest


def _kind(name: str, text: str) -> Source:
    head = text.lstrip()[:1]
    if head in ("{", "["):
        return Source.OPENAI_PAGES if '"bucket"' in text and '"page"' in text else Source.GCP_STANDARD
    columns = set(text.splitlines()[0].split(",")) if text.strip() else set()
    if "BilledCost" in columns:
        return Source.GCP_FOCUS
    if "cost_type" in columns:
        return Source.GCP_STANDARD
    if "start_time" in columns:
        return Source.OPENAI_CSV
    raise InputError(
        "no bill that is known", field=name, fix=f"say --source {'|'.join(one for one in Source if one != 'auto')}"
    )


def _lines(kind: Source, texts: Sequence[tuple[str, str]]) -> list[InvoiceLine]:
    if kind is Source.OPENAI_PAGES:
        pages: list[tuple[str, Mapping[str, Any]]] = []
        for name, text in texts:
            found = _json(name, text)
            pages += [(name, page) for page in (found if isinstance(found, list) else [found])]
        if any(not isinstance(page, Mapping) for _, page in pages):
            raise InputError("an object is needed", field=texts[0][0])
        return list(openai.page_lines(pages))
    lines: list[InvoiceLine] = []
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for name, text in texts:
        rows += [(name, row) for row in (_objects(name, text) if text.lstrip()[:1] in ("{", "[") else _csv(name, text))]
    whole = " ".join(name for name, _ in texts)
    only = [row for _, row in rows]
    if kind is Source.GCP_STANDARD:
        lines += google.standard_lines(only, whole)
    elif kind is Source.GCP_FOCUS:
        lines += google.focus_lines(only, whole)
    else:
        lines += openai.csv_lines(only, whole)
    return lines


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON, or cut off: {error}", field=name) from error


def _objects(name: str, text: str) -> list[Mapping[str, Any]]:
    if text.lstrip().startswith("["):
        found = _json(name, text)
    else:
        found = [_json(f"{name}: line {n}", line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if any(not isinstance(row, Mapping) for row in found):
        raise InputError("every row is an object", field=name)
    return list(found)


def _csv(name: str, text: str) -> list[Mapping[str, str]]:
    if not text.endswith("\n"):
        raise InputError("cut off: the last line does not end", field=name)
    rows: list[Mapping[str, str]] = []
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        for number, row in enumerate(reader, 2):
            if None in row or None in row.values():
                raise InputError("has more or fewer columns than the header", field=f"{name}: line {number}")
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"not CSV: {error}", field=name) from error
    return rows
