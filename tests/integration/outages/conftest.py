"""The real ledger on a PostgreSQL of our own that can be frozen, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from talktime_ledger.migrate import migrate

from tests.integration.ledger.conftest import (
    OPERATOR,
    TRANSCRIBE,
    Issuer,
    Server,
    Stand,
    free_port,
    project_push,
    rate_card,
    settings_for,
    until_ready,
)


class Postgres:
    """A throw-away server run by user postgres."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="talktime-pg-out-"))
        self._account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self._account:
            os.chown(self._home, self._account.pw_uid, self._account.pw_gid)
        self._binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self._data = self._home / "data"
        self.port = free_port()
        self.dsn = f"postgresql://postgres@127.0.0.1:{self.port}"
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "postgres", "--no-instructions", "--no-sync")
        self.start()

    def start(self) -> None:
        """Returns when it takes connections."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._home} -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-o", options, "-l", self._home / "log", "start")

    def crash(self) -> None:
        """Immediate shutdown: as after a power cut, it recovers from its log."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def freeze(self) -> None:
        """Every process of it stops: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """They go on."""
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """Whatever state it is in."""
        with contextlib.suppress(OSError):
            self.thaw()
        with contextlib.suppress(subprocess.CalledProcessError):
            self.crash()
        shutil.rmtree(self._home, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        main = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for pid in (main, *map(int, children)):
            os.kill(pid, number)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        if self._account:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self._home)


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """One per test: it does not survive them all in good order."""
    server = Postgres()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    """Signs the tokens."""
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture
async def stand(postgres: Postgres, issuer: Issuer) -> AsyncIterator[Stand]:
    """The ledger with one Project `study/limit` of 10 USD, 1 USD a session."""
    connection = await asyncpg.connect(f"{postgres.dsn}/postgres")
    await connection.execute("CREATE DATABASE ledger")
    await connection.close()
    await asyncio.to_thread(migrate, f"{postgres.dsn}/ledger")
    settings = settings_for(f"{postgres.dsn}/ledger", issuer)
    server = Server(settings)
    await server.start()
    result = Stand(f"http://127.0.0.1:{settings.port}", settings.database_url, issuer, server.app)
    await until_ready(result.url)
    operator = result.client(OPERATOR)
    await operator.put_rate_card("mini", rate_card())
    await operator.put_rate_card("transcribe", rate_card("gpt-4o-mini-transcribe", TRANSCRIBE))
    await operator.put_project("study", "limit", project_push())
    yield result
    for client in result.clients:
        await client.aclose()
    await server.stop()
