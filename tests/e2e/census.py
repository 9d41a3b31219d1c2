"""Everything of Talktime that runs on the machine for one cluster, in a pod or, wrongly, not in one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.layout import Cluster
from hack.cluster.network import NAMESPACES, namespaces

PYTHON = r"^(\S*/)?python[\d.]* (-\S+ )*"
PARTS = {
    "operator": rf"{PYTHON}-m talktime_operator",
    "ledger": rf"{PYTHON}-m talktime_ledger serve",
    "gateway": rf"{PYTHON}-m talktime_gateway",
    "agent": rf"{PYTHON}-m talktime_agent start",
    # livekit's forkserver and what it forks: the warm processes, and one for each session.
    "agent's jobs": rf"{PYTHON}.*multiprocessing\.forkserver",
    "simulator": rf"{PYTHON}-m talktime_simulator serve",
    "participants": rf"{PYTHON}-m talktime_simulator participants",
    "console": r"^sleep infinity",
    "SFU": r"^(\S*/)?livekit-server",
}
ANY = re.compile("|".join([*PARTS.values(), rf"{PYTHON}-m talktime_", rf"{PYTHON}.*multiprocessing\."]))


@dataclass(frozen=True)
class Process:
    """`network`: inode of its network namespace. `place`: its command line and environment, as they mention folders."""

    pid: int
    command: str
    cgroup: str
    network: int
    place: str


def look() -> list[Process]:
    """All processes of the machine; one that ends meanwhile is left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            command = words(entry / "cmdline")
            network = (entry / "ns" / "net").stat().st_ino
            place = f"{command} {words(entry / 'environ')}"
            found.append(Process(int(entry.name), command, (entry / "cgroup").read_text(), network, place))
    return found


def words(file: Path) -> str:
    return file.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def spaces(cluster: Cluster) -> set[int]:
    """Inodes of the cluster's own network namespaces; pods have theirs, known by what runs in them."""
    return {(NAMESPACES / name).stat().st_ino for name in namespaces(cluster)}


def of_cluster(processes: Iterable[Process], cluster: Cluster, networks: Collection[int]) -> list[Process]:
    """Talktime's processes that can serve this cluster: in its cgroups, in a network of it, or told of its folder.

    `networks`: as of `spaces`. Others on the machine (tests' own servers, another cluster's) are none of these.
    """
    everything = list(processes)
    inside = {one.network for one in everything if cluster.prefix in one.cgroup} | set(networks)
    folder = re.compile(rf"{re.escape(str(cluster.state))}(/|\s|$)")
    return [
        one
        for one in everything
        if ANY.search(one.command)
        and (cluster.prefix in one.cgroup or one.network in inside or folder.search(one.place))
    ]


def outside_of_pods(processes: Iterable[Process], cluster: Cluster) -> list[Process]:
    pod = re.compile(rf"{cluster.prefix}-n\d[^\n]*/(kubepods|k8s\.io)[^\n]*pod")
    return [one for one in processes if not pod.search(one.cgroup)]


def absent(processes: Sequence[Process]) -> list[str]:
    """Parts that no process is of."""
    return [part for part, command in PARTS.items() if not any(re.search(command, one.command) for one in processes)]
