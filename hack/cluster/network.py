"""The cluster's own network: namespaces, one bridge, one veth per node. The machine's interfaces are never touched."""

from __future__ import annotations

from pathlib import Path

from hack.cluster.layout import NODE_NETWORK, SERVICE_NETWORK, Cluster
from hack.cluster.processes import run

NAMESPACES = Path("/run/netns")


def inside(namespace: str) -> list[str]:
    """Enters a network namespace. `ip netns exec` would mount a fresh /sys, which hides the cgroup mounts."""
    return ["nsenter", f"--net={NAMESPACES / namespace}", "--"]


def create(cluster: Cluster) -> None:
    """The control plane's namespace holds the bridge; each node hangs on it and routes to the other nodes' pods."""
    centre = cluster.network_namespace
    _namespace(centre)
    _ip(centre, "link add br0 type bridge")
    _ip(centre, f"addr add {cluster.control_plane_address}/{NODE_NETWORK.prefixlen} dev br0")
    _ip(centre, "link set br0 up")
    _ip(centre, "route add unreachable default")
    for node in cluster.nodes:
        _namespace(node.network_namespace)
        _ip(centre, f"link add {node.name} type veth peer name eth0 netns {node.network_namespace}")
        _ip(centre, f"link set {node.name} master br0 up")
        _ip(node.network_namespace, f"addr add {node.address}/{NODE_NETWORK.prefixlen} dev eth0")
        _ip(node.network_namespace, "link set eth0 up")
        # Nothing leads out of the cluster: what asks for the world gets "unreachable" at once, not a timeout.
        _ip(node.network_namespace, f"route add default via {cluster.control_plane_address}")
        for other in cluster.nodes:
            if other is not node and other.name != node.name:
                _ip(node.network_namespace, f"route add {other.pod_network} via {other.address}")
        _ip(centre, f"route add {node.pod_network} via {node.address}")
    # From the centre Services are reached through the first node's kube-proxy (used by forwarders and tests).
    _ip(centre, f"route add {SERVICE_NETWORK} via {cluster.nodes[0].address}")


def delete(cluster: Cluster) -> None:
    for name in namespaces(cluster):
        run(["ip", "netns", "delete", name])


def namespaces(cluster: Cluster) -> list[str]:
    """The cluster's namespaces that exist now."""
    wanted = {cluster.network_namespace, *(node.network_namespace for node in cluster.nodes)}
    return sorted(wanted & {path.name for path in NAMESPACES.glob("*")}) if NAMESPACES.is_dir() else []


def _namespace(name: str) -> None:
    run(["ip", "netns", "add", name])
    _ip(name, "link set lo up")
    run([*inside(name), "sysctl", "-qw", "net.ipv4.ip_forward=1"])


def _ip(namespace: str, command: str) -> None:
    run(["ip", "-n", namespace, *command.split()])
