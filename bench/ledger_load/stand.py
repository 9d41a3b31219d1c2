"""Real parts on loopback: Debian's PostgreSQL with fsync, ledger processes, tokens like ServiceAccounts'."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg  # type: ignore[import-untyped] # ships no types

from bench.issuer import ISSUER, Issuer
from bench.ledger_load.load import Agent

MODEL, HEARD = "gpt-realtime-mini", "gpt-4o-mini-transcribe"
TALK = {"text_in": "0.6", "text_cached_in": "0.06", "audio_in": "10", "audio_cached_in": "0.3", "text_out": "2.4"}
PRICES = {MODEL: {**TALK, "audio_out": "20"}, HEARD: {"text_in": "1.25", "audio_in": "3", "text_out": "5"}}
AGENT = "system:serviceaccount:bench:talktime-agent-"
ROLE = "system:serviceaccount:talktime:talktime-"


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def binaries() -> Path:
    """Where PostgreSQL's programs are."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


@dataclass(frozen=True, slots=True)
class Database:
    """A running server: where, its pid, and the folder of its JSON logs."""

    dsn: str
    pid: int
    logs: Path


@contextmanager
def postgres(home: Path) -> Iterator[Database]:
    """A throw-away PostgreSQL that syncs like a real one: fsync and synchronous_commit as they come."""
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    if account:
        os.chown(home, account.pw_uid, account.pw_gid)
    as_postgres = ["runuser", "-u", "postgres", "--"] if account else []
    port, data = free_port(), home / "data"
    initdb = [str(binaries() / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "--no-instructions"]
    subprocess.run([*as_postgres, *initdb], check=True, stdout=subprocess.DEVNULL, cwd=home)
    control = [*as_postgres, str(binaries() / "pg_ctl"), "-D", str(data), "-w", "-t", "60"]
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} "
        "-c logging_collector=on -c log_destination=jsonlog"
    )
    subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd=home)
    try:
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        yield Database(f"postgresql://postgres@127.0.0.1:{port}/postgres", pid, data / "log")
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], stdout=subprocess.DEVNULL, cwd=home, check=False)


@dataclass(frozen=True, slots=True)
class Server:
    """A ledger process."""

    port: int
    pid: int


@contextmanager
def ledgers(dsn: str, issuer: Issuer, count: int) -> Iterator[list[Server]]:
    """Migrated and ready."""
    environment = {
        **os.environ,
        "TALKTIME_DATABASE_URL": dsn,
        "TALKTIME_HOST": "127.0.0.1",
        "TALKTIME_JWT_ISSUER": ISSUER,
        "TALKTIME_JWKS_FILE": str(issuer.jwks_file),
        "TALKTIME_LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "talktime_ledger"]
    subprocess.run([*command, "migrate"], env=environment, check=True)
    with ExitStack() as stack:
        servers = []
        for _ in range(count):
            port = free_port()
            process = subprocess.Popen([*command, "serve"], env={**environment, "TALKTIME_PORT": str(port)})
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            servers.append(Server(port, process.pid))
        asyncio.run(_answering([server.port for server in servers]))
        yield servers


async def _answering(ports: Sequence[int], patience_sec: float = 60.0) -> None:
    deadline = time.monotonic() + patience_sec
    async with aiohttp.ClientSession() as http:
        for port in ports:
            while True:
                try:
                    async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                assert time.monotonic() < deadline, "the ledger did not become ready"
                await asyncio.sleep(0.2)


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its present children."""
    ticks, total = os.sysconf("SC_CLK_TCK"), 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(entry.parent.name) == pid or int(fields[1]) == pid:
            total += int(fields[11]) + int(fields[12])
    return total / ticks


class House:
    """Fills a ledger with prices, Projects and attached sessions."""

    def __init__(self, http: aiohttp.ClientSession, issuer: Issuer) -> None:
        self._http, self._issuer = http, issuer
        self._operator, self._gateway = issuer.token(ROLE + "operator"), issuer.token(ROLE + "gateway")
        self._opened = 0

    async def price(self) -> None:
        """Rate cards."""
        for model, prices in PRICES.items():
            meters = {name: {"usdPerMillion": price} for name, price in prices.items()}
            entry = {"effectiveFrom": "2025-01-01T00:00:00Z", "meters": meters, "source": "bench"}
            card = {"provider": "openai", "model": model, "entries": [{**entry, "checkedAt": "2026-11-01"}]}
            await self._call("PUT", f"/v1/rate-cards/{model}", self._operator, card)

    async def project(self, name: str) -> None:
        """A Project with money enough."""
        text = "Ask about the week. " * 100
        caps = {"contextTokens": 1000, "responseSeconds": 10}
        provider = {"name": "main", "api": "OpenAIRealtime", "model": MODEL, "secretRef": {"name": "k"}, "caps": caps}
        spec = {
            "budget": {"amount": "1000000", "session": {"limit": "10000"}},
            "providers": [provider],
            "agent": {"instructions": text},
            "media": {"poolRef": {"name": "eu"}},
        }
        push = {"uid": "u", "generation": 1, "instructions": text, "spec": spec}
        await self._call("PUT", f"/v1/projects/bench/{name}", self._operator, push)

    async def agents(self, projects: Sequence[str], count: int) -> list[Agent]:
        """Attached sessions, spread over Projects."""
        tokens = {name: self._issuer.token(AGENT + name) for name in projects}
        width = asyncio.Semaphore(8)

        async def one(project: str) -> Agent:
            async with width:
                self._opened += 1
                session_id = f"00000000-0000-4000-8000-{self._opened:012d}"
                opening = {"session_id": session_id, "namespace": "bench", "project": project, "provider": "main"}
                await self._call("POST", "/v1/sessions", self._gateway, opening)
                attach = {"epoch": 1, "worker": f"w{session_id}"}
                await self._call("POST", f"/v1/sessions/{session_id}/attach", tokens[project], attach)
                return Agent(session_id, tokens[project])

        return list(await asyncio.gather(*(one(projects[index % len(projects)]) for index in range(count))))

    async def _call(self, method: str, path: str, token: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        for attempt in range(10):
            async with self._http.request(method, path, headers=headers, json=body) as answer:
                told = await answer.json(content_type=None)
                if answer.status != 503:
                    assert answer.status < 300, (answer.status, told)
                    return told
            # A machine that is busy with something else; all calls can be repeated.
            await asyncio.sleep(attempt)
        raise AssertionError(told)


async def transactions(dsn: str) -> int:
    """A number that grows by one with each transaction that writes, this one too."""
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("SELECT pg_current_xact_id()::text::bigint"))
    finally:
        await connection.close()


async def adds_up(dsn: str, without: str) -> bool:
    """Whether every balance equals its entries and what its sessions hold, and stays under its budget. `without`: the
    Project whose statements were replayed with one answer.
    """
    connection = await asyncpg.connect(dsn)
    try:
        wrong = await connection.fetchval(
            """SELECT COUNT(*) FROM accounts a JOIN projects p ON p.id = a.project_id AND p.name <> $1
               WHERE posted + reserved > budget
               OR posted <> (SELECT COALESCE(SUM(amount_usd), 0) FROM entries e WHERE e.account_id = a.id)
               OR reserved <> (SELECT COALESCE(SUM(reserved), 0) FROM sessions s WHERE s.account_id = a.id)""",
            without,
        )
    finally:
        await connection.close()
    return bool(wrong == 0)
