"""The faults. Each touches only what the cluster made: its processes, its pods, its pods' networks, its nodes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hack.chaos.house import House, eventually
from hack.chaos.victims import Victim
from hack.cluster import lifecycle
from hack.cluster.network import NAMESPACES
from hack.cluster.node import inside
from hack.cluster.processes import run, running
from hack.demo.release import NAMESPACE

TABLE = "talktime_chaos"
LEDGER = r"-m talktime_ledger serve"
GATEWAY = r"-m talktime_gateway"
SFU = r"^/livekit-server"


@dataclass
class Outage:
    """When something was away, UTC; `up` once it answers again. `seen`: conditions of a Project meanwhile."""

    down: datetime
    up: datetime | None = None
    seen: list[dict[str, str]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return ((self.up or datetime.now(UTC)) - self.down).total_seconds()


def kill_job(victim: Victim) -> None:
    """kill -9 of the session's job process; the worker main of the pod lives on."""
    os.kill(victim.pid, signal.SIGKILL)


def vanish(house: House, namespace: str, pod: str, uid: str) -> None:
    """What runs in the pod stands still from now on; the pod is deleted with grace 0, its processes killed.

    The API server forgets it at once, so its containers are not started again; but a kubelet reads a grace of 0 as
    "none was asked for" and would give the processes all of `terminationGracePeriodSeconds`.
    """
    pids = house.pids("", among=f"pod{uid}")
    _signal(pids, signal.SIGSTOP)
    house.kube("-n", namespace, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
    _signal(pids, signal.SIGKILL)


def _signal(pids: list[int], sign: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)


def kill_ledger(house: House) -> int:
    """kill -9 of the ledger's process, whatever it was doing."""
    return house.kill(LEDGER)


@contextlib.contextmanager
def cut_from_ledger(house: House, victim: Victim) -> Iterator[None]:
    """The victim's pod cannot reach the ledger's Service while the block runs: packets vanish, in its network alone."""
    address = house.kube.json("-n", NAMESPACE, "get", "service", "talktime-ledger")["spec"]["clusterIP"]
    chain = f"type filter hook output priority 0; policy accept;\nip daddr {address} drop"
    rules = f"table inet {TABLE} {{\nchain out {{\n{chain}\n}}\n}}\n"
    # Held open, so that the network can be mended after the process is gone.
    network = os.open(f"/proc/{victim.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    enter = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{network}", "--", "nft"]
    try:
        run([*enter, "-f", "-"], stdin=rules.encode())
        yield
    finally:
        subprocess.run([*enter, "delete", "table", "inet", TABLE], check=False, capture_output=True)
        os.close(network)


@contextlib.contextmanager
def database_down(house: House, watched: tuple[str, str] | None = None) -> Iterator[Outage]:
    """PostgreSQL dies without notice and stays away while the block runs; back up afterwards.

    `watched`: a Project (namespace, name) whose LedgerReachable is followed.
    """
    inside_release = ["-n", NAMESPACE]
    found = house.kube.json(*inside_release, "get", "pod", "talktime-postgres-0")
    house.kube(*inside_release, "scale", "statefulset/talktime-postgres", "--replicas=0")
    vanish(house, NAMESPACE, "talktime-postgres-0", found["metadata"]["uid"])
    outage = Outage(datetime.now(UTC))
    with _followed(house, watched, outage):
        try:
            yield outage
        finally:
            house.kube(*inside_release, "scale", "statefulset/talktime-postgres", "--replicas=1")
            house.kube(*inside_release, "rollout", "status", "statefulset/talktime-postgres", "--timeout=180s")
            ledger_answers(house)
            outage.up = datetime.now(UTC)
        reachable_again(house, watched)


@contextlib.contextmanager
def ledger_down(house: House, watched: tuple[str, str] | None = None) -> Iterator[Outage]:
    """No ledger at all while the block runs."""
    inside_release = ["-n", NAMESPACE]
    house.kube(*inside_release, "scale", "deploy/talktime-ledger", "--replicas=0")
    house.kube(*inside_release, "delete", "pod", "-l", "app.kubernetes.io/component=ledger", "--wait=false", "--now")
    outage = Outage(datetime.now(UTC))
    with _followed(house, watched, outage):
        try:
            yield outage
        finally:
            house.kube(*inside_release, "scale", "deploy/talktime-ledger", "--replicas=1")
            ledger_answers(house)
            outage.up = datetime.now(UTC)
        reachable_again(house, watched)


@contextlib.contextmanager
def node_down(house: House, name: str) -> Iterator[None]:
    """The node loses its power while the block runs: kubelet, containerd and every process of its pods at once."""
    node = next(each for each in house.cluster.nodes if each.name == name)
    lifecycle.kill(house.cluster, node.init)
    try:
        yield
    finally:
        lifecycle.restart(house.cluster, node.init)
        back = datetime.now(UTC)
        # A node that just came back is Ready in the API server's memory: what counts is that its containers run.
        assert running(house.cluster.processes, node.init)
        run([*inside(house.cluster, node), "ctr", "-n", "k8s.io", "version"])

        def renewed() -> bool:
            # A kubelet gives up when its containerd is slow at first; a real node's init system starts it again.
            if not running(house.cluster.processes, f"{name}.kubelet"):
                lifecycle.restart(house.cluster, f"{name}.kubelet")
            lease = house.kube.json("-n", "kube-node-lease", "get", "lease", name)
            return datetime.fromisoformat(lease["spec"]["renewTime"]) > back

        eventually(f"the kubelet of {name} tells that it is back", renewed, 180, every=1)
        house.kube("wait", "--for=condition=Ready", f"node/{name}", "--timeout=120s")


@contextlib.contextmanager
def kubelet_down(house: House, name: str) -> Iterator[None]:
    """Nothing of the node is started again while the block runs; what runs there goes on. Back afterwards, with a
    kubelet that remembers no earlier crash of any container."""
    lifecycle.kill(house.cluster, f"{name}.kubelet")
    try:
        yield
    finally:
        lifecycle.restart(house.cluster, f"{name}.kubelet")


def sfus(house: House, name: str, pool: str = "") -> list[int]:
    """Machine pids of the livekit-servers on the node; of one pool where several have theirs there."""
    node = next(each for each in house.cluster.nodes if each.name == name)
    pids = house.pids(SFU, among=f"{node.cgroup}/")
    if not pool:
        return pids
    selector = f"talktime.dev/pool={pool},app.kubernetes.io/component=sfu"
    pods = house.kube.json("-n", NAMESPACE, "get", "pods", f"--selector={selector}")["items"]
    return [pid for pod in pods for pid in house.pids(SFU, among=f"pod{pod['metadata']['uid']}") if pid in pids]


def signal_sfu(house: House, name: str, sign: signal.Signals = signal.SIGKILL, pool: str = "") -> datetime:
    """To the node's livekit-server (that of the pool); when. Raises LookupError when there is none."""
    pids = sfus(house, name, pool)
    if not pids:
        raise LookupError(f"no livekit-server of {pool or 'any pool'} on {name}")
    at = datetime.now(UTC)
    _signal(pids, sign)
    return at


def sfu_began(house: House, name: str) -> datetime | None:
    """When the process of the node's livekit-server began; None while there is none."""
    for pid in sfus(house, name):
        with contextlib.suppress(OSError):
            ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
            uptime = float(Path("/proc/uptime").read_text().split()[0])
            return datetime.now(UTC) - timedelta(seconds=uptime - ticks / os.sysconf("SC_CLK_TCK"))
    return None


@contextlib.contextmanager
def media_dropped(house: House, name: str) -> Iterator[datetime]:
    """The node's media ports take nothing while the block runs (UDP, and the TCP beside it); its HTTP answers."""
    node = next(each for each in house.cluster.nodes if each.name == name)
    rules = "type filter hook input priority 0; policy accept;\nudp dport 7882 drop\ntcp dport 7881 drop"
    enter = ["nsenter", f"--net={NAMESPACES / node.network_namespace}", "--", "nft"]
    with table(enter, rules):
        yield datetime.now(UTC)


@contextlib.contextmanager
def redis_cut(house: House, pool: str) -> Iterator[datetime]:
    """The pool's Redis answers nobody while the block runs: connections are reset, in its own network alone."""
    selector = f"talktime.dev/pool={pool},app.kubernetes.io/component!=sfu"
    [pod] = house.kube.json("-n", NAMESPACE, "get", "pods", f"--selector={selector}")["items"]
    pid = house.pids(r"redis-server", among=f"pod{pod['metadata']['uid']}")[0]
    rules = "type filter hook input priority 0; policy accept;\niif lo accept\ntcp dport 6379 reject with tcp reset"
    with table(["nsenter", f"--net=/proc/{pid}/ns/net", "--", "nft"], rules):
        yield datetime.now(UTC)


@contextlib.contextmanager
def table(enter: list[str], rules: str) -> Iterator[None]:
    """Rules of one chain in a network that `enter` leads into, for as long as the block runs."""
    run([*enter, "-f", "-"], stdin=f"table inet {TABLE} {{\nchain broken {{\n{rules}\n}}\n}}\n".encode())
    try:
        yield
    finally:
        run([*enter, "delete", "table", "inet", TABLE])


@contextlib.contextmanager
def api_server_down(house: House) -> Iterator[None]:
    """No Kubernetes API while the block runs; etcd keeps its state."""
    lifecycle.kill(house.cluster, "kube-apiserver")
    try:
        yield
    finally:
        lifecycle.restart(house.cluster, "kube-apiserver")
        eventually("the API server answers", lambda: _answers(house), 180)


def _answers(house: House) -> bool:
    try:
        return "ok" in house.kube("get", "--raw", "/readyz")
    except RuntimeError:
        return False


@contextlib.contextmanager
def operator_down(house: House) -> Iterator[None]:
    """No operator while the block runs."""
    inside_release = ["-n", NAMESPACE]
    house.kube(*inside_release, "scale", "deploy/talktime-operator", "--replicas=0")
    pods = [*inside_release, "delete", "pod", "-l", "app.kubernetes.io/component=operator", "--now"]
    house.kube(*pods, "--ignore-not-found")
    try:
        yield
    finally:
        house.kube(*inside_release, "scale", "deploy/talktime-operator", "--replicas=1")
        house.kube(*inside_release, "rollout", "status", "deploy/talktime-operator", "--timeout=120s")


def ledger_answers(house: House) -> None:
    """Until the ledger is ready: it asks its database for that."""
    house.kube("-n", NAMESPACE, "rollout", "status", "deploy/talktime-ledger", "--timeout=240s")
    eventually("the ledger is ready", lambda: _ready(house), 240)


def _ready(house: House) -> bool:
    status = house.kube.json("-n", NAMESPACE, "get", "deploy", "talktime-ledger").get("status", {})
    return int(status.get("readyReplicas", 0)) >= 1


def reachable_again(house: House, watched: tuple[str, str] | None) -> None:
    """Until the Project says so itself."""
    if watched is not None:
        eventually(
            "LedgerReachable is True again",
            lambda: house.condition(*watched, "LedgerReachable").get("status") == "True",
            180,
        )


@contextlib.contextmanager
def _followed(house: House, watched: tuple[str, str] | None, outage: Outage) -> Iterator[None]:
    """Notes every change of LedgerReachable while the block runs."""
    done = threading.Event()

    def follow() -> None:
        while watched is not None and not done.is_set():
            with contextlib.suppress(RuntimeError):
                now = house.condition(*watched, "LedgerReachable")
                if now and (not outage.seen or outage.seen[-1]["status"] != now["status"]):
                    outage.seen.append(now)
            done.wait(1)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join(30)


def stay_away(outage: Outage, seconds: float) -> None:
    """Lets the outage last so long."""
    time.sleep(max(0.0, seconds - outage.seconds))
