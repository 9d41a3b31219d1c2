"""A cut network is cut for that pod's network alone, and mended also when its process is gone."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from hack.chaos.faults import cut_from_ledger
from hack.chaos.house import House
from hack.chaos.victims import Victim

LEDGER = "127.0.0.2"
CONNECT = f"import socket; socket.create_connection(('{LEDGER}', 8080), timeout=1)"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


class Kubectl:
    """Knows one Service."""

    def json(self, *_: str) -> Any:
        return {"spec": {"clusterIP": LEDGER}}


class Stand:
    kube = Kubectl()


@contextlib.contextmanager
def network() -> Iterator[list[str]]:
    """A network namespace with loopback; the words that enter it."""
    name = f"tt-cut-{uuid.uuid4().hex[:6]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield ["nsenter", f"--net=/run/netns/{name}", "--"]
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def connects(enter: list[str]) -> bool:
    return subprocess.run([*enter, sys.executable, "-c", CONNECT], capture_output=True).returncode == 0


def test_packets_to_the_ledger_vanish_until_it_is_mended() -> None:
    serve = f"import socket, time; s = socket.create_server(('{LEDGER}', 8080)); time.sleep(600)"
    with network() as enter, network() as elsewhere:
        servers = [subprocess.Popen([*where, sys.executable, "-c", serve]) for where in (enter, elsewhere)]
        process = subprocess.Popen([*enter, "sleep", "600"])
        try:
            deadline = time.monotonic() + 60
            while not (connects(enter) and connects(elsewhere)):
                assert time.monotonic() < deadline, "the servers did not start"
            victim = Victim("session", process.pid, Path("/nowhere"), "uid")
            with cut_from_ledger(cast("House", Stand()), victim):
                assert not connects(enter)
                assert connects(elsewhere)
                process.kill()
                process.wait()
            assert connects(enter)
        finally:
            for one in (*servers, process):
                one.kill()
                one.wait()


def test_this_machines_own_network_is_left_alone() -> None:
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert "talktime_chaos" not in listed
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
