"""What a newcomer waits for: clone, `make demo`, `make demo` again, `make test`, each timed, with empty build caches.

Usage: bench/first_run.py [--warm] [--keep]        (root, Debian 12; about an hour and a half)
Clones HEAD of this repository into a temporary folder; Go's and uv's caches start empty unless --warm. Debian packages
that are already installed stay. The last line is `RESULT {json}`: seconds, wall clock, and exit codes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
STEPS = (("demo_first", "demo"), ("demo_second", "demo"), ("down", "down"), ("test", "test"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warm", action="store_true", help="use this user's Go and uv caches")
    parser.add_argument("--keep", action="store_true", help="leave the clone and the logs")
    parser.add_argument("--only", choices=[name for name, _ in STEPS], action="append", default=[])
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="talktime-first-run-"))
    clone = folder / "talktime"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TALKTIME_")}
    if not options.warm:
        caches = {"GOCACHE": "go-build", "GOMODCACHE": "go-modules", "UV_CACHE_DIR": "uv", "PIP_CACHE_DIR": "pip"}
        environment |= {name: str(folder / "caches" / part) for name, part in caches.items()}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=clone, capture_output=True, text=True, check=True
    )
    result: dict[str, object] = {
        "commit": commit.stdout.strip(),
        "caches": "warm" if options.warm else "empty",
        "cores": os.cpu_count(),
    }
    failed = 0
    for name, target in STEPS:
        if options.only and name not in options.only:
            continue
        log = folder / f"{name}.log"
        began = time.monotonic()
        with log.open("wb") as output:
            code = subprocess.run(["make", target], cwd=clone, env=environment, stdout=output, stderr=output).returncode
        result[f"{name}_s"] = round(time.monotonic() - began)
        result[f"{name}_exit"] = code
        print(f"first run: make {target}: exit {code} after {result[f'{name}_s']} s, log {log}", flush=True)
        failed += code != 0
        # An interrupted run keeps what it has measured.
        print(f"RESULT {json.dumps(result)}", flush=True)
    if not options.keep and not failed:
        # Go makes its module cache read-only.
        subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
