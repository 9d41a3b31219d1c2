"""Names, addresses and folders of one local cluster: pure, everything derived from its name and its state folder."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NODE_NETWORK = IPv4Network("10.211.0.0/24")
POD_NETWORK = IPv4Network("10.211.64.0/18")
SERVICE_NETWORK = IPv4Network("10.211.128.0/20")
CLUSTER_DOMAIN = "cluster.local"
SERVICE_ACCOUNT_ISSUER = f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}"
API_PORT = 6443
DEFAULT_NAME = "demo"

# Seen from inside a node: the cluster's folder and the pinned binaries are bound to these places, so paths in the
# nodes' own configuration do not depend on where the repository lies (nor on the 108 bytes of a UNIX socket path).
IN_NODE_STATE = Path("/run/talktime/node")
IN_NODE_BINARIES = Path("/run/talktime/bin")


@dataclass(frozen=True)
class Node:
    """One node: a network, mount and process namespace with its own containerd, kubelet and kube-proxy."""

    name: str
    network_namespace: str
    address: IPv4Address
    pod_network: IPv4Network
    state: Path
    cgroup: str

    @property
    def init(self) -> str:
        """The recorded name of the node's first process; killing it kills the node at once."""
        return f"{self.name}.init"


@dataclass(frozen=True)
class Cluster:
    """One cluster. Its networks live in namespaces of their own, so two clusters may use the same addresses."""

    name: str
    state: Path
    binaries: Path
    node_count: int = 2

    @property
    def prefix(self) -> str:
        """Machine-wide unique: two checkouts may each have a cluster of the same name."""
        return f"tt-{self.name}-{hashlib.sha256(str(self.state).encode()).hexdigest()[:4]}"

    @property
    def network_namespace(self) -> str:
        """Where etcd, the API server, scheduler and controllers run and where the node network's bridge is."""
        return f"{self.prefix}-cp"

    @property
    def control_plane_address(self) -> IPv4Address:
        return NODE_NETWORK[1]

    @property
    def api_service_address(self) -> IPv4Address:
        return SERVICE_NETWORK[1]

    @property
    def dns_address(self) -> IPv4Address:
        return SERVICE_NETWORK[10]

    @property
    def nodes(self) -> tuple[Node, ...]:
        pod_networks = list(POD_NETWORK.subnets(new_prefix=24))
        return tuple(
            Node(
                name=f"node-{i}",
                network_namespace=f"{self.prefix}-n{i}",
                address=NODE_NETWORK[10 + i],
                pod_network=pod_networks[i],
                state=self.state / f"node-{i}",
                cgroup=f"/{self.prefix}-n{i}",
            )
            for i in range(1, self.node_count + 1)
        )

    @property
    def certificates(self) -> Path:
        return self.state / "pki"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def processes(self) -> Path:
        return self.state / "processes"

    @property
    def logs(self) -> Path:
        return self.state / "logs"


def state_root() -> Path:
    """Everything built or kept outside git; `TALKTIME_STATE` moves it."""
    return Path(os.environ.get("TALKTIME_STATE", REPOSITORY / ".state")).resolve()


def binaries() -> Path:
    """Where the pinned tools are built to. They belong to the checkout, not to a cluster's state."""
    return Path(os.environ.get("TALKTIME_BIN", REPOSITORY / ".state" / "bin")).resolve()


def cluster_named(name: str) -> Cluster:
    """Raises ValueError for a name that cannot be a namespace name."""
    if not re.fullmatch(r"[a-z][a-z0-9]{0,11}", name):
        raise ValueError(f"cluster name {name!r}: 1 to 12 lower-case letters and digits, a letter first")
    folder = "cluster" if name == DEFAULT_NAME else f"cluster-{name}"
    return Cluster(name=name, state=state_root() / folder, binaries=binaries())
