"""Looks before anything is changed: what is missing on this machine, and what of it cannot be had."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hack.machine.needs import GIB, GO_VERSION, Task


@dataclass(frozen=True)
class Obstacle:
    """Something that cannot be had here, and what to do about it."""

    cause: str
    fix: str


def obstacles(task: Task, missing: list[str], state: Path, cold: bool) -> list[Obstacle]:
    """All at once, so that one look suffices. `missing`: Debian packages to install; `cold`: nothing is built."""
    found: list[Obstacle] = []
    if task.namespaces and os.geteuid() != 0:
        found.append(Obstacle("not root", "run as root (namespaces, mounts and containers need it): sudo make ..."))
    if missing and os.geteuid() != 0:
        found.append(Obstacle(f"missing Debian packages: {' '.join(missing)}", "run as root, or install them first"))
    if missing and not shutil.which("apt-get"):
        found.append(
            Obstacle(f"no apt-get to install {' '.join(missing)}", "Debian 12 is the machine this is made for")
        )
    elif missing and not found:
        found += [
            Obstacle(
                f"Debian package {name} has no candidate in this machine's package lists", "mend /etc/apt/sources.list"
            )
            for name in without_candidate(missing)
        ]
    if task.namespaces and not found:
        found += kernel()
    if platform.machine() not in ("x86_64", "aarch64"):
        found.append(Obstacle(f"processor {platform.machine()}", "x86_64 or aarch64"))
    place = state
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    wanted = task.disk if cold else 3 * GIB
    if free < wanted:
        cause = f"{free / GIB:.1f} GiB free for {state}, {wanted / GIB:.0f} needed"
        found.append(Obstacle(cause, "free some, or move the state: TALKTIME_STATE=/elsewhere"))
    return found


def kernel() -> list[Obstacle]:
    """Namespaces can be made, overlay is there, a cgroup hierarchy is mounted and writable."""
    found = []
    namespaces = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "true"]
    done = subprocess.run(namespaces, capture_output=True, text=True, check=False)
    if done.returncode:
        cause = f"no new mount, process and network namespace: {done.stderr.strip()}"
        found.append(Obstacle(cause, "run on a machine or in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN"))
    if not any(line.split()[-1] == "overlay" for line in Path("/proc/filesystems").read_text().splitlines()):
        loaded = (
            subprocess.run(["modprobe", "overlay"], capture_output=True, check=False)
            if shutil.which("modprobe")
            else None
        )
        if loaded is None or loaded.returncode:
            found.append(Obstacle("the kernel has no overlay file system", "modprobe overlay, or another kernel"))
    if not any(
        os.access(path, os.W_OK) for path in (Path("/sys/fs/cgroup/cgroup.procs"), Path("/sys/fs/cgroup/memory"))
    ):
        found.append(Obstacle("/sys/fs/cgroup is not writable", "mount it writable (docker: --privileged)"))
    return found


def missing_packages(packages: dict[str, str]) -> list[str]:
    """Those whose program or file is not there."""
    return sorted(name for name, proof in packages.items() if not there(name, proof))


def there(package: str, proof: str) -> bool:
    if package == "python3-venv":
        return subprocess.run(["python3", "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0
    return Path(proof).exists() if proof.startswith("/") else shutil.which(proof) is not None


def without_candidate(packages: list[str]) -> list[str]:
    """Asks apt; refreshes its lists once when something is unknown (that changes nothing but the lists)."""
    unknown = unknown_to_apt(packages)
    if unknown:
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
        unknown = unknown_to_apt(packages)
    return unknown


def unknown_to_apt(packages: list[str]) -> list[str]:
    policy = subprocess.run(["apt-cache", "policy", *packages], capture_output=True, text=True, check=False).stdout
    blocks = re.split(r"^(?=\S+:$)", policy, flags=re.MULTILINE)
    known = {block.splitlines()[0].rstrip(":") for block in blocks if block and "Candidate: (none)" not in block}
    return sorted(set(packages) - known)


def go_version(program: str) -> tuple[int, int] | None:
    """(1, 26), or None when that is no Go."""
    try:
        text = subprocess.run([program, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return None
    match = re.match(r"go(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def new_enough(program: str | None) -> bool:
    version = go_version(program) if program else None
    return version is not None and version >= GO_VERSION
