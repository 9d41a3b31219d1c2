"""The real livekit-server accepts the configuration, key file and arguments the operator gives it."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_config import livekit_config
from talktime_operator.children.sfu_keys import SfuKeys, build_sfu_keys
from talktime_operator.names import Key, Owner
from talktime_operator.sfu_health import parse_metrics

KEY = Key("talktime", "eu")
OWNER = Owner("talktime.dev/v1alpha1", "SFUPool", "eu", "u")


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
    deadline = time.monotonic() + 20
    while True:
        try:
            answer = httpx.get(url, trust_env=False)
            if answer.status_code == 200:
                return answer
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


def test_livekit_server_starts_with_it(tmp_path: Path) -> None:
    helpers = _helpers()
    http, tcp, udp, metrics, redis = (helpers.free_port() for _ in range(5))
    spec = SFUPoolSpec.model_validate(
        {
            "network": {"ports": {"http": http, "tcp": tcp, "udp": udp, "metrics": metrics}},
            "redis": {"address": f"127.0.0.1:{redis}"},
        }
    )
    keys = build_sfu_keys(KEY, OWNER, SfuKeys("APIabc", "a-secret-of-at-least-32-characters-long", "pw-of-redis"))
    key_file = tmp_path / "keys.yaml"
    key_file.write_text(keys["stringData"]["keys.yaml"])
    key_file.chmod(0o440)
    config = yaml.safe_dump({**livekit_config(KEY, spec), "key_file": str(key_file)})
    redis_args = [helpers.binary("redis-server"), "--port", str(redis), "--bind", "127.0.0.1", "--save", ""]
    with process([*redis_args, "--requirepass", "pw-of-redis", "--dir", str(tmp_path)], tmp_path / "redis.log"):
        _wait_port(redis)
        log = tmp_path / "livekit.log"
        arguments = [helpers.binary("livekit-server"), "--node-ip=127.0.0.1"]
        with process(
            arguments, log, LIVEKIT_CONFIG=config, REDIS_PASSWORD="pw-of-redis", LIVEKIT_WEBHOOK_API_KEY="APIabc"
        ):
            until(f"http://127.0.0.1:{http}/", log)
            node_id, rooms = parse_metrics(until(f"http://127.0.0.1:{metrics}/metrics", log).text)
            assert node_id.startswith("ND_")
            assert rooms == 0
            assert "127.0.0.1" in log.read_text()
            assert "a-secret-of" not in log.read_text()


def _wait_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"nothing listens on {port}")
