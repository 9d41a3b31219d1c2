"""UDP that is dropped while HTTP answers: seen by the operator's own look at a real livekit-server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_config import NODE_IP, livekit_config
from talktime_operator.names import Key

from tests.integration.operator.apiserver import binary
from tests.integration.operator.netns import SERVER, Cable, cable, process

KEY, SECRET = "APIprobe", "a-secret-of-at-least-32-characters-long"
DROP = """
table ip lossy {
  chain in {
    type filter hook input priority 0
    udp dport 7882 counter drop
  }
}
"""


@pytest.fixture
def net() -> Iterator[Cable]:
    with cable() as made:
        yield made


class Rounds:
    """The operator's rounds in the clients' namespace."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self.seen: list[dict[str, Any]] = []

    def until(self, true: Callable[[dict[str, Any]], bool], seconds: float = 180.0) -> dict[str, Any]:
        """The first round that is so; those of it on are kept in `seen`."""
        deadline = time.monotonic() + seconds
        assert self._child.stdout is not None
        while time.monotonic() < deadline:
            self.seen.append(json.loads(self._child.stdout.readline()))
            if true(self.seen[-1]):
                return self.seen[-1]
        raise AssertionError(self.seen[-3:])


def test_udp_that_is_dropped_while_http_answers_makes_the_node_sick_and_is_no_rooms(net: Cable, tmp_path: Path) -> None:
    config = livekit_config(Key("talktime", "eu"), SFUPoolSpec.model_validate({}))
    del config["redis"], config["key_file"], config["webhook"]
    text = yaml.safe_dump(config | {"keys": {KEY: SECRET}}).replace(NODE_IP, SERVER)
    log = tmp_path / "livekit.log"
    words = net.client.command(sys.executable, str(Path(__file__).with_name("media_rounds.py")), SERVER, KEY, SECRET)
    server = net.server.command(binary("livekit-server"), f"--node-ip={SERVER}")
    with (
        process(server, log, LIVEKIT_CONFIG=text),
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child,
    ):
        try:
            rounds = Rounds(child)
            rounds.until(lambda r: r["verdict"] == "good" and r["media"] == "good")
            net.server.rules(DROP)
            assert _http_answers(net)
            sick = rounds.until(lambda r: r["sick"])
            assert (sick["verdict"], sick["cause"], sick["media"]) == ("bad", "MediaBlocked", "bad")
            bad = rounds.until(lambda r: r["node"] == "bad")
            assert bad["bad"] == ["NO_MEDIA"]
            assert "firewall" in bad["message"]
            assert _http_answers(net)
            net.server.rules("delete table ip lossy\n")
            rounds.until(lambda r: r["verdict"] == "good" and r["media"] == "good" and r["node"] == "good")
            # The looks' own rooms are never counted: a drain waits for a zero.
            assert {r["rooms"] for r in rounds.seen if "rooms" in r} <= {0, None}
        finally:
            child.kill()


def _http_answers(net: Cable) -> bool:
    ask = net.client.command("curl", "-sf", "-m", "30", "--noproxy", "*", f"http://{SERVER}:7880/")
    return subprocess.run(ask, capture_output=True, check=False).returncode == 0
