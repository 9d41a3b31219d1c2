"""What each task needs of the machine: Debian packages, pinned Go tools, disk. Pure data and choices."""

from __future__ import annotations

from dataclasses import dataclass

GO_VERSION = (1, 26)
GIB = 1024**3


@dataclass(frozen=True)
class Tool:
    """Binaries built from one go.mod below hack/tools. `usual` is told to people who wait: minutes, cold, two cores."""

    name: str
    packages: dict[str, str]
    flags: str
    usual: float
    folder: str = ""


STRIPPED = "-s -w"
BUILD = {"gitVersion": "v1.34.4", "gitMajor": "1", "gitMinor": "34"}
VERSIONED = " ".join([STRIPPED, *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in BUILD.items())])
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
TOOLS = {
    "kubernetes": Tool("kubernetes", {name: f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES}, VERSIONED, 6.5),
    "livekit": Tool("livekit", {"livekit-server": "github.com/livekit/livekit-server/cmd/server"}, STRIPPED, 2.5),
    "helm": Tool("helm", {"helm": "helm.sh/helm/v4/cmd/helm"}, STRIPPED, 2.5),
    "coredns": Tool("coredns", {"coredns": "github.com/coredns/coredns"}, STRIPPED, 3.0),
    # Alone, for machines that only talk to a cluster of somebody else's.
    "kubectl": Tool("kubectl", {"kubectl": "k8s.io/kubernetes/cmd/kubectl"}, VERSIONED, 2.0, folder="kubernetes"),
    "kind": Tool("kind", {"kind": "sigs.k8s.io/kind"}, STRIPPED, 0.2),
}

# Debian package -> a program (or file) of it; what is there already, from wherever, is not installed again.
BASICS = {"ca-certificates": "/etc/ssl/certs/ca-certificates.crt", "git": "git", "python3-venv": "python3-venv"}
SERVERS = {"etcd-server": "etcd", "postgresql": "/usr/lib/postgresql/15/bin/postgres", "redis-server": "redis-server"}
METRICS = {"prometheus": "prometheus"}
SPEECH = {"espeak-ng": "espeak-ng"}
CLUSTER = {
    "etcd-server": "etcd",
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iproute2": "ip",
    "nftables": "nft",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "procps": "sysctl",
    "util-linux": "unshare",
    "mount": "mount",
}
BROWSER = {"chromium": "chromium"}
IMAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}


@dataclass(frozen=True)
class Task:
    """`namespaces`: needs root and a kernel that gives namespaces. `disk` in bytes, for a machine without any state."""

    packages: dict[str, str]
    tools: tuple[str, ...]
    namespaces: bool
    disk: int


TASKS = {
    "check": Task(BASICS, (), False, 2 * GIB),
    "images": Task({**BASICS, **IMAGES}, ("livekit",), True, 8 * GIB),
    "up": Task({**BASICS, **CLUSTER, **IMAGES}, ("kubernetes", "coredns"), True, 12 * GIB),
    "demo": Task({**BASICS, **CLUSTER, **IMAGES}, ("kubernetes", "coredns", "livekit", "helm"), True, 16 * GIB),
    "demo-kind": Task(BASICS, ("kind", "kubectl", "livekit", "helm"), False, 12 * GIB),
    "demo-current": Task(BASICS, ("kubectl", "helm"), False, 4 * GIB),
    "browser": Task({**BASICS, **SERVERS, **SPEECH, **BROWSER}, ("livekit",), False, 6 * GIB),
    "test": Task(
        {**BASICS, **CLUSTER, **IMAGES, **SERVERS, **METRICS, **SPEECH},
        ("kubernetes", "coredns", "livekit", "helm"),
        True,
        18 * GIB,
    ),
}
