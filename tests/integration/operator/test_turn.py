"""TURN over TLS of a real livekit-server, configured as the operator configures it, from behind a firewall.

Proven: the server tells its TURN name with credentials; its certificate is good for that name by our CA; relayed audio
goes both ways through TLS alone while the client's namespace drops all UDP, and every other TCP port but signalling.
Twice: livekit's own client with the TLS done beside it (turn_client.py says why), and a pion client that does all of it
itself. Not proven: a browser, and a load balancer: port 443, which livekit-server always tells, is mapped to the node's
TURN port by a rule of the server's namespace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from livekit.api import AccessToken, VideoGrants
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_config import NODE_IP, livekit_config
from talktime_operator.names import Key

from bench.density import built
from tests.certificates import Authority
from tests.integration.operator.apiserver import binary
from tests.integration.operator.netns import CLIENT, SERVER, Cable, cable, process

pytestmark = pytest.mark.real_session

KEY, SECRET = "APIturn", "a-secret-of-at-least-32-characters-long"
NAME = "turn.talktime.test"
LOAD_BALANCER = """
table ip balancer { chain in { type nat hook prerouting priority dstnat; tcp dport 443 redirect to :5349; }; }
"""
FIREWALL = """
table ip firewall {
  chain out {
    type filter hook output priority 0;
    oifname "lo" accept
    ip daddr %(client)s accept
    meta l4proto udp counter drop
    tcp dport != { 443, 7880 } counter drop
  }
}
"""


@pytest.fixture
def net() -> Iterator[Cable]:
    with cable() as made:
        yield made


def config(folder: Path) -> str:
    network = {
        "turn": {"domain": NAME, "relayPorts": {"start": 40000, "end": 40099}},
        "tlsSecretRef": {"name": "turn-tls"},
    }
    made = livekit_config(Key("talktime", "eu"), SFUPoolSpec.model_validate({"network": network}))
    del made["redis"], made["key_file"], made["webhook"]
    authority = Authority.create()
    certificate, key = authority.issue(NAME)
    (folder / "tls.crt").write_text(certificate)
    (folder / "tls.key").write_text(key)
    (folder / "ca.crt").write_text(authority.pem)
    made |= {"keys": {KEY: SECRET}, "room": {"auto_create": True}}
    # What Secret and kubelet do in a cluster.
    text = yaml.safe_dump(made).replace("/etc/livekit-tls", str(folder)).replace(NODE_IP, SERVER)
    assert text.count(str(folder)) == 2
    assert f"{SERVER}/32" in text
    return str(text)


def token(identity: str, room: str) -> str:
    return AccessToken(KEY, SECRET).with_identity(identity).with_grants(VideoGrants(room_join=True, room=room)).to_jwt()


@pytest.fixture
def server(net: Cable, tmp_path: Path) -> Iterator[None]:
    log = tmp_path / "livekit.log"
    net.server.rules(LOAD_BALANCER)
    net.client.rules(FIREWALL % {"client": CLIENT})
    words = net.server.command(binary("livekit-server"), f"--node-ip={SERVER}")
    with process(words, log, LIVEKIT_CONFIG=config(tmp_path)):
        _wait(net, log)
        yield


@pytest.mark.usefixtures("server")
def test_audio_is_held_over_turn_tls_where_udp_is_dropped(net: Cable, tmp_path: Path) -> None:
    words = [sys.executable, str(Path(__file__).with_name("turn_client.py")), f"ws://{SERVER}:7880"]
    tokens = ",".join((token("one", "study"), token("two", "study"), token("looks", "elsewhere")))
    told = _said(net.client.command(*words, tokens, SERVER, str(tmp_path / "ca.crt"), CLIENT))
    assert told["url"] == f"turns:{NAME}:443?transport=tcp"
    # A frame is 10 ms: three seconds of it say that it is held.
    assert min(told["heard"].values()) > 300, told
    assert min(told["bytes"]) > 20_000, told
    assert told["kinds"] == [["RELAY", "TRANSPORT_TCP"]], told


@pytest.mark.usefixtures("server")
def test_a_client_that_does_the_handshake_itself_is_heard_with_our_ca_and_not_without(
    net: Cable, tmp_path: Path
) -> None:
    program = built(tmp_path)
    look = (
        "import asyncio, sys; from tests.integration.operator.turn_client import told; asyncio.run(told(*sys.argv[1:]))"
    )
    turn = _said(net.client.command(sys.executable, "-c", look, f"ws://{SERVER}:7880", token("looks", "elsewhere")))
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{SERVER} {NAME}\n")
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", script, str(hosts), str(program), "-url", f"ws://{SERVER}:7880"]
    words += ["-key", KEY, "-secret", SECRET, "-turn", turn["url"]]
    words += ["-turn-user", turn["username"], "-turn-password", turn["credential"]]
    (tmp_path / "other.crt").write_text(Authority.create("Somebody else's CA").pem)
    joined, talked = _talk(net.client.command(*words), tmp_path / "ca.crt", "join 1 0\nhold 8\n")
    assert joined["failed"] == []
    # 50 packets a second each way for 8 s; a quarter of it would do.
    assert talked["received"] > 200, talked
    assert talked["silent"] == 0, talked
    (refused,) = _talk(net.client.command(*words), tmp_path / "other.crt", "join 1 0\n")
    assert len(refused["failed"]) == 1, "without the CA there is no way through"


def _said(words: list[str]) -> dict[str, Any]:
    """The last line it printed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _talk(words: list[str], ca: Path, commands: str) -> list[dict[str, Any]]:
    environment = {**os.environ, "SSL_CERT_FILE": str(ca), "SSL_CERT_DIR": "/nowhere"}
    done = subprocess.run(
        words, input=commands, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def _wait(net: Cable, log: Path) -> None:
    ask = net.client.command("curl", "-sf", "-m", "1", "--noproxy", "*", f"http://{SERVER}:7880/")
    deadline = time.monotonic() + 90
    while subprocess.run(ask, capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)
