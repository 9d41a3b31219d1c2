"""One node: its namespaces, containerd, kubelet and kube-proxy, and their configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hack.cluster import cgroups
from hack.cluster.layout import CLUSTER_DOMAIN, IN_NODE_BINARIES, IN_NODE_STATE, POD_NETWORK, Cluster, Node
from hack.cluster.network import NAMESPACES
from hack.cluster.processes import Record, run, running, spawn, wait_until

PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
SOCKET = "/run/containerd/containerd.sock"
COMPONENTS = ("containerd", "kubelet", "kube-proxy")


def inside(cluster: Cluster, node: Node) -> list[str]:
    """Enters the node's network, mount and process namespaces; raises RuntimeError when the node does not run."""
    init = running(cluster.processes, node.init)
    if init is None:
        raise RuntimeError(f"{node.name} does not run")
    space = Path(f"/proc/{init.pid}/ns")
    names = [f"--net={NAMESPACES / node.network_namespace}", f"--mount={space / 'mnt'}", f"--pid={space / 'pid'}"]
    return ["nsenter", *names, "--wd=/", "--"]


def start_init(cluster: Cluster, node: Node) -> None:
    """Makes the node's namespaces, cgroup and configuration. A node that runs is left alone."""
    if running(cluster.processes, node.init):
        return
    for folder in ("lib", "log", "cni"):
        (node.state / folder).mkdir(parents=True, exist_ok=True)
    (node.state / "ready").unlink(missing_ok=True)
    # A machine that reboots has no cgroups left. With them the kubelet asks for each dead container for 3 s, one after
    # the other, before it looks after any pod.
    cgroups.delete(node.cgroup)
    cgroups.create(node.cgroup)
    for name, content in files(cluster, node).items():
        (node.state / name).write_text(content)
    program = Path(__file__).with_name("node_init.py")
    unshare = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
        "--",
    ]
    argv = ["nsenter", f"--net={NAMESPACES / node.network_namespace}", "--", *unshare]
    argv += [sys.executable, "-S", str(program), str(node.state), str(cluster.binaries)]
    log = cluster.logs / f"{node.init}.log"
    spawn(cluster.processes, node.init, argv, log, forks=True)
    wait_until(node.name, (node.state / "ready").exists, seconds=10, log=log)


def start(cluster: Cluster, node: Node, component: str) -> Record:
    """Starts one component unless it runs."""
    name = f"{node.name}.{component}"
    found = running(cluster.processes, name)
    if found:
        return found
    argv = {
        "containerd": ["containerd", f"--config={IN_NODE_STATE / 'containerd.toml'}"],
        "kubelet": [
            str(IN_NODE_BINARIES / "kubelet"),
            f"--config={IN_NODE_STATE / 'kubelet.json'}",
            f"--kubeconfig={IN_NODE_STATE / 'kubelet.kubeconfig'}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
        ],
        "kube-proxy": [
            str(IN_NODE_BINARIES / "kube-proxy"),
            f"--config={IN_NODE_STATE / 'kube-proxy.json'}",
            f"--hostname-override={node.name}",
        ],
    }[component]
    log = cluster.logs / f"{name}.log"
    record = spawn(cluster.processes, name, [*inside(cluster, node), *argv], log, forks=True)
    if component == "containerd":
        ctr = [*inside(cluster, node), "ctr", "version"]
        wait_until(
            name, lambda: not subprocess.run(ctr, capture_output=True, check=False).returncode, seconds=30, log=log
        )
    return record


def blobs(cluster: Cluster, node: Node) -> set[str]:
    """Digests of everything that the node's containerd holds."""
    ctr = [*inside(cluster, node), "ctr", "--namespace=k8s.io", "content", "list", "--quiet"]
    return set(run(ctr).split())


def importer(cluster: Cluster, node: Node) -> list[str]:
    """The command that takes an image archive on its standard input."""
    return [*inside(cluster, node), "ctr", "--namespace=k8s.io", "images", "import", "-"]


def files(cluster: Cluster, node: Node) -> dict[str, str]:
    """The node's configuration, by path below its folder (pure)."""
    return {
        "containerd.toml": CONTAINERD,
        "cni/10-talktime.conflist": json.dumps(cni(node), indent=1),
        "kubelet.json": json.dumps(kubelet(cluster, node), indent=1),
        "kube-proxy.json": json.dumps(kube_proxy(), indent=1),
        "resolv.conf": "",
        "ca.crt": (cluster.certificates / "ca.crt").read_text(),
    }


CONTAINERD = f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Lowering oom_score_adj needs CAP_SYS_RESOURCE, which containers that run CI often lack.
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{IN_NODE_STATE / "cni"}"
"""


def cni(node: Node) -> dict[str, Any]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(node.pod_network)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {
        "cniVersion": "0.4.0",
        "name": "talktime",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def kubelet(cluster: Cluster, node: Node) -> dict[str, Any]:
    """Images cannot be pulled again, so they are never collected; a busy disk does not evict pods."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(IN_NODE_STATE / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "clusterDomain": CLUSTER_DOMAIN,
        "clusterDNS": [str(cluster.dns_address)],
        "resolvConf": str(IN_NODE_STATE / "resolv.conf"),
        # How soon a mounted Secret or ConfigMap follows its change.
        "syncFrequency": "10s",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "serializeImagePulls": False,
    }


def kube_proxy() -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": str(POD_NETWORK),
        "clientConnection": {"kubeconfig": str(IN_NODE_STATE / "proxy.kubeconfig")},
        # Raising the connection table's size is the machine's business.
        "conntrack": {"maxPerCore": 0},
        "oomScoreAdj": 0,
    }
