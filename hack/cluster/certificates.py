"""The cluster's certificates and kubeconfigs, made with openssl (elliptic keys: the whole set takes about a second)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from hack.cluster.layout import CLUSTER_DOMAIN, Cluster
from hack.cluster.processes import run

DAYS = "3650"


def create(cluster: Cluster) -> None:
    """A CA, the API server's certificate, one client certificate per identity, the ServiceAccount signing key."""
    folder = cluster.certificates
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    _key(folder, "ca")
    extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    authority = ["-days", DAYS, "-subj", "/CN=talktime-local", "-out", "ca.crt"]
    _openssl(folder, "req", "-x509", "-new", "-key", "ca.key", *authority, *extensions)
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{CLUSTER_DOMAIN}"]
    addresses = ["127.0.0.1", str(cluster.control_plane_address), str(cluster.api_service_address)]
    alternatives = [f"DNS:{name}" for name in [*names, "localhost"]] + [f"IP:{address}" for address in addresses]
    _signed(folder, "apiserver", "/CN=kube-apiserver", f"subjectAltName={','.join(alternatives)}\n", server=True)
    _signed(folder, "admin", "/O=system:masters/CN=talktime-admin")
    _signed(folder, "kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")
    _signed(folder, "controller-manager", "/CN=system:kube-controller-manager")
    _signed(folder, "scheduler", "/CN=system:kube-scheduler")
    _signed(folder, "proxy", "/CN=system:kube-proxy")
    for node in cluster.nodes:
        _signed(folder, node.name, f"/O=system:nodes/CN=system:node:{node.name}")
    _openssl(folder, "genrsa", "-out", "service-account.key", "2048")
    _openssl(folder, "rsa", "-in", "service-account.key", "-pubout", "-out", "service-account.pub")


def kubeconfig(cluster: Cluster, identity: str, server: str) -> str:
    """A kubeconfig (JSON is YAML) with everything embedded."""

    def embedded(name: str) -> str:
        return base64.b64encode((cluster.certificates / name).read_bytes()).decode()

    name = f"talktime-{cluster.name}"
    credentials = {
        "client-certificate-data": embedded(f"{identity}.crt"),
        "client-key-data": embedded(f"{identity}.key"),
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": embedded("ca.crt")}}],
        "users": [{"name": identity, "user": credentials}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": identity}}],
    }
    return json.dumps(document, indent=1)


def _key(folder: Path, name: str) -> None:
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
    (folder / f"{name}.key").chmod(0o600)


def _signed(folder: Path, name: str, subject: str, extensions: str = "", *, server: bool = False) -> None:
    _key(folder, name)
    usage = "serverAuth" if server else "clientAuth"
    options = folder / f"{name}.ext"
    options.write_text(f"{extensions}keyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n")
    _openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
    authority = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"]
    certificate = ["-days", DAYS, "-extfile", options.name, "-out", f"{name}.crt"]
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *authority, *certificate)
    options.unlink()
    (folder / f"{name}.csr").unlink()


def _openssl(folder: Path, *arguments: str) -> None:
    run(["openssl", *arguments], folder=folder)
