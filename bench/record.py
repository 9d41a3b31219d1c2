"""Keeps a benchmark's result with commit and date, and makes docs/benchmarks.md of all that are kept.

Usage: bench/record.py NAME LOG     takes the last `RESULT {json}` line of LOG into bench/results/NAME.json
       bench/record.py [--check]    writes docs/benchmarks.md; with --check exit 1 when it is stale
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))  # a script's own folder is there, not the repository

from bench import bars  # noqa: E402

RESULTS = REPOSITORY / "bench" / "results"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Made by `bench/record.py` from `bench/results/`; do not edit. Each script in `bench/` prints its figures as a last line
`RESULT {json}`; `bench/record.py NAME LOG` keeps it. Absolute figures come from small shared machines: compare runs,
not decimals. A bar is what the bench's script declares (`BARS`), whether it is met is computed. NAME.PART holds a part
of what NAME measures.
"""


def last_result(log: str) -> dict[str, Any]:
    """The figures of the last RESULT line; raises ValueError when there is none."""
    for line in reversed(log.splitlines()):
        if line.startswith("RESULT "):
            found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            return found
    raise ValueError("no line `RESULT {json}`")


def page(kept: dict[str, dict[str, Any]], declared: dict[str, dict[str, str]]) -> str:
    """docs/benchmarks.md (pure). `kept`: name to {commit, date, command, figures}; `declared`: bench to its bars."""
    parts = [HEAD]
    for name, one in sorted(kept.items()):
        bench, _, part = name.partition(".")
        asked = declared.get(bench, {})
        columns = ("figure", "value", "bar", "met") if asked else ("figure", "value")
        parts.append(f"\n## {name}\n`{one['command']}`, commit {one['commit']}, {one['date']}\n\n")
        parts += [f"| {' | '.join(columns)} |\n", f"|{'---|' * len(columns)}\n"]
        parts += [f"| {' | '.join(row[: len(columns)])} |\n" for row in rows(one["figures"], asked, whole=not part)]
    return "".join(parts)


def rows(figures: dict[str, Any], asked: dict[str, str], *, whole: bool) -> list[tuple[str, str, str, str]]:
    """Figure, value, bar, met. Figures of a group that have a bar stand below it; a bar without a figure is told, too,
    where the `whole` bench is meant to have run."""
    out = []

    def add(path: str) -> None:
        value, bar = bars.figure(figures, path), asked.get(path, "")
        text = "not measured" if value is None and path not in figures else shown(value)
        out.append((path, text, bar, "" if not bar else "yes" if bars.met(value, bar) else "no"))

    for name, value in figures.items():
        add(name)
        if isinstance(value, dict):
            for path in (path for path in asked if path.startswith(f"{name}.")):
                if whole or bars.figure(figures, path) is not None:
                    add(path)
    for path in (path for path in asked if path.partition(".")[0] not in figures):
        if whole:
            add(path)
    return out


def shown(value: Any) -> str:
    """A figure, or a group of figures in one cell."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(part)}" for name, part in value.items()) or "none"
    return str(value)


def kept() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}


def declared() -> dict[str, dict[str, str]]:
    """The bars of each bench that has some."""
    found = {path.stem: bars.declared(path) for path in (REPOSITORY / "bench").glob("*.py")}
    return {name: asked for name, asked in found.items() if asked}


def main(arguments: list[str]) -> int:
    if len(arguments) == 2:
        name, log = arguments
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.strip()
        date = datetime.now(UTC).date().isoformat()
        bench = name.split(".")[0]
        prefix = "bench-" if (REPOSITORY / "bench" / f"{bench}.py").exists() else ""
        command = f"make {prefix}{bench.replace('_', '-')}"
        figures = last_result(Path(log).read_text())
        # What was measured may be older than what is checked out when the result is kept.
        one = {"command": command, "commit": figures.pop("commit", commit), "date": date, "figures": figures}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(one, indent=1) + "\n")
    fresh = page(kept(), declared())
    if arguments == ["--check"]:
        stale = not PAGE.exists() or PAGE.read_text() != fresh
        if stale:
            print("docs/benchmarks.md is stale: run bench/record.py", file=sys.stderr)
        return int(stale)
    PAGE.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
