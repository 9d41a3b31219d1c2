"""A real livekit-server and a ledger that keeps its promises in memory, around the gateway's own app."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI
from jwt.algorithms import RSAAlgorithm
from talktime_gateway.app import create_app
from talktime_gateway.settings import Settings
from talktime_ledger.client import LedgerClient

SERVER_KEY = "tts_" + "s" * 43
OBSERVER_KEY = "tto_" + "o" * 43
OTHER_KEY = "tts_" + "x" * 43
API_KEY, API_SECRET = "APItest", "secret-of-at-least-thirty-two-characters"
LIVEKIT = Path(__file__).parents[3] / ".state" / "bin" / "livekit-server"


def free_port() -> int:
    """A port nobody listens on, below those the kernel gives to outgoing connections: none of them can take it."""
    while True:
        port = random.randrange(15_000, 30_000)
        with closing(socket.socket()) as sock:
            if sock.connect_ex(("127.0.0.1", port)) != 0:
                return port


def _answers(url: str) -> bool:
    """Whether somebody answers 200 there."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


@dataclass
class Node:
    """A running livekit-server."""

    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20) as answer:
            return str(answer.read().decode())

    def node_id(self) -> str:
        found = re.search(r'node_id="([^"]+)"', self.metrics())
        assert found is not None
        return found.group(1)

    def rooms(self) -> int:
        found = re.search(r"^livekit_room_total\{[^}]*\} (\d+)", self.metrics(), re.MULTILINE)
        return int(found.group(1)) if found else 0


@pytest.fixture(scope="session")
def start_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Node]]:
    """Starts livekit-server nodes on loopback; they end with the test session."""
    nodes: list[Node] = []

    def start(redis: str | None = None, webhook: str | None = None) -> Node:
        for _ in range(3):  # somebody else's tests may have taken a port meanwhile
            node = attempt(redis, webhook)
            if node is not None:
                return node
        raise AssertionError("livekit-server did not start")

    def attempt(redis: str | None, webhook: str | None) -> Node | None:
        port, tcp, udp, metrics = (free_port() for _ in range(4))
        config: dict[str, Any] = {
            "port": port,
            "bind_addresses": ["127.0.0.1"],
            "prometheus": {"port": metrics},
            "keys": {API_KEY: API_SECRET},
            "logging": {"level": "warn"},
            "rtc": {
                "tcp_port": tcp,
                "udp_port": udp,
                "node_ip": "127.0.0.1",
                "ips": {"includes": ["127.0.0.1/32"]},
                "use_external_ip": False,
                "enable_loopback_candidate": True,
            },
        }
        if redis:
            config["redis"] = {"address": redis}
        if webhook:
            config["webhook"] = {"api_key": API_KEY, "urls": [webhook]}
        path = tmp_path_factory.mktemp("livekit") / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        with (path.parent / "log").open("wb") as log:
            command = [str(LIVEKIT), "--config", str(path), "--node-ip", "127.0.0.1"]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        node = Node(process, port, metrics)
        nodes.append(node)
        deadline = time.monotonic() + 60
        while not _answers(f"http://127.0.0.1:{port}/"):
            if process.poll() is not None:
                return None
            assert time.monotonic() < deadline, (path.parent / "log").read_text()[-3000:]
            time.sleep(0.1)
        return node

    yield start
    for node in nodes:
        node.process.kill()  # SIGTERM would wait for the rooms to empty
        node.process.wait(5)


@pytest.fixture(scope="session")
def node(start_node: Callable[..., Node]) -> Node:
    """One livekit-server without Redis."""
    return start_node()


@dataclass
class FakeLedger:
    """The ledger's side of the contract, as far as the gateway uses it; what the gateway sent is kept for asserts."""

    pool_url: str
    projects: list[dict[str, Any]] = field(default_factory=list)
    pools: list[dict[str, Any]] = field(default_factory=list)
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    tickets: dict[str, dict[str, Any]] = field(default_factory=dict)
    transport: dict[str, dict[str, int]] = field(default_factory=dict)
    gone: dict[str, dict[str, int]] = field(default_factory=dict)
    video: dict[str, dict[str, int]] = field(default_factory=dict)
    joined: dict[str, dict[str, int]] = field(default_factory=dict)
    left: dict[str, list[dict[str, int]]] = field(default_factory=dict)
    refuse: dict[str, Any] | None = None
    refuse_providers: set[str] = field(default_factory=set)
    down: bool = False
    attach_at_close: bool = False
    close_fails: bool = False
    directory_reads: int = 0

    def __post_init__(self) -> None:
        self.projects = [project("team", "study"), project("team", "other", OTHER_KEY)]
        self.pools = [pool(self.pool_url)]

    def open_ids(self) -> list[str]:
        return [key for key, session in self.sessions.items() if session["state"] == "open"]

    def client(self) -> LedgerClient:
        transport = httpx.MockTransport(self.handle)
        return LedgerClient("http://ledger", token="t", transport=transport, patience_sec=0.2)

    def handle(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("down")
        path = request.url.path.removeprefix("/v1")
        body = json.loads(request.content) if request.content else {}
        parts = path.strip("/").split("/")
        if path == "/directory":
            return self._directory(request)
        if path == "/sessions" and request.method == "POST":
            return self._open(body)
        if path == "/sessions/lost":
            return httpx.Response(200, json={"sessions": []})
        if path == "/sessions/unended":
            return httpx.Response(200, json={"sessions": self._unended()})
        if path == "/sessions":
            rows = [s for s in self.sessions.values() if s["state"] == request.url.params.get("state", s["state"])]
            return httpx.Response(200, json={"sessions": rows})
        if parts[0] == "sessions":
            return self._session(parts, body)
        if path == "/tickets":
            self.tickets[body["sha256"]] = {**body, "used": None}
            return httpx.Response(201, json={})
        return problem(404, reason="NotFound")

    def _directory(self, request: httpx.Request) -> httpx.Response:
        self.directory_reads += 1
        content = json.dumps({"projects": self.projects, "pools": self.pools})
        etag = f'"{hashlib.sha256(content.encode()).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == etag:
            return httpx.Response(304)
        return httpx.Response(200, content=content, headers={"ETag": etag})

    def _open(self, body: dict[str, Any]) -> httpx.Response:
        refusal = self._ticket_refusal(body)
        if refusal is not None:
            return refusal
        if self.refuse is not None:
            return problem(402, **self.refuse)
        if body["provider"] in self.refuse_providers:
            return problem(402, reason="PriceUnknown", detail="no price for the model")
        ticket = self.tickets.get(body.get("ticket_sha256", ""), {})
        ticket["used"] = body["session_id"]
        self.sessions[body["session_id"]] = {
            **{key: body[key] for key in ("session_id", "namespace", "project", "provider", "media", "observers")},
            "participant_identity": body["participant_identity"],
            "participant_key": ticket.get("participant_key", body.get("participant_key")),
            "api": "OpenAIRealtime",
            "model": "gpt-realtime-2.1-mini",
            "epoch": 1,
            "state": "open",
            "opened_at": datetime.now(UTC).isoformat(),
            "posted": "0",
            "reserved": "0.05",
            "limit": "0.10",
        }
        return httpx.Response(201, json=self.sessions[body["session_id"]])

    def _session(self, parts: list[str], body: dict[str, Any]) -> httpx.Response:
        session = self.sessions.get(parts[1])
        if session is None:
            return problem(404, reason="NotFound")
        if parts[2:] == ["close"]:
            if self.attach_at_close and session["state"] == "open":
                session["attached_at"] = datetime.now(UTC).isoformat()
                return problem(409, reason="Conflict")
            if self.close_fails:
                return problem(503, reason="Unavailable")
            if session["state"] == "open":
                session |= {"state": "closed", "close_reason": body["reason"], "reserved": "0"}
                for ticket in self.tickets.values():
                    if body["reason"] == "room_failed" and ticket["used"] == parts[1]:
                        ticket["used"] = None
            return httpx.Response(200, json={"session_id": parts[1], "posted": "0", "costs": []})
        if parts[2:] == ["claim"]:
            if body["epoch"] != session["epoch"] + 1:
                return problem(409, reason="Conflict")
            session["epoch"] = body["epoch"]
            session["media"] = body.get("media") or session["media"]
        if parts[2:] == ["transport"]:
            self.transport.setdefault(parts[1], {}).update(body.get("participant_seconds", {}))
            self.gone.setdefault(parts[1], {}).update(body.get("gone_seconds", {}))
            self.video.setdefault(parts[1], {}).update(body.get("video_seconds", {}))
            self.joined.setdefault(parts[1], {}).update(body.get("joined_at_ms", {}))
            self.left.setdefault(parts[1], []).append(body.get("left_seconds", {}))
        return httpx.Response(200, json=session)

    def _unended(self) -> list[dict[str, Any]]:
        """Connections that were told of and whose end was not."""
        found = []
        for session_id, seen in self.transport.items():
            ended = {*self.gone.get(session_id, {}), *(key for left in self.left.get(session_id, []) for key in left)}
            connections = [
                {
                    "key": key,
                    "joined_at_ms": self.joined[session_id][key],
                    "seen_sec": seconds,
                    "video_sec": self.video.get(session_id, {}).get(key, 0),
                }
                for key, seconds in seen.items()
                if key not in ended
            ]
            session = self.sessions[session_id]
            named = {name: session[name] for name in ("namespace", "project", "media")}
            found.append({"session_id": session_id, **named, "connections": connections})
        return found

    def _ticket_refusal(self, body: dict[str, Any]) -> httpx.Response | None:
        """Why the request's ticket does not open this session; None when it does, or when there is none."""
        if "ticket_sha256" not in body:
            return None
        ticket = self.tickets.get(body["ticket_sha256"])
        if ticket is None or (ticket["namespace"], ticket["project"]) != (body["namespace"], body["project"]):
            return problem(404, reason="TicketUnknown")
        if ticket["used"] is not None:
            return problem(409, reason="Used")
        if datetime.fromisoformat(ticket["expires_at"]) < datetime.now(UTC):
            return problem(410, reason="Expired")
        return None


def problem(status: int, **members: Any) -> httpx.Response:
    """A ledger's refusal."""
    return httpx.Response(status, json={"title": "refused", "status": status, **members})


def sha(text: str) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()


def project(namespace: str, name: str, server_key: str = SERVER_KEY, **changes: Any) -> dict[str, Any]:
    """A Project as in the directory."""
    return {
        "namespace": namespace,
        "name": name,
        "paused": False,
        "deleted": False,
        "providers": [
            {"name": "main", "api": "OpenAIRealtime", "model": "gpt-realtime-2.1-mini", "weight": 1, "tier": 0},
            {"name": "spare", "api": "OpenAIRealtime", "model": "gpt-realtime-2.1", "weight": 1, "tier": 1},
        ],
        "pool": {"namespace": "talktime", "name": "eu"},
        "accessKeys": [
            {"id": "server-key", "kind": "server", "sha256": sha(server_key)},
            {"id": "observer-key", "kind": "observer", "sha256": sha(OBSERVER_KEY)},
        ],
        "maxParticipants": 1,
        "microphoneOnly": True,
        **changes,
    }


def pool(url: str, **changes: Any) -> dict[str, Any]:
    """A pool as in the directory; without nodes LiveKit chooses."""
    base = {"namespace": "talktime", "name": "eu", "publicURL": url, "internalURL": url, "nodes": []}
    return {**base, "active": "SelfHosted", "health": "good", **changes}


@pytest.fixture
def ledger(node: Node) -> FakeLedger:
    """A ledger that knows Project team/study on pool talktime/eu."""
    return FakeLedger(node.url)


@pytest.fixture
def keys_dir(tmp_path: Path) -> Path:
    """Mounted keys of the pool."""
    (tmp_path / "talktime.eu.json").write_text(json.dumps({"apiKey": API_KEY, "apiSecret": API_SECRET}))
    return tmp_path


Gateway = Callable[..., Any]


@pytest.fixture
def gateway(ledger: FakeLedger, keys_dir: Path) -> Gateway:
    """Runs the app; ``async with gateway(setting=...) as http``. Rounds are rare unless a test asks for them."""

    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        values = {
            "sfu_keys_dir": keys_dir,
            "directory_interval_sec": 0.05,
            "census_interval_sec": 3600,
            "key_burst": 1000,
            "sfu_timeout_sec": 20,
            "room_timeout_sec": 20,  # a busy node is no dead one
            **settings,
        }
        client = values.pop("client", None) or ledger.client()
        app: FastAPI = create_app(Settings(**values), client)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://gateway") as http,
        ):
            if not ledger.down:
                await until(lambda: _ready(http))
            yield http

    return run


async def _ready(http: httpx.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 90.0) -> None:
    """Wait for a condition; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Headers:
    """Authorization headers of the callers in the tests."""

    server: dict[str, str]
    observer: dict[str, str]
    other: dict[str, str]
    nobody: dict[str, str]

    @staticmethod
    def of(credential: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {credential}"}


@pytest.fixture
def as_() -> Headers:
    """``headers=as_.server``; ``other`` is the server key of another Project."""
    return Headers(*(Headers.of(key) for key in (SERVER_KEY, OBSERVER_KEY, OTHER_KEY, "tts_" + "n" * 43)))


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """Wait for an async condition."""
    return until


@pytest.fixture
def seen_again() -> Callable[[FakeLedger], Awaitable[None]]:
    """Wait until the gateway has read the directory anew."""

    async def wait(ledger: FakeLedger) -> None:
        reads = ledger.directory_reads

        async def read() -> bool:
            return ledger.directory_reads >= reads + 2

        await until(read)

    return wait


@dataclass
class RealLedger:
    """A ledger server on its own PostgreSQL, and clients for the roles that talk to it."""

    url: str
    signing_key: Any
    tokens: Path

    def token_file(self, process: str) -> Path:
        """A ServiceAccount token of one of our processes, as the kubelet would mount it."""
        subject = process if process.startswith("system:") else f"system:serviceaccount:talktime:talktime-{process}"
        now = int(time.time())
        claims = {"iss": "test", "aud": ["talktime-ledger"], "sub": subject, "iat": now, "exp": now + 3600}
        path = self.tokens / subject.replace(":", "_")
        path.write_text(jwt.encode(claims, self.signing_key, algorithm="RS256", headers={"kid": "k"}))
        return path

    def client(self, process: str) -> LedgerClient:
        return LedgerClient(self.url, token_path=self.token_file(process), patience_sec=2)


async def own_database(dsn: str, name: str) -> str:
    """An empty database of that name; its URL."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {name}")
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return dsn.rsplit("/", 1)[0] + "/" + name


@pytest.fixture(scope="session")
def real_ledger(postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealLedger]:
    """The ledger's own server process, migrated, verifying tokens against our key."""
    home = tmp_path_factory.mktemp("ledger")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": "k", "alg": "RS256", "use": "sig"}
    (home / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    port = free_port()
    env = {
        **os.environ,
        "TALKTIME_DATABASE_URL": asyncio.run(own_database(postgres_dsn, "gateway")),
        "TALKTIME_JWKS_FILE": str(home / "jwks.json"),
        "TALKTIME_JWT_ISSUER": "test",
        "TALKTIME_CONTEXT_KEYS": base64.b64encode(bytes(range(32))).decode(),
        "TALKTIME_HOST": "127.0.0.1",
        "TALKTIME_PORT": str(port),
    }
    command = [sys.executable, "-m", "talktime_ledger"]
    subprocess.run([*command, "migrate"], env=env, check=True, stdout=subprocess.DEVNULL)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*command, "serve"], env=env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 90
        while not _answers(f"http://127.0.0.1:{port}/readyz"):
            alive = process.poll() is None and time.monotonic() < deadline
            assert alive, (home / "log").read_text()[-3000:]
            time.sleep(0.1)
        yield RealLedger(f"http://127.0.0.1:{port}", key, home)
    finally:
        stop(process)
