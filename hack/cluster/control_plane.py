"""etcd, API server, controller manager and scheduler: their command lines, and starting them in order."""

from __future__ import annotations

import subprocess

from hack.cluster.layout import API_PORT, POD_NETWORK, SERVICE_ACCOUNT_ISSUER, SERVICE_NETWORK, Cluster
from hack.cluster.network import inside
from hack.cluster.processes import running, spawn, wait_until

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def argv(cluster: Cluster, component: str) -> list[str]:
    """The component's full command line, run in the control plane's network namespace."""
    pki = cluster.certificates
    program = "etcd" if component == "etcd" else str(cluster.binaries / component)
    options: dict[str, str]
    match component:
        case "etcd":
            options = {
                "name": cluster.name,
                "data-dir": str(cluster.state / "etcd"),
                "listen-client-urls": "http://127.0.0.1:2379",
                "advertise-client-urls": "http://127.0.0.1:2379",
                "listen-peer-urls": "http://127.0.0.1:2380",
                "initial-advertise-peer-urls": "http://127.0.0.1:2380",
                "initial-cluster": f"{cluster.name}=http://127.0.0.1:2380",
                "log-level": "warn",
            }
        case "kube-apiserver":
            options = {
                "etcd-servers": "http://127.0.0.1:2379",
                "advertise-address": str(cluster.control_plane_address),
                "secure-port": str(API_PORT),
                "authorization-mode": "Node,RBAC",
                "enable-admission-plugins": "NodeRestriction",
                "allow-privileged": "true",
                "client-ca-file": str(pki / "ca.crt"),
                "tls-cert-file": str(pki / "apiserver.crt"),
                "tls-private-key-file": str(pki / "apiserver.key"),
                "kubelet-client-certificate": str(pki / "kubelet-client.crt"),
                "kubelet-client-key": str(pki / "kubelet-client.key"),
                "kubelet-preferred-address-types": "InternalIP",
                "service-cluster-ip-range": str(SERVICE_NETWORK),
                "service-account-issuer": SERVICE_ACCOUNT_ISSUER,
                "service-account-signing-key-file": str(pki / "service-account.key"),
                "service-account-key-file": str(pki / "service-account.pub"),
                "profiling": "false",
                # Debian's etcd cannot answer its question; without this it logs several errors a second.
                "feature-gates": "SizeBasedListCostEstimate=false",
            }
        case "kube-controller-manager":
            options = {
                "kubeconfig": str(cluster.state / "controller-manager.kubeconfig"),
                "bind-address": "127.0.0.1",
                "leader-elect": "false",
                "cluster-cidr": str(POD_NETWORK),
                "root-ca-file": str(pki / "ca.crt"),
                "service-account-private-key-file": str(pki / "service-account.key"),
                "use-service-account-credentials": "true",
                "profiling": "false",
            }
        case "kube-scheduler":
            options = {
                "kubeconfig": str(cluster.state / "scheduler.kubeconfig"),
                "bind-address": "127.0.0.1",
                "leader-elect": "false",
                "profiling": "false",
            }
        case _:
            raise ValueError(f"no control-plane component {component!r}")
    return [*inside(cluster.network_namespace), program, *(f"--{key}={value}" for key, value in options.items())]


def start(cluster: Cluster, component: str) -> None:
    """Starts one component unless it runs; the API server is awaited until it is ready."""
    log = cluster.logs / f"{component}.log"
    if running(cluster.processes, component) is None:
        spawn(cluster.processes, component, argv(cluster, component), log)
    if component == "kube-apiserver":
        wait_until("the API server", lambda: api_ready(cluster), seconds=90, log=log)


def api_ready(cluster: Cluster) -> bool:
    """Asked inside the control plane's namespace, so that it does not depend on the loopback forwarder."""
    server = f"--server=https://127.0.0.1:{API_PORT}"
    ask = [str(cluster.binaries / "kubectl"), f"--kubeconfig={cluster.kubeconfig}", server, "--request-timeout=2s"]
    argv = [*inside(cluster.network_namespace), *ask, "get", "--raw=/readyz"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
