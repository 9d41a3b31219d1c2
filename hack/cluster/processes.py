"""Processes that outlive the command that starts them: spawned, recorded by pid and start time, stopped by record."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Record:
    """What is known of a started process. `started` is the kernel's start tick: a reused pid does not match it."""

    name: str
    pid: int
    started: int
    argv: list[str]
    log: str


def start_tick(pid: int) -> int | None:
    """The process's start time in clock ticks since boot, None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def children(pid: int) -> list[int]:
    """Pids of the direct children."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return sorted(found)


def alive(record: Record) -> bool:
    return start_tick(record.pid) == record.started


def read(folder: Path, name: str) -> Record | None:
    try:
        return Record(**json.loads((folder / f"{name}.json").read_text()))
    except FileNotFoundError:
        return None


def recorded(folder: Path) -> list[Record]:
    """All records, in the order in which they were started."""
    records = [Record(**json.loads(path.read_text())) for path in folder.glob("*.json")]
    return sorted(records, key=lambda record: record.started)


def running(folder: Path, name: str) -> Record | None:
    record = read(folder, name)
    return record if record is not None and alive(record) else None


def spawn(folder: Path, name: str, argv: Sequence[str], log: Path, *, forks: bool = False) -> Record:
    """Starts `argv` detached, output appended to `log`.

    `forks`: argv is a wrapper (nsenter or unshare into another process namespace) whose only child is the process
    meant; the child's pid is recorded. Raises RuntimeError with the log's end when the process dies at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, close_fds=True
        )
    pid = process.pid
    if forks:
        deadline = time.monotonic() + 10
        while not (found := children(process.pid)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start:\n{tail(log)}")
            time.sleep(0.01)
        pid = found[0]
    started = start_tick(pid)
    if started is None:
        raise RuntimeError(f"{name} ended at once:\n{tail(log)}")
    record = Record(name=name, pid=pid, started=started, argv=list(argv), log=str(log))
    (folder / f"{name}.json").write_text(json.dumps(asdict(record)))
    return record


def stop(records: Sequence[Record], grace: float = 5.0) -> None:
    """SIGTERM to all, SIGKILL to what is left after `grace` seconds (0: at once); returns when they are gone.

    Records of processes long gone are passed over. The end of a namespace's first process takes a while: the kernel
    ends all others in it first; 30 s are given.
    """
    for sign, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 30.0)):
        if seconds == 0:
            continue
        for record in records:
            if alive(record):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.pid, sign)
        deadline = time.monotonic() + seconds
        while any(alive(record) for record in records) and time.monotonic() < deadline:
            _reap()
            time.sleep(0.02)


def _reap() -> None:
    """Collects ended children of this very process, so that they do not linger as zombies."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def tail(log: Path, lines: int = 15) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"


def wait_until(what: str, ready: Callable[[], bool], *, seconds: float, log: Path | None = None) -> None:
    """Polls `ready`; raises TimeoutError naming `what` and showing the log's end."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            ending = f"\n{tail(log)}\n(log: {log})" if log else ""
            raise TimeoutError(f"{what}: not ready within {seconds:.0f} s{ending}")
        time.sleep(0.1)


def run(argv: Sequence[str], *, stdin: bytes | None = None, folder: Path | None = None) -> str:
    """Runs to the end and returns stdout; raises RuntimeError with the command and its stderr."""
    done = subprocess.run(list(argv), input=stdin, capture_output=True, check=False, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()
