"""What an SRE does that drains SFU nodes, and how it is taken back afterwards."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.drain_rounds import stand
from hack.chaos.house import House
from hack.demo.release import NAMESPACE as RELEASE


@dataclass
class Doing:
    """An act under way. `command`: what runs as long as its node drains, if it is such a command."""

    command: subprocess.Popen[bytes] | None = None
    log: Path = field(default_factory=Path)

    @property
    def held(self) -> bool | None:
        """Whether the command still waits; None: there is none."""
        return None if self.command is None else self.command.poll() is None

    @property
    def over(self) -> bool:
        return self.command is None or self.command.poll() is not None

    def stop(self) -> None:
        if self.command is not None and self.command.poll() is None:
            self.command.kill()
            self.command.wait()

    def wrong(self) -> list[str]:
        """Anything but an exit with 0."""
        if self.command is None or self.command.poll() == 0:
            return []
        return [f"kubectl drain exited with {self.command.poll()}: {self.log.read_text()[-300:]}"]

    def refusals(self) -> int:
        """How many evictions the disruption budget refused."""
        return self.log.read_text().count("disruption budget") if self.command is not None else 0


@dataclass(frozen=True)
class Act:
    """`why`: the drain's reason as the pool tells it; `nodes`: how many drain, one after the other; `renews`: another
    node takes each one's place before the act is over."""

    name: str
    why: str
    begin: Callable[[House], Doing]
    mend: Callable[[House], None]
    nodes: int = 1
    renews: bool = False


def scale_down(house: House) -> Doing:
    stand.scale(house, 1)
    return Doing()


def scale_up(house: House) -> None:
    stand.scale(house, stand.NODES)


def upgrade(house: House) -> Doing:
    """Another livekit configuration (its track limit), so another template."""
    found = house.kube.json("-n", RELEASE, "get", "sfupool", stand.POOL)
    more = int(found["spec"]["autoscaling"]["sessionsPerNode"]) + 1
    change = json.dumps({"spec": {"autoscaling": {"sessionsPerNode": more}}})
    house.kube("-n", RELEASE, "patch", "sfupool", stand.POOL, "--type=merge", "--patch", change)
    return Doing()


def drain(house: House) -> Doing:
    """In the background: it is held until the machine's SFU node is empty."""
    log = house.folder / "kubectl-drain.log"
    flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=300s")
    with log.open("wb") as out:
        argv = [*house.kube.argv, "drain", stand.AWAY, *flags]
        return Doing(subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT), log)


def uncordon(house: House) -> None:
    house.kube("uncordon", stand.AWAY)


def nothing(_: House) -> None:
    return


SCALE_DOWN = Act("scale-down", "ScaleDown", scale_down, scale_up)
UPGRADE = Act("upgrade", "Update", upgrade, nothing, nodes=stand.NODES, renews=True)
NODE_DRAIN = Act("node-drain", "Cordoned", drain, uncordon)


def order(scale_downs: int, upgrades: int, drains: int) -> list[Act]:
    """All acts, each kind spread over the whole run: a run that has to end early has some of each. Pure."""
    acts = [(SCALE_DOWN, scale_downs), (UPGRADE, upgrades), (NODE_DRAIN, drains)]
    placed = [((number + 0.5) / count, act) for act, count in acts for number in range(count)]
    return [act for _, act in sorted(placed, key=lambda one: one[0])]
