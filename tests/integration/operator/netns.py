"""Two network namespaces joined by a cable: servers in one, clients in the other, firewalls by nftables."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER, CLIENT = "10.250.9.1", "10.250.9.2"


def run(*words: str, stdin: str | None = None) -> None:
    subprocess.run(words, check=True, input=stdin, text=True, capture_output=True)


@dataclass(frozen=True)
class Namespace:
    """One of them. Entered with nsenter: `ip netns exec` would mount another /sys."""

    name: str

    def command(self, *words: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name}", *words]

    def rules(self, text: str) -> None:
        run(*self.command("nft", "-f", "-"), stdin=text)


@dataclass(frozen=True)
class Cable:
    """Addresses are SERVER and CLIENT."""

    server: Namespace
    client: Namespace


@contextmanager
def cable() -> Iterator[Cable]:
    """Gone afterwards, with everything in it."""
    mark = f"{os.getpid()}"
    made = Cable(Namespace(f"tt-s-{mark}"), Namespace(f"tt-c-{mark}"))
    try:
        for space in (made.server, made.client):
            run("ip", "netns", "add", space.name)
            run("ip", "-n", space.name, "link", "set", "lo", "up")
        peer = ("peer", "name", "cable", "netns", made.server.name)
        run("ip", "-n", made.client.name, "link", "add", "cable", "type", "veth", *peer)
        for space, address in ((made.server, SERVER), (made.client, CLIENT)):
            run("ip", "-n", space.name, "addr", "add", f"{address}/24", "dev", "cable")
            run("ip", "-n", space.name, "link", "set", "cable", "up")
        yield made
    finally:
        for space in (made.server, made.client):
            subprocess.run(["ip", "netns", "del", space.name], check=False, capture_output=True)


@contextmanager
def process(words: Sequence[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Ended by its own handle, also after a failure."""
    with log.open("wb") as out:
        child = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        try:
            yield child
        finally:
            child.kill()
            child.wait()
