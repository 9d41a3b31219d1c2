"""A Redis of the SRE's own over TLS with a CA of its own: livekit-server as the operator configures it, and the
operator's own look at it, against a real redis-server."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import jwt
import pytest
import yaml
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_config import NODE_IP, REDIS_FOLDER, livekit_config
from talktime_operator.names import Key
from talktime_operator.pools.health import Answer
from talktime_operator.redis_probe import RedisAt
from talktime_operator.sfu_probe import Probe

from tests.certificates import Authority
from tests.integration.operator.apiserver import binary, free_port
from tests.integration.operator.netns import process

PASSWORD = "not quoted: $pw #1 \u00e4"
KEY, SECRET = "APIredis", "a-secret-of-at-least-32-characters-long"


@dataclass(frozen=True)
class Redis:
    """One with TLS on `port` and the same without on `plain`."""

    port: int
    plain: int
    ca: str
    folder: Path


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    folder = tmp_path_factory.mktemp("redis")
    authority = Authority.create("A CA of the SRE")
    certificate, key = authority.issue("localhost")
    for name, text in (("tls.crt", certificate), ("tls.key", key), ("ca.crt", authority.pem)):
        (folder / name).write_text(text)
    made = Redis(free_port(), free_port(), authority.pem, folder)
    words = [binary("redis-server"), "--port", str(made.plain), "--tls-port", str(made.port), "--bind", "127.0.0.1"]
    words += ["--tls-cert-file", str(folder / "tls.crt"), "--tls-key-file", str(folder / "tls.key")]
    words += ["--tls-ca-cert-file", str(folder / "ca.crt"), "--tls-auth-clients", "no"]
    with process([*words, "--requirepass", PASSWORD, "--save", "", "--dir", str(folder)], folder / "redis.log"):
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", made.port)) != 0:
            assert time.monotonic() < deadline, (folder / "redis.log").read_text()
            time.sleep(0.05)
        yield made


OTHER_CA = Authority.create("Somebody else's CA").pem


@pytest.mark.parametrize(
    ("password", "ca", "tls", "answer"),
    [
        (PASSWORD, "", True, Answer.GOOD),
        (None, "", True, Answer.GOOD),
        ("", "", True, Answer.DENIED),
        ("wrong", "", True, Answer.DENIED),
        (PASSWORD, OTHER_CA, True, Answer.UNTRUSTED),
        (PASSWORD, "public", True, Answer.UNTRUSTED),
        (PASSWORD, "no certificate", True, Answer.UNTRUSTED),
        (PASSWORD, "", False, Answer.GOOD),
    ],
    ids=["right", "not known", "none", "wrong", "other CA", "public CAs", "no CA", "without TLS"],
)
async def test_the_operator_asks_as_the_nodes_do(
    redis: Redis, password: str | None, ca: str, tls: bool, answer: Answer
) -> None:
    trusted = {"": redis.ca, "public": ""}.get(ca, ca)
    at = RedisAt(f"localhost:{redis.port if tls else redis.plain}", tls, trusted, password)
    async with httpx.AsyncClient() as client:
        assert (await Probe(client).ping(at, 60)).answer is answer


async def test_tls_to_a_port_without_it_is_no_answer(redis: Redis) -> None:
    at = RedisAt(f"localhost:{redis.plain}", True, redis.ca, PASSWORD)
    async with httpx.AsyncClient() as client:
        assert (await Probe(client).ping(at, 2)).answer.verdict("unknown") != "good"


@pytest.mark.parametrize(
    ("ca", "password", "starts"),
    [("", PASSWORD, True), (OTHER_CA, PASSWORD, False), ("", "x", False)],
    ids=["right", "other CA", "wrong password"],
)
def test_livekit_server_takes_what_the_operator_gives_it(
    redis: Redis, tmp_path: Path, ca: str, password: str, starts: bool
) -> None:
    (tmp_path / "ca.crt").write_text(ca or redis.ca)
    http, tcp, udp, metrics = (free_port() for _ in range(4))
    spec = {
        "network": {"ports": {"http": http, "tcp": tcp, "udp": udp, "metrics": metrics}},
        "redis": {
            "address": f"localhost:{redis.port}",
            "tls": True,
            "caSecretRef": {"name": "acme-ca"},
            "passwordSecretRef": {"name": "acme-password"},
        },
    }
    config = livekit_config(Key("talktime", "eu"), SFUPoolSpec.model_validate(spec))
    del config["key_file"], config["webhook"]
    text = yaml.safe_dump(config | {"keys": {KEY: SECRET}})
    text = text.replace(REDIS_FOLDER, str(tmp_path)).replace(NODE_IP, "127.0.0.1")
    log = tmp_path / "livekit.log"
    words = [binary("livekit-server"), "--node-ip=127.0.0.1"]
    with process(words, log, LIVEKIT_CONFIG=text, REDIS_PASSWORD=password) as server:
        if not starts:
            server.wait(120)
            assert "unable to connect to redis" in log.read_text()
            return
        deadline = time.monotonic() + 90
        while _create_room(http) != 200:
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
    cli = ["redis-cli", "-p", str(redis.plain), "--no-auth-warning", "-a", PASSWORD, "hkeys", "rooms"]
    assert subprocess.run(cli, capture_output=True, text=True, check=True).stdout.split() == ["study"]


def _create_room(port: int) -> int:
    claims = {"iss": KEY, "exp": int(time.time()) + 60, "video": {"roomCreate": True}}
    headers = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}
    url = f"http://127.0.0.1:{port}/twirp/livekit.RoomService/CreateRoom"
    try:
        return httpx.post(url, json={"name": "study"}, headers=headers, trust_env=False).status_code
    except httpx.HTTPError:
        return 0
