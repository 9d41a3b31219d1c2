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
RESULTS = REPOSITORY / "bench" / "results"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Made by `bench/record.py` from `bench/results/`; do not edit. Each script in `bench/` prints its figures as a last line
`RESULT {json}`; `bench/record.py NAME LOG` keeps it. Absolute figures come from small shared machines: compare runs,
not decimals.
"""


def last_result(log: str) -> dict[str, Any]:
    """The figures of the last RESULT line; raises ValueError when there is none."""
    for line in reversed(log.splitlines()):
        if line.startswith("RESULT "):
            found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            return found
    raise ValueError("no line `RESULT {json}`")


def page(kept: dict[str, dict[str, Any]]) -> str:
    """docs/benchmarks.md (pure). `kept`: name to {commit, date, script, figures}."""
    parts = [HEAD]
    for name, one in sorted(kept.items()):
        parts.append(
            f"\n## {name}\n`{one['command']}`, commit {one['commit']}, {one['date']}\n\n| figure | value |\n|---|---|\n"
        )
        parts += [f"| {figure} | {shown(value)} |\n" for figure, value in one["figures"].items()]
    return "".join(parts)


def shown(value: Any) -> str:
    """A figure, or a group of figures in one cell."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)


def kept() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}


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
    fresh = page(kept())
    if arguments == ["--check"]:
        stale = not PAGE.exists() or PAGE.read_text() != fresh
        if stale:
            print("docs/benchmarks.md is stale: run bench/record.py", file=sys.stderr)
        return int(stale)
    PAGE.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
