"""The life of a cluster: up (idempotent), down (without a trace, and verified), and what runs now."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hack.cluster import certificates, cgroups, control_plane, network, node, storage
from hack.cluster.layout import API_PORT, Cluster, Node
from hack.cluster.processes import Record, alive, read, recorded, run, running, spawn, stop, wait_until

FORWARDER = "forwarder"
USUAL_API_PORT = 16443


def up(cluster: Cluster, furnish: Callable[[Cluster, Node], None]) -> None:
    """Brings the cluster to where nodes are Ready and DNS answers; quick when it is already there.

    `furnish` gives a node, whose containerd runs, the images that it needs before any pod. A process that has died is
    started again; a half-made cluster is taken down first.
    """
    began = time.monotonic()
    if not complete(cluster):
        down(cluster)
        cluster.state.mkdir(parents=True)
        say(f"certificates and network for cluster {cluster.name!r}")
        certificates.create(cluster)
        network.create(cluster)
        port = free_port()
        (cluster.state / "port").write_text(str(port))
        local = f"https://{cluster.control_plane_address}:{API_PORT}"
        write_kubeconfig(cluster.kubeconfig, certificates.kubeconfig(cluster, "admin", f"https://127.0.0.1:{port}"))
        for identity in ("controller-manager", "scheduler"):
            inner = certificates.kubeconfig(cluster, identity, f"https://127.0.0.1:{API_PORT}")
            write_kubeconfig(cluster.state / f"{identity}.kubeconfig", inner)
        for one in cluster.nodes:
            one.state.mkdir()
            storage.create_folders(one)
            write_kubeconfig(one.state / "kubelet.kubeconfig", certificates.kubeconfig(cluster, one.name, local))
            write_kubeconfig(one.state / "proxy.kubeconfig", certificates.kubeconfig(cluster, "proxy", local))
        (cluster.state / "complete").touch()
    say("etcd, API server, controllers, scheduler")
    for component in control_plane.COMPONENTS:
        control_plane.start(cluster, component)
    start_forwarder(cluster)
    for one in cluster.nodes:
        say(f"{one.name}: containerd, kubelet, kube-proxy")
        node.start_init(cluster, one)
        node.start(cluster, one, "containerd")
        furnish(cluster, one)
        for component in ("kubelet", "kube-proxy"):
            node.start(cluster, one, component)
    kubectl(cluster, "apply", "--server-side", "-f", str(Path(__file__).with_name("coredns.yaml")))
    run([*client(cluster), "apply", "--server-side", "-f", "-"], stdin=storage.manifests(cluster).encode())
    wait_ready(cluster)
    say(f"cluster {cluster.name!r} is up ({time.monotonic() - began:.0f} s): export KUBECONFIG={cluster.kubeconfig}")


def wait_ready(cluster: Cluster) -> None:
    names = {one.name for one in cluster.nodes}

    def known() -> bool:
        return names <= set(kubectl(cluster, "get", "nodes", "-o=jsonpath={.items[*].metadata.name}").split())

    wait_until("node objects", known, seconds=60)
    kubectl(cluster, "wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
    kubectl(cluster, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")


def complete(cluster: Cluster) -> bool:
    """Everything that a start writes once is there, and the namespaces survived (they do not survive a reboot)."""
    return (cluster.state / "complete").exists() and len(network.namespaces(cluster)) == 1 + len(cluster.nodes)


def start_forwarder(cluster: Cluster) -> None:
    if running(cluster.processes, FORWARDER):
        return
    port = int((cluster.state / "port").read_text())
    start_forward(cluster, FORWARDER, port, f"{cluster.control_plane_address}:{API_PORT}")


def start_forward(cluster: Cluster, name: str, port: int, target: str) -> None:
    """127.0.0.1:port of the machine leads to `target` (host:port: a node, pod or Service address)."""
    program = Path(__file__).with_name("forwarder.py")
    space = network.NAMESPACES / cluster.network_namespace
    argv = [sys.executable, "-S", str(program), str(space), f"127.0.0.1:{port}={target}"]
    log = cluster.logs / f"{name}.log"
    spawn(cluster.processes, name, argv, log)
    wait_until(f"127.0.0.1:{port}", lambda: listens(port), seconds=10, log=log)


def kill(cluster: Cluster, name: str) -> Record:
    """kill -9 of one recorded process, e.g. `kube-apiserver`, `node-2.kubelet`; `node-2.init` is the whole node."""
    record = read(cluster.processes, name)
    if record is None:
        known = ", ".join(record.name for record in recorded(cluster.processes))
        raise ValueError(f"no process {name!r}; there are {known}")
    stop([record], grace=0.0)
    return record


def restart(cluster: Cluster, name: str) -> None:
    """Starts a killed process again (the running one is killed first); a node's `init` brings its components back."""
    kill(cluster, name)
    if name == FORWARDER:
        return start_forwarder(cluster)
    if name in control_plane.COMPONENTS:
        return control_plane.start(cluster, name)
    where, _, component = name.partition(".")
    one = next(each for each in cluster.nodes if each.name == where)
    node.start_init(cluster, one)
    for each in node.COMPONENTS if component == "init" else (component,):
        node.start(cluster, one, each)
    return None


def status(cluster: Cluster) -> list[tuple[str, int, bool]]:
    """Name, pid, alive of every recorded process."""
    return [(record.name, record.pid, alive(record)) for record in recorded(cluster.processes)]


def down(cluster: Cluster) -> None:
    """Removes everything; raises RuntimeError naming what could not be removed. A cluster that is not there is fine."""
    records = recorded(cluster.processes)
    # The nodes first: killing a node's first process takes all of its containers and mounts along.
    for record in records:
        if record.name.endswith(".init"):
            stop([record], grace=0.0)
    stop(records, grace=3.0)
    for one in cluster.nodes:
        cgroups.delete(one.cgroup)
    network.delete(cluster)
    for _ in range(50):
        if not cluster.state.exists():
            break
        with contextlib.suppress(OSError):
            shutil.rmtree(cluster.state)
            break
        time.sleep(0.1)
    left = traces(cluster, records)
    if left:
        raise RuntimeError("not removed: " + "; ".join(left))


def traces(cluster: Cluster, records: Sequence[Record]) -> list[str]:
    """What of the cluster is still on the machine: processes, mounts, namespaces, cgroups, files.

    `records`: of the processes, read before the folder that holds them was removed.
    """
    found = [f"process {record.name} ({record.pid})" for record in records if alive(record)]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line.split()[4]}" for line in mounts if f" {cluster.state}/" in line]
    found += [f"namespace {name}" for name in network.namespaces(cluster)]
    found += [f"cgroup {path}" for one in cluster.nodes for path in cgroups.existing(one.cgroup)]
    return found + ([f"folder {cluster.state}"] if cluster.state.exists() else [])


def client(cluster: Cluster) -> list[str]:
    return [str(cluster.binaries / "kubectl"), f"--kubeconfig={cluster.kubeconfig}"]


def kubectl(cluster: Cluster, *arguments: str) -> str:
    return run([*client(cluster), *arguments])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """The usual port when nobody has it, else any."""
    for port in (USUAL_API_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def write_kubeconfig(path: Path, content: str) -> None:
    path.touch(mode=0o600)
    path.write_text(content)


def say(line: str) -> None:
    print(f"cluster: {line}", flush=True)
