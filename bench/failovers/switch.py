"""What the pool's status says of where new rooms go, as it is told: one kubectl that watches, no polling beside a
measurement."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import datetime

from bench.failovers.stand import AWAY, POOL, pool_status
from hack.chaos import faults
from hack.chaos.house import House
from hack.demo.release import NAMESPACE as RELEASE


class Watched:
    """`with Watched(house) as watched`: notes every target from now on with the moment at which it was told here."""

    def __init__(self, house: House) -> None:
        target = 'jsonpath={.status.active.target}{"\\n"}'
        self._argv = [*house.kube.argv, "-n", RELEASE, "get", "sfu", POOL, "--watch", f"--output={target}"]
        self._told: list[tuple[float, str]] = []
        self._more = threading.Condition()

    def __enter__(self) -> Watched:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def until(self, target: str, since: float, seconds: float) -> float | None:
        """When it was first told so at or after `since` (unix seconds); None: not within these seconds from now."""

        def first() -> float | None:
            return next((at for at, told in self._told if told == target and at >= since), None)

        with self._more:
            self._more.wait_for(lambda: first() is not None, seconds)
            return first()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._more:
                self._told.append((time.time(), line.strip()))
                self._more.notify_all()


@dataclass(frozen=True)
class Standing:
    """How often the pool has switched, and since when the process of its SFU runs."""

    switches: int
    sfu_began: datetime | None

    @classmethod
    def now(cls, house: House) -> Standing:
        """Raises RuntimeError where nobody answers."""
        active = pool_status(house).get("active", {})
        return cls(int(active.get("count", 0)), faults.sfu_began(house, AWAY))

    def restarted_since(self, before: Standing) -> bool:
        """The beginning is computed from the uptime, to a hundredth of a second."""
        if self.sfu_began is None or before.sfu_began is None:
            return True
        return abs((self.sfu_began - before.sfu_began).total_seconds()) > 1
