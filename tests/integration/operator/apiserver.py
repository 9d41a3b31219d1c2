"""A real etcd and kube-apiserver on loopback, with RBAC and an audit log, for as long as a test session runs."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ROOT = Path(__file__).resolve().parents[3]
ADMIN_TOKEN = "admin-of-the-test"
AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [watch]
- level: Metadata
"""


@dataclass(frozen=True)
class ApiServer:
    """Where the server listens and how to be cluster-admin on it."""

    url: str
    ca_file: Path
    audit_log: Path
    folder: Path

    def client(self, token: str = ADMIN_TOKEN) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, verify=context, headers=headers, timeout=60, trust_env=False)

    def kubeconfig(self, path: Path, token: str = ADMIN_TOKEN) -> Path:
        """Complete in itself, so that another user can read it."""
        authority = base64.b64encode(self.ca_file.read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def requests(self, user: str, since: float = 0.0) -> list[dict[str, Any]]:
        """Audit entries (all but watches) of a user at or after `since` (Unix seconds)."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since))
        entries = (json.loads(line) for line in self.audit_log.read_text().splitlines() if line.endswith("}"))
        return [e for e in entries if e["user"]["username"] == user and e["requestReceivedTimestamp"] >= moment]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binary(name: str) -> str:
    """A built binary of the checkout, else one on PATH."""
    built = ROOT / ".state" / "bin" / name
    found = str(built) if built.exists() else shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing: `make test` builds it (hack/tools), or install it on PATH")
    return found


@contextlib.contextmanager
def process(args: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    with log.open("wb") as out:
        child = subprocess.Popen(args, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _service_account_key(path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )


@contextlib.contextmanager
def run(folder: Path) -> Iterator[ApiServer]:
    """Starts etcd and the API server, waits until /readyz, stops both."""
    etcd, peer, port = free_port(), free_port(), free_port()
    _service_account_key(folder / "sa.key")
    (folder / "tokens.csv").write_text(f'{ADMIN_TOKEN},test-admin,test-admin,"system:masters"\n')
    (folder / "audit.yaml").write_text(AUDIT_POLICY)
    etcd_args = [
        binary("etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{etcd}",
        f"--advertise-client-urls=http://127.0.0.1:{etcd}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync" if _etcd_has_no_fsync() else "--log-level=warn",
    ]
    server_args = [
        binary("kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        f"--cert-dir={folder / 'certs'}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'sa.key'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
        f"--audit-policy-file={folder / 'audit.yaml'}",
        f"--audit-log-path={folder / 'audit.log'}",
        "--audit-log-mode=blocking",
    ]
    with process(etcd_args, folder / "etcd.log"), process(server_args, folder / "apiserver.log") as child:
        server = ApiServer(
            f"https://127.0.0.1:{port}", folder / "certs" / "apiserver.crt", folder / "audit.log", folder
        )
        _wait_ready(server, child, folder / "apiserver.log")
        yield server


def _etcd_has_no_fsync() -> bool:
    text = subprocess.run([binary("etcd"), "--help"], capture_output=True, text=True, check=False).stdout
    return "unsafe-no-fsync" in text


def _wait_ready(server: ApiServer, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise RuntimeError(f"kube-apiserver ended:\n{log.read_text()[-3000:]}")
        if server.ca_file.exists():
            with contextlib.suppress(httpx.HTTPError, ssl.SSLError, FileNotFoundError), server.client() as client:
                if client.get("/readyz").status_code == 200:
                    return
        time.sleep(0.2)
    raise RuntimeError(f"kube-apiserver is not ready after 180 s:\n{log.read_text()[-3000:]}")


def install_crds(server: ApiServer) -> None:
    """Applies crds/*.yaml and waits until each is established and accepted its schema."""
    with server.client() as client:
        names = []
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            body = yaml.safe_load(path.read_text())
            names.append(body["metadata"]["name"])
            answer = client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=body)
            assert answer.status_code in (201, 409), answer.text
        deadline = time.monotonic() + 90
        while names and time.monotonic() < deadline:
            crd = client.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{names[0]}").json()
            conditions = {c["type"]: c for c in (crd.get("status") or {}).get("conditions") or []}
            assert conditions.get("NonStructuralSchema", {}).get("status") != "True", conditions
            if conditions.get("Established", {}).get("status") == "True":
                names.pop(0)
            else:
                time.sleep(0.1)
        assert not names, f"not established: {names}"
