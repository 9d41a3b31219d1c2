"""The spool: one append-only file of JSON lines per session beside the agent, so that no usage is lost with a process.

The job process holds an exclusive lock on its file as long as it lives; the kernel releases it however the process
dies. Whoever gets the lock therefore owns a dead session and may replay it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from talktime_ledger.wire import SessionEvent, Unmetered, Usage

SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Leftover:
    """What a dead session still owes the ledger. Times in seconds since the epoch.

    ``reason``: why it ended, when it ended in order and only the ledger was away; None when the process died.
    """

    session: str
    epoch: int
    opened_at: float
    last_at: float
    n: int = 0
    turns: int = 0
    usages: tuple[Usage, ...] = ()
    holds: Mapping[str, Decimal] = field(default_factory=dict)
    events: tuple[SessionEvent, ...] = ()
    reason: str | None = None

    def unmetered(self) -> tuple[Unmetered, ...]:
        """Responses that were open when the process died, at their bound."""
        return tuple(Unmetered(key=key, usd=amount) for key, amount in self.holds.items())


def recover(lines: Iterable[str]) -> Leftover | None:
    """Pure replay of a spool. A torn last line (the process died while writing) is ignored; None without a header."""
    header: dict[str, Any] | None = None
    last_at = 0.0
    n = turns = 0
    usages: dict[str, Usage] = {}
    holds: dict[str, Decimal] = {}
    events: list[SessionEvent] = []
    reason: str | None = None
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        last_at = max(last_at, float(row.get("at", 0.0)))
        match row.get("t"):
            case "open":
                header = row
            case "usage":
                usage = Usage.model_validate(row["usage"])
                usages[usage.key] = usage
            case "sent":
                n = max(n, int(row["n"]))
            case "acked":
                for key in row["keys"]:
                    usages.pop(key, None)
                events = events[int(row.get("events", 0)) :]
            case "hold":
                holds[row["key"]] = Decimal(row["usd"])
            case "release":
                holds.pop(row["key"], None)
            case "turn":
                turns = int(row["turns"])
            case "event":
                events.append(SessionEvent.model_validate(row["event"]))
            case "closed":
                reason = str(row["reason"])
    if header is None:
        return None
    return Leftover(
        session=header["session"],
        epoch=int(header["epoch"]),
        opened_at=float(header["at"]),
        last_at=last_at,
        n=n,
        turns=turns,
        usages=tuple(usages.values()),
        holds=holds,
        events=tuple(events),
        reason=reason,
    )


class Spool:
    """Writer of one session's file. Every write goes to the kernel at once, so it survives the process."""

    def __init__(self, directory: Path, session: str, epoch: int, at: float) -> None:
        """Creates and locks the file. OSError when the directory cannot be written."""
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{session}.{epoch}{SUFFIX}"
        # Locked before it has its name: nobody can take it for an orphan meanwhile.
        unnamed = self.path.with_suffix(f".{os.getpid()}.new")
        self._fd = os.open(unnamed, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.write("open", at, session=session, epoch=epoch)
        unnamed.rename(self.path)

    def write(self, kind: str, at: float, **fields: object) -> None:
        """Appends one line; ``at`` in seconds since the epoch."""
        os.write(self._fd, (json.dumps({"t": kind, "at": at, **fields}) + "\n").encode())

    def finish(self) -> None:
        """The ledger has everything: the file goes."""
        self.path.unlink(missing_ok=True)
        os.close(self._fd)

    def abandon(self) -> None:
        """Leaves the file to the worker main, which replays it."""
        os.close(self._fd)


@dataclass(frozen=True)
class Orphan:
    """A spool whose process is gone, locked by us until ``done`` or ``keep``."""

    path: Path
    leftover: Leftover | None
    fd: int

    def done(self) -> None:
        """Replayed: the file goes."""
        self.path.unlink(missing_ok=True)
        os.close(self.fd)

    def keep(self) -> None:
        """Not yet: another try later."""
        os.close(self.fd)


def orphans(directory: Path) -> Iterator[Orphan]:
    """Spools that nobody holds any more, each locked while it is yielded."""
    if not directory.is_dir():
        return
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        yield Orphan(path, recover(path.read_text(encoding="utf-8").splitlines()), fd)
