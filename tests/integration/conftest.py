"""Servers of our own, one each per test session: free ports on loopback, temporary folders, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
POSTGRES_PROGRAMS = (Path("/usr/lib/postgresql/15/bin"), Path("/usr/lib/postgresql/16/bin"))


@dataclass(frozen=True)
class LiveKitServer:
    """A running livekit-server: signal and API at `url` (ws://), its API credentials, its Prometheus metrics."""

    url: str
    api_key: str
    api_secret: str
    metrics_url: str


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(
    argv: Sequence[str], log: Path, ready: Callable[[], bool], stop_with: signal.Signals = signal.SIGTERM
) -> Iterator[None]:
    """A process from when it is ready until the block ends; raises AssertionError with its log when it is not."""
    with log.open("wb") as output:
        process = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not ready():
            ended = process.poll() is not None
            assert not ended and time.monotonic() < deadline, f"{argv[0]} is not ready:\n{log.read_text()[-3000:]}"
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(stop_with)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def postgres_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """DSN of an empty PostgreSQL 15, fsync off, superuser `talktime`. Make databases of your own in it."""
    programs = next((path for path in POSTGRES_PROGRAMS if path.exists()), None)
    found = shutil.which("initdb")
    assert programs or found, "no PostgreSQL: `make test` installs Debian's, or put its programs on PATH"
    programs = programs or Path(str(found)).parent
    folder = Path("/tmp") / f"tt-postgres-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    port, user = free_port(), []
    if os.geteuid() == 0:  # PostgreSQL refuses to be root
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", "--"]
    try:
        initdb = [str(programs / "initdb"), "--pgdata", str(folder / "data"), "--username=talktime", "--auth=trust"]
        subprocess.run([*user, *initdb, "--encoding=UTF8", "--no-sync"], check=True, capture_output=True, cwd=folder)
        options = ["fsync=off", "listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={folder}"]
        options += ["max_connections=200", "log_min_messages=warning"]
        postgres = [str(programs / "postgres"), "-D", str(folder / "data"), *(f"--{option}" for option in options)]
        log = tmp_path_factory.mktemp("postgres") / "log"
        with running([*user, *postgres], log, lambda: accepts(programs, port), stop_with=signal.SIGINT):
            yield f"postgresql://talktime@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def accepts(programs: Path, port: int) -> bool:
    ask = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(ask, check=False).returncode == 0


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a Redis that keeps nothing."""
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with running(argv, folder / "log", lambda: listens(port)):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def livekit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveKitServer]:
    """A livekit-server of the pinned version, alone (no Redis), media over loopback."""
    built = ROOT / ".state" / "bin" / "livekit-server"
    program = str(built) if built.exists() else shutil.which("livekit-server")
    assert program, "no livekit-server: `make test` builds it"
    folder = tmp_path_factory.mktemp("livekit")
    port, tcp, udp, metrics = (free_port() for _ in range(4))
    key, secret = "APItest", "secret-of-at-least-thirty-two-characters"
    rtc = {"tcp_port": tcp, "udp_port": udp, "use_external_ip": False, "enable_loopback_candidate": True}
    config = {
        "port": port,
        "bind_addresses": ["127.0.0.1"],
        "prometheus_port": metrics,
        "keys": {key: secret},
        "logging": {"level": "warn"},
        "rtc": {**rtc, "node_ip": "127.0.0.1", "ips": {"includes": ["127.0.0.1/32"]}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    argv = [program, "--config", str(folder / "config.yaml"), "--node-ip", "127.0.0.1"]
    # SIGTERM would wait for the rooms to empty.
    with running(argv, folder / "log", lambda: listens(port), stop_with=signal.SIGKILL):
        yield LiveKitServer(f"ws://127.0.0.1:{port}", key, secret, f"http://127.0.0.1:{metrics}/metrics")
