"""Talktime on a cluster of its own, as the cluster tests and `make chaos` see it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from hack.cluster.layout import Cluster, binaries
from hack.demo import evidence, release
from hack.demo.kube import Kube, find
from hack.demo.release import NAMESPACE, Images

T = TypeVar("T")


@dataclass(frozen=True)
class House:
    """One installed Talktime: kubectl, the images, the cluster beneath, and a folder for what the journeys record.

    `values`: the Helm values files that it was installed with.
    """

    cluster: Cluster
    kube: Kube
    images: Images
    folder: Path
    values: tuple[Path, ...] = (release.VALUES,)

    def install(self, files: Mapping[str, Path] = MappingProxyType({})) -> None:
        """Installs, or upgrades with the same values. `files`: values whose text is a file's."""
        release.install(self.kube, find(binaries(), "helm"), self.images, values=self.values, files=files)

    def get(self, service: str, port: int, path: str) -> str:
        """The body of a GET to a Service of the release."""
        return evidence.get(self.kube, service, port, path)

    def simulator_log(self) -> list[dict[str, Any]]:
        return evidence.simulator_log(self.kube)

    def truth(self) -> list[dict[str, Any]]:
        """Everything that the simulator has billed, whoever asked for it."""
        return [json.loads(line) for line in self.get("talktime-simulator", 8080, "/truth").splitlines()]

    def prometheus(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Series (labels without `__name__`, sorted) to value, from the Prometheus that scrapes this release."""
        query = urllib.parse.quote(expression)
        answer = json.loads(self.get("talktime-prometheus", 9090, f"/api/v1/query?query={query}"))
        return {
            tuple(sorted((k, v) for k, v in one["metric"].items() if k != "__name__")): float(one["value"][1])
            for one in answer["data"]["result"]
        }

    def project(self, namespace: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.kube.json("--namespace", namespace, "get", "project", name)
        return found

    def condition(self, namespace: str, name: str, kind: str) -> dict[str, Any]:
        """One condition of a Project; `{}` while there is none."""
        conditions: list[dict[str, Any]] = self.project(namespace, name).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Rows of one SELECT on the ledger's database; NUMERIC is Decimal. Raises RuntimeError when it is not there."""
        return evidence.rows(self.kube, query)

    def pids(self, command: str, among: str = "") -> list[int]:
        """Machine pids of processes in this cluster's pods whose command line matches. `among`: part of the cgroup."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                group = (entry / "cgroup").read_text() if re.search(command, line) else ""
                if self.cluster.prefix in group and among in group:
                    found.append(int(entry.name))
        return found

    def kill(self, command: str) -> int:
        """kill -9 of every such process; how many there were."""
        pids = self.pids(command)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    @contextlib.contextmanager
    def simulator_events(self) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """A reader of the simulator's log that keeps one port-forward open."""
        with self.kube.forward(NAMESPACE, "svc/talktime-simulator", 8080) as local:

            def read() -> list[dict[str, Any]]:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{local}/log", timeout=30) as answer:
                        return [json.loads(line) for line in answer.read().decode().splitlines()]
                except OSError:
                    return self.simulator_log()  # kubectl gives up a tunnel at its first broken connection

            yield read


def eventually(what: str, probe: Callable[[], T | None], seconds: float, every: float = 0.5) -> T:
    """The first truthy answer of `probe`; AssertionError naming `what` when there is none in time.

    A probe that cannot ask (RuntimeError of kubectl, OSError of a connection) has no answer yet: on a machine that does
    other things, too, the API server and its tunnels time out now and then.
    """
    deadline = time.monotonic() + seconds
    while True:
        trouble: Exception | None = None
        try:
            found = probe()
        except (RuntimeError, OSError) as error:
            found, trouble = None, error
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}") from trouble
        time.sleep(every)


def open_responses(log: list[dict[str, Any]]) -> int:
    """How many responses are being generated at the end of this log."""
    begun = sum(1 for record in log if record["event"] == "response.created")
    return begun - sum(1 for record in log if record["event"] == "response.done")
