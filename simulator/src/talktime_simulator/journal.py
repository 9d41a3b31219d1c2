"""What really happened: records as JSON lines, in memory and, with a directory, on disk across restarts."""

from __future__ import annotations

import json
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Record = dict[str, Any]
MOST = 500_000
"""Records kept in memory per journal: the eldest go first."""


class Journal:
    """Append-only JSON lines; `name`.jsonl in `directory` when there is one."""

    def __init__(self, name: str, directory: Path | None = None) -> None:
        self._file = None if directory is None else directory / f"{name}.jsonl"
        self._records: deque[Record] = deque(maxlen=MOST)
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            if self._file.exists():
                self._records.extend(_whole_lines(self._file.read_text()))

    def append(self, record: Record) -> None:
        self._records.append(record)
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(json.dumps(record) + "\n")

    def records(self) -> list[Record]:
        return list(self._records)

    def reset(self) -> None:
        self._records.clear()
        if self._file is not None:
            self._file.write_text("")


def lines(records: list[Record]) -> str:
    """JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records)


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _whole_lines(text: str) -> list[Record]:
    """A process killed while writing leaves half a line at the end: it was never told to anybody."""
    records: list[Record] = []
    for line in text.splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records
