"""UDP that is dropped while HTTP answers: seen by the operator's own look at a real livekit-server, and by a guest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_config import NODE_IP, livekit_config
from talktime_operator.names import Key

from tests.integration.operator.apiserver import binary
from tests.integration.operator.netns import SERVER, Cable, cable, process
from tests.integration.operator.silent_guests import helper

KEY, SECRET = "APIprobe", "a-secret-of-at-least-32-characters-long"
DROP = """
table ip lossy {
  chain in {
    type filter hook input priority 0
    udp dport 7882 counter drop
  }
}
"""
ALL_DROPPED = DROP.replace("udp dport 7882 counter drop", "udp dport 7882 drop; tcp dport 7881 drop")
SILENT_SEC = helper().SILENT_SEC


@pytest.fixture
def net() -> Iterator[Cable]:
    with cable() as made:
        yield made


@contextmanager
def livekit(net: Cable, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A livekit-server as a pool's node has it, without Redis."""
    config = livekit_config(Key("talktime", "eu"), SFUPoolSpec.model_validate({}))
    del config["redis"], config["key_file"], config["webhook"]
    text = yaml.safe_dump(config | {"keys": {KEY: SECRET}}).replace(NODE_IP, SERVER)
    server = net.server.command(binary("livekit-server"), f"--node-ip={SERVER}")
    with process(server, folder / "livekit.log", LIVEKIT_CONFIG=text) as running:
        until_it_answers(net)
        yield running


class Rounds:
    """What a script in the clients' namespace tells, line by line."""

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
    words = net.client.command(sys.executable, str(Path(__file__).with_name("media_rounds.py")), SERVER, KEY, SECRET)
    with livekit(net, tmp_path), subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
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


def test_a_server_that_freezes_in_the_middle_of_a_look_has_not_lost_udp(net: Cable, tmp_path: Path) -> None:
    words = net.client.command(sys.executable, str(Path(__file__).with_name("media_rounds.py")), SERVER, KEY, SECRET)
    with livekit(net, tmp_path) as server, subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        try:
            rounds = Rounds(child)
            rounds.until(lambda r: r["verdict"] == "good" and r["media"] == "good")
            rounds.seen.clear()
            server.send_signal(signal.SIGSTOP)
            sick = rounds.until(lambda r: r["sick"])
            assert (sick["cause"], sick["bad"]) == ("AllNodesSick", ["HUNG"])
            assert {r["media"] for r in rounds.seen} == {"good"}
        finally:
            child.kill()


@pytest.mark.real_session
def test_a_guests_own_statistics_show_a_path_that_only_the_server_still_uses(net: Cable, tmp_path: Path) -> None:
    """What it sends is lost, its server's reports still come, and the SDK says nothing for a long while."""
    script = str(Path(__file__).with_name("silent_guests.py"))
    words = net.client.command(sys.executable, script, f"ws://{SERVER}:7880", KEY, SECRET)
    with livekit(net, tmp_path), subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        try:
            told = Rounds(child)
            seen: list[float] = []

            def enough(row: dict[str, Any]) -> bool:
                seen.append(row["silent"])
                return row["known"] and len(seen) >= 10

            told.until(enough)
            assert max(seen) < SILENT_SEC, "a path that works would be asked about"
            net.server.rules(ALL_DROPPED)
            lost_at = time.monotonic()
            silent = told.until(lambda row: row.get("silent", 0) >= SILENT_SEC or "event" in row)
            assert "event" not in silent, "the SDK was quicker"
            assert time.monotonic() - lost_at < SILENT_SEC + 2
        finally:
            child.kill()


def until_it_answers(net: Cable) -> None:
    deadline = time.monotonic() + 30
    while not _http_answers(net):
        assert time.monotonic() < deadline, "livekit-server does not answer"
        time.sleep(0.2)


def _http_answers(net: Cable) -> bool:
    ask = net.client.command("curl", "-sf", "-m", "30", "--noproxy", "*", f"http://{SERVER}:7880/")
    return subprocess.run(ask, capture_output=True, check=False).returncode == 0
