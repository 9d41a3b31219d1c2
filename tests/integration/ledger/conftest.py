"""A real PostgreSQL of our own, the ledger's server in this process over real HTTP, tokens minted by a test issuer."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI
from talktime_ledger import wire
from talktime_ledger.client import LedgerClient
from talktime_ledger.migrate import migrate
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.server.app import create_app
from talktime_ledger.server.protocol import uvicorn_options
from talktime_ledger.server.settings import Settings

ISSUER = "https://issuer.test"
MODEL = "gpt-realtime-mini"


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _postgres_bin() -> Path:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    assert versions, "PostgreSQL is not installed"
    return versions[-1]


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[str]:
    """DSN prefix (no database) of a throw-away PostgreSQL run by user postgres; nobody pulls its plug: no fsync."""
    binaries, home = _postgres_bin(), Path(tempfile.mkdtemp(prefix="talktime-pg-"))
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    if account:
        os.chown(home, account.pw_uid, account.pw_gid)
    as_postgres = ["runuser", "-u", "postgres", "--"] if account else []
    port, data = free_port(), home / "data"
    subprocess.run(
        [*as_postgres, binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-instructions"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=home,
    )
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c max_connections=60 -c fsync=off"
    )
    control = [*as_postgres, binaries / "pg_ctl", "-D", data, "-w", "-t", "60"]
    subprocess.run(
        [*control, "-o", options, "-l", home / "log", "start"], check=True, stdout=subprocess.DEVNULL, cwd=home
    )
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, stdout=subprocess.DEVNULL, cwd=home)
        shutil.rmtree(home, ignore_errors=True)


def _run_sql(dsn: str, sql: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(sql)
        await connection.close()

    asyncio.run(run())


@pytest.fixture(scope="session")
def template(own_postgres: str) -> str:
    """A migrated database to copy from."""
    _run_sql(f"{own_postgres}/postgres", "CREATE DATABASE migrated")
    migrate(f"{own_postgres}/migrated")
    return "migrated"


@pytest.fixture
def database_url(own_postgres: str, template: str) -> Iterator[str]:
    """A fresh migrated database per test."""
    name = f"t{uuid.uuid4().hex}"
    _run_sql(f"{own_postgres}/postgres", f"CREATE DATABASE {name} TEMPLATE {template}")
    yield f"{own_postgres}/{name}"
    _run_sql(f"{own_postgres}/postgres", f"DROP DATABASE {name} WITH (FORCE)")


class Issuer:
    """Signs ServiceAccount tokens like an API server."""

    def __init__(self, directory: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        self.jwks_file = directory / "jwks.json"
        self.jwks_file.write_text(json.dumps({"keys": [{**public, "kid": "k1", "use": "sig", "alg": "RS256"}]}))

    def token(self, subject: str, **claims: Any) -> str:
        """A token of one hour for a subject."""
        body = {"iss": ISSUER, "sub": subject, "aud": ["talktime-ledger"], "exp": int(time.time()) + 3600, **claims}
        return jwt.encode(body, self._key, algorithm="RS256", headers={"kid": "k1"})


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    """One issuer for all tests."""
    return Issuer(tmp_path_factory.mktemp("issuer"))


OPERATOR = "system:serviceaccount:talktime:talktime-operator"
GATEWAY = "system:serviceaccount:talktime:talktime-gateway"
CONSOLE = "system:serviceaccount:talktime:talktime-console"


def agent_of(project: str, namespace: str = "study") -> str:
    """Subject of a Project's agents."""
    return f"system:serviceaccount:{namespace}:talktime-agent-{project}"


MINI = {
    "text_in": "0.6",
    "text_cached_in": "0.06",
    "audio_in": "10",
    "audio_cached_in": "0.3",
    "text_out": "2.4",
    "audio_out": "20",
}
TRANSCRIBE = {"text_in": "1.25", "audio_in": "3", "text_out": "5"}


def rate_card(model: str = MODEL, prices: dict[str, str] | None = None) -> RateCardSpec:
    """A card; prices in USD per million."""
    wanted = prices or MINI
    return RateCardSpec.model_validate(
        {
            "provider": "openai",
            "model": model,
            "entries": [
                {
                    "effectiveFrom": "2025-01-01T00:00:00Z",
                    "meters": {name: {"usdPerMillion": price} for name, price in wanted.items()},
                    "source": "test",
                    "checkedAt": "2026-11-01",
                }
            ],
        }
    )


def project_push(
    amount: str = "10",
    limit: str = "1",
    *,
    generation: int = 1,
    paused: bool = False,
    budget: dict[str, Any] | None = None,
    caps: dict[str, int] | None = None,
    webhook: str | None = None,
    model: str = MODEL,
    media: dict[str, Any] | None = None,
) -> wire.ProjectPush:
    """A Project with one mini provider `main`."""
    spec = {
        "budget": {"amount": amount, "session": {"limit": limit}, **(budget or {})},
        "providers": [
            {
                "name": "main",
                "api": "OpenAIRealtime",
                "model": model,
                "secretRef": {"name": "key"},
                "caps": caps or {"contextTokens": 1000, "responseSeconds": 10},
            }
        ],
        "agent": {"instructions": "Be kind."},
        "media": {"poolRef": {"name": "eu"}, **(media or {})},
    }
    if webhook:
        spec["postProcessing"] = {"webhook": webhook}
    return wire.ProjectPush(
        uid="uid-1",
        generation=generation,
        paused=paused,
        instructions="Be kind.",
        accessKeys=(wire.AccessKey(id="a", kind=wire.AccessKind.SERVER, sha256="a" * 64),),
        spec=ProjectSpec.model_validate(spec),
    )


def opening(project: str = "limit", session_id: uuid.UUID | None = None, **more: Any) -> wire.SessionOpen:
    """A request for a session."""
    return wire.SessionOpen(
        session_id=session_id or uuid.uuid4(),
        namespace="study",
        project=project,
        provider="main",
        observers=tuple(f"observer-{index}" for index in range(1, 9)),
        **more,
    )


def usage(key: str, audio_out: int = 200, *, model: str = MODEL, kind: str = "response", **more: Any) -> wire.Usage:
    """One billed response; 200 tokens of speech cost 0.004 USD."""
    body = {
        "key": key,
        "kind": kind,
        "provider": "main",
        "model": model,
        "meters": {"audio_out": audio_out},
        "occurred_at": datetime.now(UTC),
        **more,
    }
    return wire.Usage.model_validate(body)


@dataclass
class Stand:
    """A running ledger and clients in every role."""

    url: str
    database_url: str
    issuer: Issuer
    app: FastAPI
    clients: list[LedgerClient] = field(default_factory=list)

    def client(self, subject: str, **options: Any) -> LedgerClient:
        """A client with a token of this subject."""
        client = LedgerClient(self.url, token=self.issuer.token(subject), token_path=None, **options)
        self.clients.append(client)
        return client

    async def sql(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Reads the tables behind the server's back."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return await connection.fetch(query, *args)
        finally:
            await connection.close()

    async def account(self, project: str = "limit") -> dict[str, Any]:
        """The newest project account."""
        rows = await self.sql(
            """SELECT a.* FROM accounts a JOIN projects p ON p.id = a.project_id
               WHERE p.name = $1 AND a.kind = 'project' ORDER BY a.id DESC LIMIT 1""",
            project,
        )
        return dict(rows[0])

    async def assert_laws(self) -> None:
        """What must hold at every moment: nothing over the budget, and balances recompute from rows."""
        rows = await self.sql(
            """SELECT a.id, a.kind, a.budget, a.posted, a.reserved, a.open_sessions,
                 (SELECT COALESCE(SUM(s.reserved), 0) FROM sessions s
                    WHERE a.id IN (s.account_id, s.participant_account_id)) AS held,
                 (SELECT COUNT(*) FROM sessions s
                    WHERE a.id IN (s.account_id, s.participant_account_id) AND s.state = 'open') AS open,
                 (SELECT COALESCE(SUM(e.amount_usd), 0) FROM entries e
                    WHERE a.id IN (e.account_id, e.participant_account_id)) AS entered,
                 (a.kind = 'project' OR p.spec->'budget' ? 'participant') AS capped
               FROM accounts a JOIN projects p ON p.id = a.project_id"""
        )
        for row in rows:
            assert not row["capped"] or row["posted"] + row["reserved"] <= row["budget"], dict(row)
            assert row["reserved"] == row["held"], dict(row)
            assert row["posted"] == row["entered"], dict(row)
            assert row["open_sessions"] == row["open"], dict(row)
        wrong = await self.sql(
            """SELECT s.id FROM sessions s WHERE s.posted + s.reserved > s.limit_usd OR s.posted <>
               (SELECT COALESCE(SUM(e.amount_usd), 0) FROM entries e WHERE e.session_id = s.id
                 AND e.account_id IS NOT NULL)
               OR (SELECT COALESCE(SUM(c.ai_cost_usd), 0) FROM session_costs c WHERE c.session_id = s.id) <>
               (SELECT COALESCE(SUM(e.amount_usd), 0) FROM entries e WHERE e.session_id = s.id AND e.leg = 'ai')"""
        )
        assert not wrong

    async def backdate(self, session_id: uuid.UUID, seconds: int) -> None:
        """Time passes for one session."""
        await self.sql(
            "UPDATE sessions SET valid_until = valid_until - make_interval(secs => $2) WHERE id = $1",
            session_id,
            float(seconds),
        )


Serve = Callable[..., Any]


class Server:
    """A uvicorn server in this event loop."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        config = uvicorn.Config(
            self.app,
            host="127.0.0.1",
            port=settings.port,
            timeout_graceful_shutdown=1,
            **uvicorn_options(),
        )
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when it listens."""
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            assert not self._task.done()
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Ends it."""
        self._server.should_exit = True
        if self._task:
            await self._task


async def until_ready(url: str) -> None:
    """It listens for connections before it listens to the database; until then it opens no stream."""
    async with asyncio.timeout(60), httpx.AsyncClient(base_url=url, timeout=60) as http:
        while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.02)


def settings_for(database_url: str, issuer: Issuer, **more: Any) -> Settings:
    """Settings with quick background tasks."""
    defaults: dict[str, Any] = {
        "database_url": database_url,
        "port": free_port(),
        "jwt_issuer": ISSUER,
        "jwks_file": issuer.jwks_file,
        "sweep_every_sec": 0.2,
        "outbox_every_sec": 0.1,
        "changes_every_sec": 0.1,
    }
    return Settings(**{**defaults, **more})


@asynccontextmanager
async def standing(settings: Settings, issuer: Issuer) -> AsyncIterator[Stand]:
    """A ledger with rate cards and one Project `study/limit` of 10 USD, 1 USD a session."""
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


@pytest.fixture
async def stand(database_url: str, issuer: Issuer) -> AsyncIterator[Stand]:
    """The usual one."""
    async with standing(settings_for(database_url, issuer), issuer) as made:
        yield made


USD = Decimal
