"""The real livekit-server accepts the configuration, key file and arguments the operator gives it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import jwt
import pytest
import yaml
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_config import NODE_IP, livekit_config
from talktime_operator.children.sfu_keys import SfuKeys, entries, ring_entry
from talktime_operator.names import Key
from talktime_operator.pools.rotation import Keys, Pair, Stage, fingerprint
from talktime_operator.sfu_reading import parse_metrics

KEY = Key("talktime", "eu")
OLD, NEW = (
    Pair("APIabc", "a-secret-of-at-least-32-characters-long"),
    Pair("APIxyz", "other-secret-of-32-characters-or-more"),
)


def _helpers() -> Any:
    name = "talktime_tests_operator_apiserver"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("apiserver.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@contextmanager
def process(args: list[str], log: Path, **environment: str) -> Iterator[None]:
    with log.open("wb") as out:
        child = subprocess.Popen(args, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        try:
            yield
        finally:
            child.kill()
            child.wait()


def until(url: str, log: Path) -> httpx.Response:
    deadline = time.monotonic() + 90
    while True:
        try:
            answer = httpx.get(url, trust_env=False)
            if answer.status_code == 200:
                return answer
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


def text(config: dict[str, Any], key_file: Path) -> str:
    """As the kubelet makes it, on loopback."""
    return str(yaml.safe_dump({**config, "key_file": str(key_file)}).replace(NODE_IP, "127.0.0.1"))


def test_livekit_server_starts_with_it(tmp_path: Path) -> None:
    helpers = _helpers()
    http, tcp, udp, metrics, redis = (helpers.free_port() for _ in range(5))
    spec = SFUPoolSpec.model_validate(
        {
            "network": {"ports": {"http": http, "tcp": tcp, "udp": udp, "metrics": metrics}},
            "redis": {"address": f"127.0.0.1:{redis}"},
        }
    )
    key_file = tmp_path / "keys.yaml"
    key_file.write_text(entries(SfuKeys(Keys(OLD), "pw-of-redis"))["keys.yaml"])
    key_file.chmod(0o440)
    config = text(livekit_config(KEY, spec), key_file)
    redis_args = [helpers.binary("redis-server"), "--port", str(redis), "--bind", "127.0.0.1", "--save", ""]
    with process([*redis_args, "--requirepass", "pw-of-redis", "--dir", str(tmp_path)], tmp_path / "redis.log"):
        _wait_port(redis)
        log = tmp_path / "livekit.log"
        arguments = [helpers.binary("livekit-server"), "--node-ip=127.0.0.1"]
        with process(
            arguments, log, LIVEKIT_CONFIG=config, REDIS_PASSWORD="pw-of-redis", LIVEKIT_WEBHOOK_API_KEY="APIabc"
        ):
            until(f"http://127.0.0.1:{http}/", log)
            node_id, rooms, signals = parse_metrics(until(f"http://127.0.0.1:{metrics}/metrics", log).text)
            assert node_id.startswith("ND_")
            assert (rooms, signals) == (0, 0)
            assert "127.0.0.1" in log.read_text()
            assert "a-secret-of" not in log.read_text()


def test_a_node_of_a_rotation_takes_both_pairs_and_the_next_one_only_the_new(tmp_path: Path) -> None:
    """What each stage's key file makes of the real server; a room service call with a pair's signature is the judge."""
    helpers = _helpers()
    data = entries(SfuKeys(Keys(NEW, OLD, Stage.MOVING)))
    got = {}
    for name, ring in (("before", (OLD,)), ("both", (OLD, NEW)), ("after", (NEW,))):
        http, tcp, udp, metrics = (helpers.free_port() for _ in range(4))
        network = {"ports": {"http": http, "tcp": tcp, "udp": udp, "metrics": metrics}}
        config = livekit_config(KEY, SFUPoolSpec.model_validate({"network": network}))
        del config["redis"]
        key_file = tmp_path / f"{name}.yaml"
        key_file.write_text(data[ring_entry(fingerprint(ring))])
        key_file.chmod(0o440)
        environment = {
            "LIVEKIT_CONFIG": text(config, key_file),
            "LIVEKIT_WEBHOOK_API_KEY": ring[0].api_key,
        }
        log = tmp_path / f"{name}.log"
        with process([helpers.binary("livekit-server"), "--node-ip=127.0.0.1"], log, **environment):
            until(f"http://127.0.0.1:{http}/", log)
            got[name] = tuple(_room_service(http, pair) for pair in (OLD, NEW))
    assert got == {"before": (200, 401), "both": (200, 200), "after": (401, 200)}


def test_a_node_tells_the_signal_connections_that_came_to_it_for_another_nodes_room(tmp_path: Path) -> None:
    """What a drain waits for: where a client came to, not where its room is."""
    helpers = _helpers()
    redis = helpers.free_port()
    redis_args = [helpers.binary("redis-server"), "--port", str(redis), "--bind", "127.0.0.1", "--save", ""]
    with ExitStack() as stack:
        stack.enter_context(process([*redis_args, "--dir", str(tmp_path)], tmp_path / "redis.log"))
        _wait_port(redis)
        key_file = tmp_path / "keys.yaml"
        key_file.write_text(entries(SfuKeys(Keys(OLD), ""))["keys.yaml"])
        key_file.chmod(0o440)
        nodes = []
        for name in ("came", "room"):
            http, tcp, udp, metrics = (helpers.free_port() for _ in range(4))
            ports = {"http": http, "tcp": tcp, "udp": udp, "metrics": metrics}
            spec = SFUPoolSpec.model_validate({"network": {"ports": ports}, "redis": {"address": f"127.0.0.1:{redis}"}})
            environment = {
                "LIVEKIT_CONFIG": text(livekit_config(KEY, spec), key_file),
                "LIVEKIT_WEBHOOK_API_KEY": OLD.api_key,
            }
            log = tmp_path / f"{name}.log"
            arguments = [helpers.binary("livekit-server"), "--node-ip=127.0.0.1"]
            stack.enter_context(process(arguments, log, **environment))
            until(f"http://127.0.0.1:{http}/", log)
            nodes.append((http, f"http://127.0.0.1:{metrics}/metrics", log))
        (door, came, came_log), (_, room, room_log) = nodes
        room_node = parse_metrics(until(room, room_log).text)[0]

        def counts() -> list[tuple[int | None, int]]:
            return [parse_metrics(until(url, log).text)[1:] for url, log in ((came, came_log), (room, room_log))]

        assert _room_service(door, OLD, "CreateRoom", {"name": "r", "node_id": room_node}) == 200
        assert counts() == [(0, 0), (1, 0)]
        token = jwt.encode(
            {
                "iss": OLD.api_key,
                "sub": "guest",
                "exp": int(time.time()) + 60,
                "video": {"roomJoin": True, "room": "r"},
            },
            OLD.api_secret,
            "HS256",
        )

        async def join() -> None:
            where = f"ws://127.0.0.1:{door}/rtc?access_token={token}&protocol=15"
            async with aiohttp.ClientSession(trust_env=False) as client, client.ws_connect(where) as signal:
                await signal.receive_bytes(timeout=60)
                assert counts() == [(0, 1), (1, 0)]

        asyncio.run(join())
        deadline = time.monotonic() + 90
        while counts()[0] != (0, 0):
            assert time.monotonic() < deadline, counts()
            time.sleep(0.2)


def _room_service(http: int, pair: Pair, call: str = "ListRooms", body: dict[str, str] | None = None) -> int:
    video = {"roomList": True, "roomCreate": True}
    claims = {"iss": pair.api_key, "exp": int(time.time()) + 60, "video": video}
    headers = {"Authorization": f"Bearer {jwt.encode(claims, pair.api_secret, 'HS256')}"}
    url = f"http://127.0.0.1:{http}/twirp/livekit.RoomService/{call}"
    return httpx.post(url, json=body or {}, headers=headers, trust_env=False).status_code


def _wait_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"nothing listens on {port}")
