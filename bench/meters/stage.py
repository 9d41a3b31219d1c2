"""The processes: the ledger on a PostgreSQL whose day can be moved on, and simulators that speak plain and TLS."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from talktime_ledger.client import LedgerClient
from talktime_ledger.store import database
from talktime_ledger.store.database import Connection

from bench.enforcers.database import TEMPLATE, execute
from bench.enforcers.server import Server
from bench.issuer import Issuer
from bench.meters import study
from bench.meters.truth import Kept

GATEWAY, OPERATOR, CONSOLE = (
    f"system:serviceaccount:talktime:talktime-{name}" for name in ("gateway", "operator", "console")
)
COMPRESSED = ("--speed", "10", "--first-audio", "0.05", "--transcription", "0.05", "--playback", "20")
START_SECONDS = 90.0

# A bill is settled when its day is over: then the ledger's clock goes on by two days, and nothing else changes.
MOVABLE_DAY = """
CREATE SCHEMA virtual;
CREATE TABLE virtual.clock (ahead interval NOT NULL);
INSERT INTO virtual.clock VALUES ('0');
CREATE FUNCTION virtual.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
  AS 'SELECT pg_catalog.clock_timestamp() + ahead FROM virtual.clock';
CREATE FUNCTION virtual.now() RETURNS timestamptz LANGUAGE sql STABLE
  AS 'SELECT pg_catalog.now() + ahead FROM virtual.clock';
"""


@dataclass(slots=True)
class Simulator:
    """A running one. `ca`: what clients of its TLS port have to trust."""

    process: asyncio.subprocess.Process
    url: str
    tls_url: str
    ca: Path
    http: httpx.AsyncClient

    @property
    def endpoints(self) -> dict[Any, str]:
        """By vendor, as a Project names them."""
        return {"openai": f"{self.url}/v1", "google": self.tls_url}

    async def truth(self) -> list[dict[str, Any]]:
        """All that is billed so far, in order."""
        answer = await self.http.get(f"{self.url}/truth")
        return [json.loads(line) for line in answer.text.splitlines()]

    async def idle(self, most_seconds: float = 30.0) -> bool:
        """Waits until every socket is closed and billed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + most_seconds
        while loop.time() < until:
            if (await self.http.get(f"{self.url}/healthz")).json()["sessions"] == 0:
                return True
            await asyncio.sleep(0.05)
        return False

    async def forget_faults(self) -> None:
        """What was planned and did not happen is not the next session's."""
        await self.http.delete(f"{self.url}/faults")


@asynccontextmanager
async def simulator(home: Path, name: str, *options: str) -> AsyncIterator[Simulator]:
    """A simulator on free ports; AssertionError when it does not start. All in `home` share one CA."""
    log = home / f"simulator-{name}.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "talktime_simulator", "serve", "--host", "127.0.0.1", "--port", "0",
            "--tls-port", "0", "--tls-dir", str(home / "tls"), "--tls-name", "127.0.0.1",
            "--speech-cache", str(home / "speech"), *options, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                text = log.read_text(encoding="utf-8")
                plain = re.search(r"listening on .*?(\d+)\)\]", text)
                secure = re.search(r"TLS port (\d+)", text)
                if plain and secure:
                    break
                assert process.returncode is None, f"the simulator does not start:\n{text[-2000:]}"
                await asyncio.sleep(0.1)
        async with httpx.AsyncClient(timeout=60) as http:
            yield Simulator(
                process,
                f"http://127.0.0.1:{plain[1]}",
                f"https://127.0.0.1:{secure[1]}",
                home / "tls" / "ca.pem",
                http,
            )
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(15):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


@dataclass(slots=True)
class Books:
    """The ledger: its address, tokens for its callers, and its tables behind its back."""

    url: str
    issuer: Issuer
    connection: Connection
    gateway: LedgerClient
    operator: LedgerClient
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    def agent_token(self, project: str) -> str:
        """Of that Project's agents."""
        return self.issuer.token(f"system:serviceaccount:{study.NAMESPACE}:talktime-agent-{project}")

    async def kept(self, sessions: list[str]) -> list[Kept]:
        """Their usage rows."""
        async with self.busy:
            rows = await self.connection.fetch(
                "SELECT key, model, meters, cost_usd, unmetered FROM public.usage_events"
                " WHERE session_id = ANY($1::uuid[])",
                sessions,
            )
        return [Kept(row["key"], row["model"], dict(row["meters"]), row["cost_usd"], row["unmetered"]) for row in rows]

    async def open_sessions(self) -> int:
        """Sessions that nobody has closed."""
        return int(await self.connection.fetchval("SELECT COUNT(*) FROM public.sessions WHERE state = 'open'"))

    async def totals(self) -> dict[str, Decimal]:
        """What all sessions cost by vendor, by the entries, USD."""
        rows = await self.connection.fetch(
            """SELECT s.vendor, SUM(e.amount_usd) AS usd FROM public.entries e JOIN public.sessions s
               ON s.id = e.session_id WHERE e.leg = 'ai' GROUP BY 1"""
        )
        return {row["vendor"]: row["usd"] for row in rows}

    async def posted(self) -> Decimal:
        """What all accounts of Projects say, USD."""
        value: Decimal = await self.connection.fetchval(
            "SELECT COALESCE(SUM(posted), 0) FROM public.accounts WHERE kind = 'project'"
        )
        return value

    async def next_day(self) -> None:
        """The day of the interviews is over."""
        await self.connection.execute("UPDATE virtual.clock SET ahead = '2 days'")


@asynccontextmanager
async def books(dsn: str, home: Path, name: str) -> AsyncIterator[Books]:
    """A ledger process on a new database with the cards."""
    await execute(f"{dsn}/postgres", f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    url = f"{dsn}/{name}"
    await execute(url, MOVABLE_DAY, f"ALTER DATABASE {name} SET search_path = virtual, pg_catalog, public")
    issuer = Issuer(home)
    server = Server(url, issuer, home / "ledger.log")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.kill)
        await server.start()
        connection = await database.connect(url)
        stack.push_async_callback(connection.close)
        gateway, operator = [
            await stack.enter_async_context(LedgerClient(server.url, token=issuer.token(subject), token_path=None))
            for subject in (GATEWAY, OPERATOR)
        ]
        for card, spec in study.cards().items():
            await operator.put_rate_card(card, spec)
        yield Books(server.url, issuer, connection, gateway, operator)


async def settle(book: Books, bill: Path, home: Path) -> None:
    """`talktime reconcile BILL --final` as finance types it; AssertionError with its words when it fails."""
    token = home / "console.token"
    token.write_text(book.issuer.token(CONSOLE), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from talktime_console.cli import main; main()",
        "reconcile", str(bill), "--final", "--output", "json",
        env={**os.environ, "TALKTIME_LEDGER_URL": book.url, "TALKTIME_TOKEN_FILE": str(token),
             "TALKTIME_TIMEOUT_SEC": "120"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, f"reconcile: {(out + err).decode()[-2000:]}"
