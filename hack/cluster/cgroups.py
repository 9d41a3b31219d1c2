"""The cgroup that all pods of a node live in: made before the kubelet starts, removed when the node is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
TIMES = 3
"""A node's share of the processors, in those of one process of the machine. Without it all pods of a node together have
as much as each program that runs beside the cluster: agents then stand still for seconds, which no real node does."""
SHARES = {"cpu.shares": 1024 * TIMES, "cpu.weight": 100 * TIMES}
"""Of cgroup v1 and v2; the first factors are what the kernel gives by itself."""


def controllers() -> list[Path]:
    """Mount points of the hierarchies: one for cgroup v2, one per controller for v1 (and the hybrid's unified one)."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return sorted(path for path in ROOT.iterdir() if path.is_dir() and not path.is_symlink())


def create(name: str) -> None:
    """In every hierarchy; a v1 cpuset starts empty and must be given its parent's processors and memory nodes."""
    for hierarchy in controllers():
        folder = hierarchy / name.lstrip("/")
        folder.mkdir(exist_ok=True)
        for key in ("cpuset.cpus", "cpuset.mems"):
            if (folder / key).exists() and (hierarchy / key).exists() and not (folder / key).read_text().strip():
                (folder / key).write_text((hierarchy / key).read_text())
        for key, share in SHARES.items():
            if (folder / key).exists():
                (folder / key).write_text(str(share))


def delete(name: str) -> None:
    """Kills what is left inside and removes the tree; raises TimeoutError when the kernel keeps it busy for 10 s."""
    for hierarchy in controllers():
        folder = hierarchy / name.lstrip("/")
        deadline = time.monotonic() + 10
        while folder.is_dir():
            with contextlib.suppress(FileNotFoundError):
                for inner, _, _ in os.walk(folder, topdown=False):
                    for pid in (Path(inner) / "cgroup.procs").read_text().split():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(pid), signal.SIGKILL)
                    with contextlib.suppress(OSError):
                        Path(inner).rmdir()
            if folder.is_dir():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"cgroup {folder} is still busy")
                time.sleep(0.05)


def existing(name: str) -> list[Path]:
    return [hierarchy / name.lstrip("/") for hierarchy in controllers() if (hierarchy / name.lstrip("/")).is_dir()]
