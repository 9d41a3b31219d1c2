"""How many two-party audio rooms does one core of the real livekit-server carry before joins or packets suffer?

livekit-server (the pinned build, alone, no Redis) is held on one core; the generator (hack/tools/livekit/rooms: pion,
two participants a room, 32 kbit/s each way, in one process) on the others. Rooms are added step by step; after each
step all talk for a while. A step is bad when a join failed, when the 95th percentile of joins took longer than a
second, or when in three talks in a row more than 0.5 % of the packets were lost or more than 1 % came later than a
small jitter buffer hides.

    python -m bench.density [--step 20] [--hold 10] [--minutes 7]

Rooms per core is computed from the server's own CPU time (utime + stime of its process over the talk), at the last good
step: rooms / cores used. It is not what the machine carried, because the generator needs as much as the server; when
the generator's cores were full first, that is said in `broke_by` and the server could carry more than was seen. Method:
docs/density.md. Last line: `RESULT {json}`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from hack.cluster.layout import REPOSITORY, binaries, state_root
from hack.machine.installs import go

KEY, SECRET = "density", "a-secret-of-at-least-thirty-two-characters"
JOIN_P95_MS = 1000.0
LOST_SHARE, LATE_SHARE = 0.005, 0.01
FULL = 0.9
"""Of its cores: a process that uses more has no room left for bursts."""
JOINS_PER_SECOND = 4.0
TALKS = 3
"""So many bad talks in a row make a step bad."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Step:
    """One step. Shares are of the packets that were to come; cores are CPU seconds per second during the talk.

    `other_cores`: what everything else on the machine used meanwhile; `talks`: how many it took to have a good one.
    """

    rooms: int
    failed: int
    join_p95_ms: float
    lost_share: float
    late_share: float
    silent: int
    server_cores: float
    generator_cores: float
    join_cpu_ms: float
    rss_mib: int
    other_cores: float = 0.0
    talks: int = 1

    def trouble(self) -> str:
        """Why it is bad; empty: it is good."""
        if self.failed:
            return f"{self.failed} joins failed"
        if self.join_p95_ms > JOIN_P95_MS:
            return f"joins took {self.join_p95_ms:.0f} ms at p95"
        if self.silent:
            return f"{self.silent} participants heard nothing"
        if self.lost_share > LOST_SHARE:
            return f"{self.lost_share:.2%} of the packets were lost"
        if self.late_share > LATE_SHARE:
            return f"{self.late_share:.2%} of the packets were late"
        return ""


def p95(samples: Sequence[float]) -> float:
    """Nearest rank; 0 of nothing."""
    ordered = sorted(samples)
    return ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else 0.0


def result(steps: Sequence[Step], server_cores: int, generator_cores: int) -> dict[str, Any]:
    """The RESULT line. Raises ValueError when not even the first step was good."""
    good = [step for step in steps if not step.trouble()]
    if not good or good[0] is not steps[0]:
        raise ValueError(f"the first step was bad already: {steps[0].trouble() if steps else 'none'}")
    last = good[-1] if not steps[-1].trouble() else steps[len(steps) - 2]
    bad = steps[-1].trouble()
    worst = steps[-1]
    server_full = worst.server_cores >= FULL * server_cores
    generator_full = worst.generator_cores >= FULL * generator_cores
    by = {(True, False): "server", (False, True): "generator", (True, True): "both"}.get((server_full, generator_full))
    return {
        "rooms_per_core": round(last.rooms / last.server_cores),
        "good_rooms": last.rooms,
        "server_cores_at_good": round(last.server_cores, 2),
        "join_p95_ms_at_good": round(last.join_p95_ms),
        "broke_at_rooms": worst.rooms if bad else None,
        "broke_because": bad or "not within the time",
        "broke_by": by or "neither was full",
        "core_ms_per_room_second": round(1000 * last.server_cores / last.rooms, 2),
        "core_ms_per_join": round(sum(step.join_cpu_ms for step in good) / len(good), 1),
        "rss_mib_at_good": last.rss_mib,
        "other_cores_at_most": round(max(step.other_cores for step in steps), 2),
        "server_pinned_to_cores": server_cores,
        "generator_cores": generator_cores,
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine_cpu_seconds() -> float:
    """Of all processors, whoever used them; time the machine's host took away counts, too."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / TICKS


def rss_mib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextlib.contextmanager
def livekit(folder: Path, cores: set[int]) -> Iterator[tuple[int, int]]:
    """A livekit-server on these cores: its pid and HTTP port. As the operator configures its nodes, on loopback."""
    http, tcp, udp = free_ports(3)
    rtc = {"tcp_port": tcp, "udp_port": udp, "node_ip": "127.0.0.1", "use_external_ip": False}
    config = {
        "port": http,
        "bind_addresses": ["127.0.0.1"],
        "keys": {KEY: SECRET},
        "logging": {"level": "warn"},
        "rtc": {**rtc, "enable_loopback_candidate": True, "ips": {"includes": ["127.0.0.1/32"]}},
    }
    path = folder / "livekit.json"
    path.write_text(json.dumps(config))
    argv = [str(binaries() / "livekit-server"), "--config", str(path), "--node-ip", "127.0.0.1"]
    with (folder / "livekit.log").open("wb") as log:
        # Go asks for its processors at the start, so they are set before.
        held = pinned(cores)
        process = subprocess.Popen([*held, *argv], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{http}/", timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "livekit.log").read_text()[-2000:])
            time.sleep(0.1)
        yield process.pid, http
    finally:
        process.send_signal(signal.SIGKILL)  # SIGTERM would wait for the rooms to empty
        process.wait(10)


def pinned(cores: set[int]) -> list[str]:
    taskset = shutil.which("taskset")
    if taskset is None:
        raise RuntimeError("taskset is missing (util-linux)")
    return [taskset, "--cpu-list", ",".join(str(core) for core in sorted(cores))]


def built(folder: Path) -> Path:
    """The generator, built from the sources beside the pins of livekit-server; seconds with a warm Go cache."""
    program = folder / "rooms"
    where = REPOSITORY / "hack" / "tools" / "livekit"
    argv = [go(state_root()), "build", "-o", str(program), "./rooms"]
    subprocess.run(argv, cwd=where, env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}, check=True)
    return program


class Generator:
    """The rooms' program: one command, one answer."""

    def __init__(self, program: Path, port: int, cores: set[int], log: IO[bytes]) -> None:
        argv = [*pinned(cores), str(program), "-url", f"ws://127.0.0.1:{port}", "-key", KEY, "-secret", SECRET]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the generator ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def one_step(generator: Generator, server: int, more: int, hold: float) -> Step:
    """More rooms, and then everybody talks: again, when that went badly, because a stall of the machine is no limit."""
    before = cpu_seconds(server)
    began = time.monotonic()
    joined = generator.ask(f"join {more} {more / JOINS_PER_SECOND:.1f}")
    joining = cpu_seconds(server) - before, time.monotonic() - began
    for talks in range(1, TALKS + 1):
        step = replace(one_talk(generator, server, more, hold, joined, joining), talks=talks)
        if not step.trouble():
            break
    return step


def one_talk(
    generator: Generator, server: int, more: int, hold: float, joined: dict[str, Any], joining: tuple[float, float]
) -> Step:
    """`joining`: CPU seconds of the server and seconds that the joins took."""
    server_before, own_before, began = cpu_seconds(server), cpu_seconds(generator.process.pid), time.monotonic()
    all_before = machine_cpu_seconds()
    talked = generator.ask(f"hold {hold:.1f}")
    seconds = time.monotonic() - began
    server_cores = (cpu_seconds(server) - server_before) / seconds
    own_cores = (cpu_seconds(generator.process.pid) - own_before) / seconds
    wanted = max(1, talked["received"] + max(0, talked["lost"]))
    # What the talk of the rooms meanwhile cost is not the joins': half of the new ones were there on average.
    talk = server_cores * joining[1] * (talked["rooms"] - more / 2) / talked["rooms"]
    return Step(
        rooms=talked["rooms"],
        failed=len(joined["failed"]),
        join_p95_ms=p95(joined["join_ms"]),
        lost_share=max(0, talked["lost"]) / wanted,
        late_share=talked["late"] / wanted,
        silent=talked["silent"],
        server_cores=server_cores,
        generator_cores=own_cores,
        other_cores=max(0.0, (machine_cpu_seconds() - all_before) / seconds - server_cores - own_cores),
        join_cpu_ms=max(0.0, 1000 * (joining[0] - talk) / (2 * more)),
        rss_mib=rss_mib(server),
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.density", description=__doc__)
    parser.add_argument("--step", type=int, default=20, help="rooms added each time")
    parser.add_argument("--hold", type=float, default=10.0, help="seconds of talk after each step")
    parser.add_argument("--minutes", type=float, default=7.0, help="no step begins later than this")
    options = parser.parse_args(argv)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("bench-density: two cores are needed: one for the server, one for the generator", file=sys.stderr)
        return 1
    theirs, ours = {cores[0]}, set(cores[1:])
    steps: list[Step] = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        program = built(folder)
        server, port = stack.enter_context(livekit(folder, theirs))
        log = stack.enter_context((folder / "rooms.log").open("wb"))
        generator = Generator(program, port, ours, log)
        stack.callback(generator.process.kill)
        began = time.monotonic()
        while time.monotonic() - began < options.minutes * 60:
            steps.append(one_step(generator, server, options.step, options.hold))
            shown = {key: round(value, 4) for key, value in asdict(steps[-1]).items()}
            print(f"[{time.monotonic() - began:5.0f}s] {json.dumps(shown)}", flush=True)
            if trouble := steps[-1].trouble():
                print(f"broke: {trouble}", flush=True)
                break
    print(f"RESULT {json.dumps(result(steps, len(theirs), len(ours)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
