"""The real API server takes the chart and the examples as they are, under the strictest Pod Security Standard."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import CHART, ROOT

Kubectl = Callable[..., str]
EVERYTHING = ("--set", "simulator.enabled=true", "--set", "prometheus.enabled=true")


@pytest.fixture(scope="module")
def server_module() -> Any:
    """The operator tests' API server; importlib mode gives test folders no package to import it from."""
    name = "talktime_tests_operator_apiserver"
    if name not in sys.modules:
        path = ROOT / "tests" / "integration" / "operator" / "apiserver.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="module")
def kubeconfig(server_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("apiserver")
    with server_module.run(folder) as server:
        yield str(server.kubeconfig(folder / "chart.kubeconfig"))


def run(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def until(work: Callable[[], str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            work()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


@pytest.fixture(scope="module")
def kubectl(server_module: Any, kubeconfig: str) -> Kubectl:
    def ask(*arguments: str, stdin: str | None = None) -> str:
        return run(server_module.binary("kubectl"), "--kubeconfig", kubeconfig, *arguments, stdin=stdin)

    ask("apply", "--server-side", "-f", str(CHART / "crds"))
    ask("wait", "--for=condition=Established", "crd", "--all", "--timeout=120s")
    for kind in ("projects", "sfupools", "ratecards"):  # established; what kubectl reads of it may be a moment older
        until(lambda kind=kind: ask("get", f"{kind}.talktime.dev", "--all-namespaces"))
    for namespace in ("talktime", "demo", "research"):
        ask("create", "namespace", namespace)
    ask("label", "namespace", "talktime", "pod-security.kubernetes.io/warn=restricted")
    return ask


def test_the_chart_is_accepted_without_a_warning(kubectl: Kubectl, helm: str) -> None:
    rendered = subprocess.run(
        [helm, "template", "talktime", str(CHART), "--namespace", "talktime", *EVERYTHING],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    answer = kubectl("apply", "--namespace", "talktime", "--dry-run=server", "-f", "-", stdin=rendered)
    assert "Warning" not in answer
    assert answer.count("created (server dry run)") > 30


def test_the_examples_are_accepted(kubectl: Kubectl) -> None:
    answer = kubectl("apply", "--server-side", "--dry-run=server", "--recursive", "-f", str(ROOT / "examples"))
    for kind, name in (("project", "limit"), ("project", "patients"), ("sfupool", "eu"), ("ratecard", "gpt-realtime")):
        assert f"{kind}.talktime.dev/{name} serverside-applied" in answer


@pytest.mark.parametrize(
    ("kind", "name", "namespace", "example"),
    [
        ("project", "patients", "research", "own/project.yaml"),
        ("sfupool", "eu", "talktime", "10-sfupool-eu.yaml"),
        ("ratecard", "gpt-realtime", "", "rate-cards/gpt-realtime.yaml"),
    ],
)
def test_kubectl_waits_for_ready_of_every_kind(
    kubectl: Kubectl, kind: str, name: str, namespace: str, example: str
) -> None:
    one = (f"{kind}.talktime.dev/{name}", *(("--namespace", namespace) if namespace else ()))
    kubectl("apply", "--server-side", "-f", str(ROOT / "examples" / example))
    with pytest.raises(AssertionError, match="timed out waiting"):
        kubectl("wait", "--for=condition=Ready", *one, "--timeout=1s")
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Ready",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-22T12:00:00Z",
    }
    status = json.dumps({"status": {"conditions": [condition]}})
    kubectl("patch", *one, "--subresource=status", "--type=merge", "--patch", status)
    assert "condition met" in kubectl("wait", "--for=condition=Ready", *one, "--timeout=60s")


def test_an_upgrade_and_a_reinstall_keep_the_database_password(kubectl: Kubectl, helm: str, kubeconfig: str) -> None:
    def password() -> str:
        path = "jsonpath={.data.password}"
        return kubectl("get", "secret", "talktime-postgres", "--namespace", "talktime", "--output", path)

    release = ("--namespace", "talktime", "--kubeconfig", kubeconfig)
    run(helm, "install", "talktime", str(CHART), *release)
    first = password()
    assert len(first) > 32
    run(helm, "upgrade", "talktime", str(CHART), *release, "--set", "logLevel=DEBUG")
    assert password() == first
    run(helm, "uninstall", "talktime", *release)
    run(helm, "install", "talktime", str(CHART), *release)
    assert password() == first


def test_an_upgrade_keeps_the_certificate_of_the_simulator(kubectl: Kubectl, helm: str, kubeconfig: str) -> None:
    def certificate() -> str:
        path = "jsonpath={.data.tls\\.crt}{.data.ca\\.crt}"
        return kubectl("get", "secret", "talktime-simulator-tls", "--namespace", "talktime", "--output", path)

    release = ("--namespace", "talktime", "--kubeconfig", kubeconfig, "--set", "simulator.enabled=true")
    run(helm, "upgrade", "--install", "talktime", str(CHART), *release)
    first = certificate()
    assert len(first) > 1000
    run(helm, "upgrade", "talktime", str(CHART), *release, "--set", "logLevel=DEBUG")
    assert certificate() == first
