"""The real ledger server as a process that is killed with SIGKILL and started again, and clients in both roles."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from talktime_ledger.client import LedgerClient
from talktime_ledger.store.database import Pool

from bench.enforcers import study
from bench.enforcers.database import free_port
from bench.enforcers.desks import HttpDesk
from bench.issuer import ISSUER, Issuer

GATEWAY = "system:serviceaccount:talktime:talktime-gateway"
PATIENCE_SEC = 120.0


class Server:
    """`python -m talktime_ledger serve` on one port, over several lives."""

    def __init__(self, database_url: str, issuer: Issuer, log: Path) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._log = log
        self._environment = {
            **os.environ,
            "TALKTIME_DATABASE_URL": database_url,
            "TALKTIME_HOST": "127.0.0.1",
            "TALKTIME_PORT": str(self._port),
            "TALKTIME_JWT_ISSUER": ISSUER,
            "TALKTIME_JWKS_FILE": str(issuer.jwks_file),
            "TALKTIME_SWEEP_EVERY_SEC": "0.2",
            "TALKTIME_LOG_LEVEL": "ERROR",
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it answers; AssertionError with its log when it does not."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "talktime_ledger", "serve", env=self._environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_SEC
        async with httpx.AsyncClient(base_url=self.url) as http:
            while True:
                try:
                    if (await http.get("/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                alive = self._process.returncode is None and time.monotonic() < deadline
                assert alive, f"the ledger does not start:\n{self._log.read_text()[-3000:]}"
                await asyncio.sleep(0.1)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


@asynccontextmanager
async def serving(database_url: str, project: str, home: Path, pool: Pool) -> AsyncIterator[tuple[HttpDesk, Server]]:
    """A server, and a desk whose clients go on asking while it is away."""
    issuer = Issuer(home)
    server = Server(database_url, issuer, home / "ledger.log")
    agent_subject = f"system:serviceaccount:{study.NAMESPACE}:talktime-agent-{project}"

    def client(subject: str) -> LedgerClient:
        token = issuer.token(subject)
        return LedgerClient(server.url, token=token, token_path=None, timeout_sec=10.0, patience_sec=PATIENCE_SEC)

    try:
        await server.start()
        async with client(GATEWAY) as gateway, client(agent_subject) as agent:
            yield HttpDesk(gateway, agent, pool), server
    finally:
        await server.kill()


class Killer:
    """Kills the server beside the chosen slices of a run, while requests are on their way, and starts it again."""

    def __init__(self, server: Server, seed: int, kills: int) -> None:
        dice = random.Random(f"kills/{seed}")
        # The money is spent in the first hundred slices or so: that is where a kill can hurt.
        self._slices = {number: dice.uniform(0.002, 0.05) for number in dice.sample(range(3, 120), kills)}
        self._server = server
        self.kills = 0

    async def disturb(self, number: int) -> None:
        """Beside slice `number`."""
        pause = self._slices.get(number)
        if pause is None:
            return
        await asyncio.sleep(pause)
        await self._server.kill()
        self.kills += 1
        await self._server.start()
