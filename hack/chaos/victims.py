"""Whom a fault hits: the process that serves a session, its spool as it stands, its pod, the moment of a response."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hack.chaos.house import House, eventually

WORKER = r"-m talktime_agent start"


@dataclass(frozen=True)
class Spooled:
    """What a job process has written down: keys of responses open at the provider, usages the ledger answered."""

    responding: frozenset[str] = frozenset()
    acked: int = 0


def spooled(lines: Iterable[str]) -> Spooled:
    """Pure. A response has the key `<provider session>/<response id>`; `<item>/0` is a transcription. One whose usage
    is written down is over: whoever finds the spool posts it."""
    open_keys: set[str] = set()
    acked = 0
    for line in lines:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            match row.get("t"):
                case "hold" if "/" in row["key"] and not row["key"].endswith("/0"):
                    open_keys.add(row["key"])
                case "release":
                    open_keys.discard(row["key"])
                case "usage":
                    open_keys.discard(row["usage"]["key"])
                case "acked":
                    acked += len(row["keys"])
    return Spooled(frozenset(open_keys), acked)


@dataclass(frozen=True)
class Victim:
    """The job process of one session: its pid on the machine, its spool (open in that process), its pod's uid."""

    session: str
    pid: int
    spool: Path
    pod_uid: str

    def now(self) -> Spooled:
        """The spool as it stands; empty when the process is gone."""
        try:
            return spooled(self.spool.read_text(encoding="utf-8").splitlines())
        except OSError:
            return Spooled()

    @property
    def lives(self) -> bool:
        return self.spool.exists()


def find(house: House, session: str) -> Victim | None:
    """The process that holds the session's spool open; the worker main, which only looks at it, is not that."""
    wanted = re.compile(rf"/{session}\.\d+\.jsonl$")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            group = (entry / "cgroup").read_text()
            if house.cluster.prefix not in group:
                continue
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if re.search(WORKER, line):
                continue
            for descriptor in (entry / "fd").iterdir():
                if wanted.search(str(descriptor.readlink())):
                    return Victim(session, int(entry.name), descriptor, pod_uid(group))
    return None


def pod_uid(cgroup: str) -> str:
    """The pod's uid in a process's cgroup path; raises LookupError outside of pods."""
    found = re.search(r"/pod([0-9a-f-]{36})(?:/|$)", cgroup)
    if found is None:
        raise LookupError(f"not in a pod: {cgroup}")
    return found[1]


def pod_name(house: House, namespace: str, uid: str) -> str:
    """Raises LookupError when there is no such pod any more."""
    pods = house.kube.json("-n", namespace, "get", "pods")["items"]
    for pod in pods:
        if pod["metadata"]["uid"] == uid:
            return str(pod["metadata"]["name"])
    raise LookupError(f"no pod {uid} in {namespace}")


def serving(house: House, session: str, seconds: float = 180) -> Victim:
    """The session's process once it is there."""
    return eventually(f"an agent serves {session}", lambda: find(house, session), seconds)


def talking(victim: Victim, usages: int = 2, seconds: float = 180) -> None:
    """Waits until the interview is under way: the ledger has answered some of its usage."""
    eventually(f"{victim.session} is under way", lambda: victim.now().acked >= usages, seconds)


def in_the_middle_of_a_response(victim: Victim, seconds: float = 60) -> str:
    """Waits for the beginning of a response at the provider; its key. It is spoken for seconds from now on."""
    before = victim.now().responding

    def begun() -> str | None:
        return next(iter(victim.now().responding - before), None)

    return eventually(f"{victim.session} is being answered", begun, seconds, every=0.05)


def stopped_in_a_response(victim: Victim, tries: int = 5) -> str:
    """The process stands still (SIGSTOP) in the middle of a response; its key. What ends it is to come next.

    On a busy machine the response may be over before the process is stopped: then the next one is waited for.
    """
    for _ in range(tries):
        response = in_the_middle_of_a_response(victim)
        os.kill(victim.pid, signal.SIGSTOP)
        if response in victim.now().responding:
            return response
        os.kill(victim.pid, signal.SIGCONT)
    raise AssertionError(f"{tries} responses of {victim.session} were over before its process could be stopped")
