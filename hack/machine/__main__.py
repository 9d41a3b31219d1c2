"""Makes this machine ready for a task: `python3 -m hack.machine check|images|up|demo|test|browser [--look]`.

Exit 2, with cause and fix and nothing changed, when something cannot be had.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from hack.cluster.layout import REPOSITORY, binaries, state_root
from hack.images import builder
from hack.machine import fetching, installs, preflight
from hack.machine.needs import TASKS

STAMP = REPOSITORY / ".venv" / ".talktime-lock"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m hack.machine", description=__doc__)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--look", action="store_true", help="only say what is missing")
    arguments = parser.parse_args(argv)
    return prepare(arguments.task, look=arguments.look)


def prepare(name: str, *, look: bool = False) -> int:
    task, state, target = TASKS[name], state_root(), binaries()
    missing = preflight.missing_packages(task.packages)
    tools = installs.unbuilt(task.tools, target)
    with_go = bool(tools) or "kubernetes" in task.tools or name == "images"
    in_the_way = preflight.obstacles(task, missing, state, cold=bool(tools))
    in_the_way = in_the_way or fetching.unreachable(state, tools, with_go=with_go, stale=not environment_is_made())
    for obstacle in in_the_way:
        print(f"machine: {obstacle.cause}. Fix: {obstacle.fix}.", file=sys.stderr)
    if in_the_way:
        print("machine: nothing was changed.", file=sys.stderr)
        return 2
    if look:
        building = ", ".join(tool.name for tool in tools) or "none"
        print(f"packages to install: {' '.join(missing) or 'none'}; tools to build: {building}")
        return 0
    try:
        installs.debian(missing)
        environment(state)
        for tool in tools:
            installs.build(tool, target, state)
        if "kubernetes" in task.tools or name == "images":
            builder.pause_program(builder.Workshop(state, target), installs.go(state))
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        print(f"machine: {error}", file=sys.stderr)
        return 1
    return 0


def environment_is_made() -> bool:
    """From this very lock."""
    return STAMP.exists() and STAMP.read_text() == lock_mark()


def lock_mark() -> str:
    files = [REPOSITORY / "requirements.lock", *sorted(REPOSITORY.glob("*/pyproject.toml"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def environment(state: Path) -> None:
    """.venv holds exactly the lock and the members."""
    if environment_is_made():
        return
    path = f"{installs.uv(state)}:{os.environ['PATH']}"
    installs.say("Python packages of the lock into .venv (usually 10 to 60 s)")
    subprocess.run([str(REPOSITORY / "hack" / "lock"), "--install"], check=True, env={**os.environ, "PATH": path})
    STAMP.write_text(lock_mark())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
