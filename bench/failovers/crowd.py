"""The guests' program, run in the network of a node, and what it has told so far."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from hack.cluster.layout import REPOSITORY
from hack.cluster.network import NAMESPACES

Event = dict[str, Any]
PROGRAM = Path(__file__).with_name("guests.py")


class Crowd:
    """`with Crowd(...) as crowd`: the guests leave and the program ends afterwards."""

    def __init__(self, network: str, url: str, key: str, log: Path) -> None:
        """`network`: name of a network namespace; `log` takes what the program says beside its events."""
        self._argv = ["nsenter", f"--net={NAMESPACES / network}", "--", sys.executable, str(PROGRAM), url]
        self._environment = {**_without_proxy(), "KEY": key, "PYTHONPATH": str(REPOSITORY)}
        self._log = log
        self._events: list[Event] = []
        self._more = threading.Condition()

    def __enter__(self) -> Crowd:
        self._start()
        return self

    def _start(self) -> None:
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._argv, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out
            )
        threading.Thread(target=self._read, args=[self._process.stdout], daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def come(self, who: str) -> None:
        """Opens one more interview. A program that has ended begins anew: the SDK ends the one it panics in."""
        if self._process.poll() is not None:
            self._start()
        self._order({"do": "come", "who": who})

    def begin_anew(self) -> None:
        """Whoever is there still is gone without a word: for a program that hangs. (livekit's SDK 1.1.21 was seen to
        block for ever in a disconnect that came while it mended its connection, two times in a hundred rounds.)"""
        self._process.kill()
        self._process.wait()

    def leave(self, *who: str) -> None:
        """These hang up; without a name all do."""
        if self._process.poll() is not None:
            return
        self._order({"do": "leave", "who": list(who)})

    def events(self, since: float = 0.0) -> list[Event]:
        """Since then (unix seconds)."""
        with self._more:
            return [event for event in self._events if event["at"] >= since]

    def until(self, what: str, enough: Callable[[list[Event]], bool], seconds: float, since: float = 0.0) -> bool:
        """Waits until the events since then are enough; False when they were not in time."""
        deadline = time.monotonic() + seconds
        while not enough(self.events(since)):
            if self._process.poll() is not None:
                raise RuntimeError(f"the guests' program ended while waiting for: {what}; see {self._log}")
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._more:
                self._more.wait(min(left, 0.5))
        return True

    def _order(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(order) + "\n").encode())
        self._process.stdin.flush()

    def _read(self, told: IO[bytes]) -> None:
        for line in told:
            event = json.loads(line)
            with self._more:
                self._events.append(event)
                self._more.notify_all()
            with self._log.open("ab") as out:
                out.write(line)


def _without_proxy() -> dict[str, str]:
    """A proxy of the machine leads out of it, not into the node's network."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
