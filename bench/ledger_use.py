"""How many `use` calls a second one ledger process answers, on one hot Project and over many.

Real parts: Debian's PostgreSQL with fsync, the ledger as a process of its own, HTTP with ServiceAccount-like tokens.
Every call posts one metered response and renews the grant. Last line: `RESULT {json}`; latencies in ms, CPU in ms per
call (on a shared machine the more honest figure). At the end the balances are recomputed from the entries.

    python bench/ledger_use.py --seconds 10 --clients 16 --projects 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg  # type: ignore[import-untyped] # ships no types
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER = "https://bench.local"
MODEL, HEARD = "gpt-realtime-mini", "gpt-4o-mini-transcribe"
TALK = {"text_in": "0.6", "text_cached_in": "0.06", "audio_in": "10", "audio_cached_in": "0.3", "text_out": "2.4"}
PRICES = {MODEL: {**TALK, "audio_out": "20"}, HEARD: {"text_in": "1.25", "audio_in": "3", "text_out": "5"}}
METERS = {"audio_in": 50, "audio_cached_in": 200, "text_in": 20, "text_cached_in": 100, "audio_out": 100}
AGENT = "system:serviceaccount:bench:talktime-agent-"
ROLE = "system:serviceaccount:talktime:talktime-"


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def postgres(home: Path) -> Iterator[tuple[str, int]]:
    """DSN and pid of a throw-away PostgreSQL that syncs like a real one."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    if account:
        os.chown(home, account.pw_uid, account.pw_gid)
    as_postgres = ["runuser", "-u", "postgres", "--"] if account else []
    port, data = free_port(), home / "data"
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": home}
    initdb = [
        *as_postgres,
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-A",
        "trust",
        "-U",
        "postgres",
        "--no-instructions",
    ]
    subprocess.run(initdb, **quiet)
    control = [*as_postgres, str(binaries / "pg_ctl"), "-D", str(data), "-w", "-t", "60"]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home}"
    subprocess.run([*control, "-o", options, "-l", str(home / "log"), "start"], **quiet)
    try:
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres", pid
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], stdout=subprocess.DEVNULL, cwd=home, check=False)


class Issuer:
    """Signs tokens like an API server."""

    def __init__(self, home: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        self.jwks_file = home / "jwks.json"
        self.jwks_file.write_text(json.dumps({"keys": [{**public, "kid": "k", "use": "sig", "alg": "RS256"}]}))

    def header(self, subject: str) -> dict[str, str]:
        """An Authorization header of one hour."""
        claims = {"iss": ISSUER, "sub": subject, "aud": ["talktime-ledger"], "exp": int(time.time()) + 3600}
        return {"Authorization": "Bearer " + jwt.encode(claims, self._key, "RS256", headers={"kid": "k"})}


@contextmanager
def ledger(dsn: str, issuer: Issuer) -> Iterator[tuple[str, int]]:
    """Address and pid of a ledger process."""
    port = free_port()
    environment = {
        **os.environ,
        "TALKTIME_DATABASE_URL": dsn,
        "TALKTIME_PORT": str(port),
        "TALKTIME_JWT_ISSUER": ISSUER,
        "TALKTIME_JWKS_FILE": str(issuer.jwks_file),
        "TALKTIME_LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "talktime_ledger"]
    subprocess.run([*command, "migrate"], env=environment, check=True)
    process = subprocess.Popen([*command, "serve"], env=environment)
    try:
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(20)


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


@dataclass
class Client:
    """One agent with one session."""

    http: aiohttp.ClientSession
    headers: dict[str, str]
    session_id: str
    n: int
    took: list[float] = field(default_factory=list)

    async def run(self, until: float) -> None:
        """Calls `use` without a pause until the monotonic time given."""
        while time.monotonic() < until:
            begun = time.monotonic()
            await self.use()
            self.took.append(time.monotonic() - begun)

    async def use(self) -> None:
        """One response posted, one renewal; AssertionError when it is refused."""
        self.n += 1
        usage = {
            "key": f"sess_{self.session_id[:8]}/resp_{self.n}",
            "kind": "response",
            "provider": "main",
            "model": MODEL,
            "meters": METERS,
            "occurred_at": datetime.now(UTC).isoformat(),
        }
        body = {"epoch": 1, "n": self.n, "usages": [usage], "in_flight": "0", "want": "0", "turns": self.n}
        await call(self.http, "POST", f"/v1/sessions/{self.session_id}/use", self.headers, body)


async def call(http: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str], body: Any) -> Any:
    """The JSON answer; AssertionError unless 2xx."""
    async with http.request(method, path, headers=headers, json=body) as answer:
        told = await answer.json(content_type=None)
        assert answer.status < 300, (answer.status, told)
        return told


async def prepared(http: aiohttp.ClientSession, issuer: Issuer, projects: int, clients: int) -> list[Client]:
    """Prices, Projects, and attached sessions spread over them."""
    operator, gateway = issuer.header(ROLE + "operator"), issuer.header(ROLE + "gateway")
    for model, prices in PRICES.items():
        meters = {name: {"usdPerMillion": price} for name, price in prices.items()}
        entry = {"effectiveFrom": "2025-01-01T00:00:00Z", "meters": meters, "source": "bench"}
        card = {"provider": "openai", "model": model, "entries": [{**entry, "checkedAt": "2026-11-01"}]}
        await call(http, "PUT", f"/v1/rate-cards/{model}", operator, card)
    text = "Ask about the week. " * 100
    caps = {"contextTokens": 1000, "responseSeconds": 10}
    provider = {"name": "main", "api": "OpenAIRealtime", "model": MODEL, "secretRef": {"name": "k"}, "caps": caps}
    spec = {
        "budget": {"amount": "100000", "session": {"limit": "10000"}},
        "providers": [provider],
        "agent": {"instructions": text},
        "media": {"poolRef": {"name": "eu"}},
    }
    for index in range(projects):
        push = {"uid": "u", "generation": 1, "instructions": text, "spec": spec}
        await call(http, "PUT", f"/v1/projects/bench/p{index}", operator, push)
    made = []
    for index in range(clients):
        project, session_id = f"p{index % projects}", str(uuid.uuid4())
        opening = {"session_id": session_id, "namespace": "bench", "project": project, "provider": "main"}
        await call(http, "POST", "/v1/sessions", gateway, opening)
        headers = issuer.header(AGENT + project)
        attach = {"epoch": 1, "worker": f"w{index}"}
        told = await call(http, "POST", f"/v1/sessions/{session_id}/attach", headers, attach)
        made.append(Client(http, headers, session_id, told["grant"]["n"]))
    return made


async def adds_up(dsn: str) -> bool:
    """Whether every balance equals its entries and stays under its budget."""
    connection = await asyncpg.connect(dsn)
    try:
        wrong = await connection.fetchval(
            """SELECT COUNT(*) FROM accounts a WHERE posted + reserved > budget
               OR posted <> (SELECT COALESCE(SUM(amount_usd), 0) FROM entries e WHERE e.account_id = a.id)
               OR reserved <> (SELECT COALESCE(SUM(reserved), 0) FROM sessions s WHERE s.account_id = a.id)"""
        )
    finally:
        await connection.close()
    return bool(wrong == 0)


async def measured(
    url: str, dsn: str, pids: tuple[int, int], issuer: Issuer, args: argparse.Namespace
) -> dict[str, Any]:
    """Warm up, then measure."""
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as http:
        clients = await prepared(http, issuer, args.projects, args.clients)
        warm = time.monotonic() + args.warm_seconds
        await asyncio.gather(*(one.run(warm) for one in clients))
        for one in clients:
            one.took.clear()
        before, begun = [cpu_seconds(pid) for pid in pids], time.monotonic()
        await asyncio.gather(*(one.run(begun + args.seconds) for one in clients))
        seconds = time.monotonic() - begun
        spent = [cpu_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]
    took = sorted(value for one in clients for value in one.took)
    cuts = statistics.quantiles(took, n=100)
    return {
        "bench": "ledger_use",
        "clients": args.clients,
        "projects": args.projects,
        "seconds": round(seconds, 1),
        "uses": len(took),
        "uses_per_sec": round(len(took) / seconds, 1),
        "p50_ms": round(cuts[49] * 1000, 1),
        "p99_ms": round(cuts[98] * 1000, 1),
        "ledger_cpu_ms": round(spent[0] * 1000 / len(took), 3),
        "postgres_cpu_ms": round(spent[1] * 1000 / len(took), 3),
        "load_average": round(os.getloadavg()[0], 1),
        "adds_up": await adds_up(dsn),
    }


def main() -> int:
    """Entry point; exit 1 when the money does not add up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warm-seconds", type=float, default=2)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--projects", type=int, default=1)
    args = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="talktime-bench-"))
    try:
        issuer = Issuer(home)
        with postgres(home) as (dsn, postmaster), ledger(dsn, issuer) as (url, server):
            asyncio.run(answering(url))
            result = asyncio.run(measured(url, dsn, (server, postmaster), issuer, args))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print("RESULT", json.dumps(result))
    return 0 if result["adds_up"] else 1


async def answering(url: str, patience_sec: float = 60.0) -> None:
    """Returns when the ledger is ready."""
    deadline = time.monotonic() + patience_sec
    async with aiohttp.ClientSession(url) as http:
        while True:
            try:
                async with http.get("/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            assert time.monotonic() < deadline, "the ledger did not become ready"
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    raise SystemExit(main())
