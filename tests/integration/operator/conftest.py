"""One API server for all operator tests; a namespace of its own per test."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]


def _sibling(name: str) -> ModuleType:
    """importlib import mode has no package for this folder; load the helper next to this file by path, once."""
    qualified = f"talktime_tests_operator_{name}"
    if qualified not in sys.modules:
        spec = importlib.util.spec_from_file_location(qualified, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[qualified] = module
        spec.loader.exec_module(module)
    return sys.modules[qualified]


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    module = _sibling("apiserver")
    with module.run(tmp_path_factory.mktemp("apiserver")) as server:
        module.install_crds(server)
        yield server


@pytest.fixture
def api(apiserver: Any) -> Iterator[httpx.Client]:
    with apiserver.client() as client:
        yield client


@pytest.fixture
def namespace(api: httpx.Client) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    answer = api.post("/api/v1/namespaces", json={"metadata": {"name": name}})
    assert answer.status_code == 201, answer.text
    return name


RELEASE = "talktime"
# In a pod the uid has no passwd entry; whoever asks for its name fails, and so it does here. And a pool without nodes
# is starting for the whole of a test: after the minute it really gets, a slow machine would be in the middle of one.
NAMELESS = """
import getpass, runpy
from talktime_operator.pools import failover
def getuser():
    raise KeyError("getpwuid(): uid not found")
getpass.getuser = getuser
failover.STARTUP_GRACE = 3600.0
runpy.run_module("talktime_operator", run_name="__main__")
"""
SUBJECT = f"system:serviceaccount:{RELEASE}:talktime-operator"


def _chart_rbac() -> list[dict[str, Any]]:
    """The operator's objects of the chart's own rbac.yaml, without Helm: only labels and names are templated there."""
    text = (ROOT / "charts" / "talktime" / "templates" / "rbac.yaml").read_text()
    text = text.replace("{{ .Release.Namespace }}", RELEASE)
    text = re.sub(r"^.*\{\{-.*$\n?", "", text, flags=re.MULTILINE)
    documents = [d for d in yaml.safe_load_all(text) if d]
    return [d for d in documents if d["metadata"]["name"] == "talktime-operator"]


@pytest.fixture(scope="session")
def operator_token(apiserver: Any) -> str:
    """Token of the operator's ServiceAccount under exactly the rights the chart gives it."""
    with apiserver.client() as api:
        api.post("/api/v1/namespaces", json={"metadata": {"name": RELEASE}})
        accounts = f"/api/v1/namespaces/{RELEASE}/serviceaccounts"
        api.post(accounts, json={"metadata": {"name": "talktime-operator"}}).raise_for_status()
        root = "/apis/rbac.authorization.k8s.io/v1"
        paths = {
            "ClusterRole": f"{root}/clusterroles",
            "ClusterRoleBinding": f"{root}/clusterrolebindings",
            "Role": f"{root}/namespaces/{RELEASE}/roles",
            "RoleBinding": f"{root}/namespaces/{RELEASE}/rolebindings",
        }
        documents = _chart_rbac()
        assert {d["kind"] for d in documents} == set(paths)
        for document in documents:
            api.post(paths[document["kind"]], json=document).raise_for_status()
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        answer = api.post(f"{accounts}/talktime-operator/token", json=body)
        answer.raise_for_status()
        return str(answer.json()["status"]["token"])


@pytest.fixture
def ledger() -> Iterator[Any]:
    with _sibling("fake_ledger").FakeLedger().serve() as fake:
        yield fake


class OperatorProcess:
    """The real operator process, killable at any moment; like its pod it has a bare environment and no user name."""

    def __init__(self, apiserver: Any, user_token: str, ledger_url: str, folder: Path, port: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="talktime-operator-"))
        self._folder.chmod(0o755)
        kubeconfig = apiserver.kubeconfig(self._folder / "kubeconfig", user_token)
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "operator.log"
        self._child: subprocess.Popen[bytes] | None = None
        token = self._folder / "token"
        token.write_text("operator")
        keep = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        self._environment = keep | {
            "KUBECONFIG": str(kubeconfig),
            "TALKTIME_NAMESPACE": RELEASE,
            "TALKTIME_LEDGER_URL": ledger_url,
            "TALKTIME_TOKEN_PATH": str(token),
            "TALKTIME_AGENT_IMAGE": "talktime/agent:test",
            "TALKTIME_LISTEN_HOST": "127.0.0.1",
            "TALKTIME_LISTEN_PORT": str(port),
            # Long, so that a stalled machine ends no operator; one that was killed comes back under the same name.
            "TALKTIME_LEASE_DURATION": "60",
            "TALKTIME_LEASE_RENEW_DEADLINE": "50",
            "TALKTIME_LEASE_RETRY": "1",
            "TALKTIME_WORKER_POLL": "0.3",
            "TALKTIME_WORKER_STALE": "3",
            "TALKTIME_SCALE_DOWN_AFTER": "1",
            "TALKTIME_AMOUNTS_INTERVAL": "3",
            "TALKTIME_ACCESS_PROBE": "2",
            "TALKTIME_LEDGER_GRACE": "12",
            "TALKTIME_DRAIN_SETTLE": "2",
            "TALKTIME_KEYS_FOLLOW": "3",
        }

    def start(self, **environment: str) -> None:
        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                [sys.executable, "-c", NAMELESS],
                env=self._environment | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
            )

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self._child is not None
        self._child.send_signal(number)
        try:
            return self._child.wait(60)
        finally:
            self._child = None

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def metrics(self) -> str:
        return httpx.get(f"{self.url}/metrics", trust_env=False, timeout=60).text


@pytest.fixture
def operator(apiserver: Any, operator_token: str, ledger: Any, tmp_path: Path) -> Iterator[OperatorProcess]:
    process = OperatorProcess(apiserver, operator_token, ledger.url, tmp_path, _sibling("apiserver").free_port())
    process.start()
    try:
        yield process
    finally:
        process.close()
        print(process.log.read_text()[-20000:])  # pytest shows it when the test failed
        with apiserver.client() as api:
            # The next test's operator need not wait for this one's Lease; leftovers of one test do not reach the next.
            api.delete(f"/apis/coordination.k8s.io/v1/namespaces/{RELEASE}/leases/talktime-operator")
            for project in api.get("/apis/talktime.dev/v1alpha1/projects").json()["items"]:
                api.delete(f"/apis/talktime.dev/v1alpha1/namespaces/{project['metadata']['namespace']}/projects/study")
            api.delete(f"/apis/talktime.dev/v1alpha1/namespaces/{RELEASE}/sfupools")
            api.delete("/apis/talktime.dev/v1alpha1/ratecards")
            for made in (f"/apis/apps/v1/namespaces/{RELEASE}/statefulsets", f"/api/v1/namespaces/{RELEASE}/pods"):
                api.request("DELETE", made, json={"gracePeriodSeconds": 0})
