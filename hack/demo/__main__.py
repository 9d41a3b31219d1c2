"""`make demo`: a cluster, Talktime on it, interviews held through it, and what they cost.

python3 -m hack.demo [--cluster local|kind|current] [--minutes 30]
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from hack.cluster.layout import DEFAULT_NAME, binaries, state_root
from hack.demo import clusters, evidence, release, showing, verdict
from hack.demo.interviews import Held, Round, hold
from hack.demo.kube import Kube, find
from hack.machine.__main__ import prepare

LOCK = Path(tempfile.gettempdir()) / "talktime-real-sessions.lock"
"""The same file as the tests' (tests/conftest.py): two cores carry about four sessions, whoever holds them."""

TASKS = {"local": "demo", "kind": "demo-kind", "current": "demo-current"}
INTERVIEWS = Round(release.STAGE, "interviews", count=6, concurrency=3)
LIMIT = Round(release.STAGE, "limit", count=1, concurrency=1, stay=True)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m hack.demo", description=__doc__)
    parser.add_argument("--cluster", choices=sorted(TASKS), default="local")
    parser.add_argument("--minutes", type=float, help="one interview of this length instead of six short ones")
    options = parser.parse_args(argv)
    if why_not := clusters.obstacle(options.cluster):
        print(f"demo: {why_not}. Nothing was changed.", file=sys.stderr)
        return 2
    prepared = prepare(TASKS[options.cluster])
    if prepared:
        return prepared
    try:
        return demonstrate(options.cluster, options.minutes)
    except (RuntimeError, TimeoutError, OSError, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def demonstrate(cluster: str, minutes: float | None) -> int:
    """0 when every interview was one, the money adds up, and the limit was kept as it should be."""
    began = time.monotonic()
    kube, images = {
        "local": lambda: clusters.local(os.environ.get("CLUSTER_NAME", DEFAULT_NAME)),
        "kind": clusters.by_kind,
        "current": clusters.current,
    }[cluster]()
    rounds = plan(minutes)
    install(kube, images, [wanted.project for wanted in rounds])
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    folder = state_root() / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for other real sessions on this machine to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        held = hold_all(kube, images, rounds, folder)
    adds_up, words, unkept = settled(kube, rounds, held, folder)
    showing.show(kube, since)
    showing.heading("hack/checker.py (the simulator's tokens, priced anew)")
    print(words)
    print(f"\n{showing.where(kube, cluster)}\nRecordings: {folder}")
    for line in unkept:
        say(f"WRONG: {line}")
    failed = sum(one.summary["failed"] for one in held)
    interviews = sum(one.summary["interviews"] for one in held)
    say(f"{interviews} interviews, {failed} with problems, {time.monotonic() - began:.0f} s")
    return 0 if adds_up and not failed and not unkept else 1


def install(kube: Kube, images: release.Images, projects: list[str]) -> None:
    """Talktime and the examples; these Projects Ready and with a budget to spend."""
    say("installing Talktime (helm; usually 20 to 60 s)")
    release.claim(kube)
    release.install(kube, find(binaries(), "helm"), images)
    release.apply_examples(kube)
    for project in projects:
        if release.open_account_again(kube, release.STAGE, project):
            say(f"project {project} was spent by earlier runs: its accountGeneration was raised for a fresh budget")
    say("waiting for the Projects to be Ready (usually 20 to 60 s)")
    release.wait_ready(kube, release.STAGE, *projects)


def plan(minutes: float | None) -> list[Round]:
    """What is held (pure)."""
    if minutes is None:
        return [INTERVIEWS, LIMIT]
    seconds = minutes * 60
    return [Round(release.STAGE, "interviews", count=1, concurrency=1, min_seconds=seconds, max_seconds=seconds + 300)]


def hold_all(kube: Kube, images: release.Images, rounds: list[Round], folder: Path) -> list[Held]:
    """All rounds side by side; the lines of each carry the Project's name."""
    printing = threading.Lock()

    def one(wanted: Round) -> Held:
        def tell(line: str) -> None:
            with printing:
                print(f"{wanted.project:10} {line}", flush=True)

        return hold(kube, images, wanted, folder / wanted.project, tell)

    with ThreadPoolExecutor(len(rounds)) as pool:
        return list(pool.map(one, rounds))


def settled(
    kube: Kube, rounds: list[Round], held: list[Held], folder: Path, seconds: float = 60
) -> tuple[bool, str, list[str]]:
    """The checker's verdict and what was unkept, once the last session's end is in the ledger and amounts have reached
    resource and metrics (every 15 s; Prometheus reads every 5 s)."""
    deadline = time.monotonic() + seconds
    sessions = [session for one in held for session in one.ids]
    while True:
        adds_up, words = showing.money_adds_up(kube, folder / "checker", sessions)
        unkept = [line for wanted, one in zip(rounds, held, strict=True) for line in shortcomings(kube, wanted, one)]
        if (adds_up and not unkept) or time.monotonic() > deadline:
            return adds_up, words, unkept
        time.sleep(5)


def shortcomings(kube: Kube, wanted: Round, held: Held) -> list[str]:
    """Interviews must have been long enough; one that stays to its limit must have been ended by it."""
    if not wanted.stay:
        return verdict.too_little(held.summary["sessions"])
    log = evidence.simulator_log(kube)
    found = {session: evidence.rows(kube, verdict.LIMIT_SESSION.format(session=session)) for session in held.ids}
    return [line for session, rows in found.items() for line in verdict.limit_unkept(session, rows, log)]


def say(line: str) -> None:
    print(f"demo: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
