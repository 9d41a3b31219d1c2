"""What `helm install` would send: names of the contract, least privilege, the restricted pod standard."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings
from talktime_console.settings import Settings as ConsoleSettings
from talktime_gateway.settings import Settings as GatewaySettings
from talktime_ledger.server.settings import Settings as LedgerSettings
from talktime_operator.settings import OperatorSettings

from tests.certificates import Authority

from .conftest import CHART, Render

Manifest = dict[str, Any]
EVERYTHING = (
    "simulator.enabled=true",
    "prometheus.enabled=true",
    "serviceMonitor.enabled=true",
    "prometheusRule.enabled=true",
)


@pytest.fixture(scope="module")
def default(render: Render) -> list[Manifest]:
    return render()


@pytest.fixture(scope="module")
def everything(render: Render) -> list[Manifest]:
    return render(*EVERYTHING)


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def workloads(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for manifest in manifests:
        if manifest["kind"] in {"Deployment", "StatefulSet"}:
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def test_helm_lint_finds_nothing(helm: str) -> None:
    done = subprocess.run([helm, "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_services_and_accounts_have_the_names_of_the_contract(everything: list[Manifest]) -> None:
    ports = {m["metadata"]["name"]: m["spec"]["ports"][0]["port"] for m in everything if m["kind"] == "Service"}
    assert ports == {
        "talktime-operator": 8080,
        "talktime-ledger": 8080,
        "talktime-gateway": 8080,
        "talktime-simulator": 8080,
        "talktime-postgres": 5432,
        "talktime-prometheus": 9090,
    }
    accounts = {m["metadata"]["name"] for m in everything if m["kind"] == "ServiceAccount"}
    assert accounts >= {"talktime-operator", "talktime-ledger", "talktime-gateway", "talktime-console"}


def test_every_pod_meets_the_restricted_standard(everything: list[Manifest]) -> None:
    seen = dict(workloads(everything))
    assert len(seen) == 7
    for name, pod in seen.items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] == 65532, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name


def test_every_container_is_bounded_and_the_whole_fits_two_cores(everything: list[Manifest]) -> None:
    millicores = 0
    for manifest in everything:
        if manifest["kind"] in {"Deployment", "StatefulSet"}:
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                assert "memory" in container["resources"]["limits"]
                request = container["resources"]["requests"]["cpu"]
                millicores += manifest["spec"]["replicas"] * int(request.removesuffix("m"))
    assert millicores <= 300


def test_long_running_servers_are_probed(everything: list[Manifest]) -> None:
    for name, pod in workloads(everything):
        if name != "talktime-console":
            assert "readinessProbe" in pod["containers"][0], name


@pytest.mark.parametrize("name", ["talktime-ledger", "talktime-gateway"])
def test_who_is_asked_serves_on_while_a_successor_starts(default: list[Manifest], name: str) -> None:
    pod = named(default, "Deployment", name)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    # An agent calls ten seconds an outage; what is under way when the sleep is over has time to end.
    assert 10 < int(seconds) <= pod["terminationGracePeriodSeconds"] - 20


@pytest.mark.parametrize(
    ("deployment", "settings"),
    [
        ("talktime-operator", OperatorSettings),
        ("talktime-ledger", LedgerSettings),
        ("talktime-gateway", GatewaySettings),
        ("talktime-console", ConsoleSettings),
    ],
)
def test_every_setting_the_chart_gives_is_one_the_process_knows(
    render: Render, deployment: str, settings: type[BaseSettings]
) -> None:
    common = {"TALKTIME_LOG_LEVEL", "TALKTIME_NAMESPACE", "TALKTIME_POD_NAME"}  # every process, read or not
    manifests = render("ledger.issuer=https://issuer.example", "children.caBundle=-----BEGIN CERTIFICATE-----")
    pod = named(manifests, "Deployment", deployment)["spec"]["template"]["spec"]
    given = {env["name"] for container in containers(pod) for env in container["env"]}
    known = {f"TALKTIME_{field}".upper() for field in settings.model_fields}
    assert given - common <= known


def test_callers_of_the_ledger_carry_a_token_for_it(default: list[Manifest]) -> None:
    for name in ("talktime-operator", "talktime-gateway", "talktime-console"):
        pod = named(default, "Deployment", name)["spec"]["template"]["spec"]
        sources = [s for v in pod["volumes"] for s in v.get("projected", {}).get("sources", [])]
        assert {s["serviceAccountToken"]["audience"] for s in sources} == {"talktime-ledger"}
        mounts = {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
        assert "/var/run/secrets/talktime" in mounts


def test_only_operator_ledger_and_prometheus_speak_to_the_api_server(everything: list[Manifest]) -> None:
    mounted = {
        name
        for name, pod in workloads(everything)
        if pod.get("automountServiceAccountToken", name == "talktime-prometheus")
    }
    assert mounted == {"talktime-operator", "talktime-ledger", "talktime-prometheus"}


def rules(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for manifest in manifests:
        if manifest["kind"] in {"Role", "ClusterRole"}:
            for rule in manifest["rules"]:
                yield manifest["metadata"]["name"], rule


def test_no_rule_has_a_wildcard(everything: list[Manifest]) -> None:
    for name, rule in rules(everything):
        assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}, name


def test_nobody_may_read_secrets_of_the_cluster(everything: list[Manifest]) -> None:
    """The operator makes Secrets for Projects; a provider's key is read by the kubelet alone."""
    cluster_wide = [m for m in everything if m["kind"] == "ClusterRole"]
    verbs = {verb for _, rule in rules(cluster_wide) if "secrets" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"create"}


def test_only_the_ledger_knows_the_database(default: list[Manifest]) -> None:
    readers = {
        name
        for name, pod in workloads(default)
        if "talktime-postgres" in str([pod.get("volumes"), [c.get("env") for c in containers(pod)]])
    }
    assert readers == {"talktime-ledger", "talktime-postgres"}


def test_an_external_database_needs_its_secret_and_brings_no_embedded_one(render: Render) -> None:
    with pytest.raises(ValueError, match="dsnSecret"):
        render("postgres.embedded=false")
    manifests = render("postgres.embedded=false", "postgres.dsnSecret.name=money", "postgres.dsnSecret.key=url")
    assert not [m for m in manifests if "postgres" in m["metadata"]["name"]]
    pod = named(manifests, "Deployment", "talktime-ledger")["spec"]["template"]["spec"]
    for container in containers(pod):
        (database,) = [env for env in container["env"] if env["name"] == "TALKTIME_DATABASE_URL"]
        assert database["valueFrom"]["secretKeyRef"] == {"name": "money", "key": "url"}


def test_a_registry_goes_before_our_images_only(render: Render) -> None:
    manifests = render(*EVERYTHING, "image.registry=reg.example.com/team", "image.tag=abc")
    images = {c["image"] for _, pod in workloads(manifests) for c in containers(pod)}
    assert images == {
        "reg.example.com/team/talktime/control:abc",
        "reg.example.com/team/talktime/simulator:abc",
        "reg.example.com/team/talktime/postgres:15",
        "reg.example.com/team/talktime/prometheus:2.42",
    }
    operator = named(manifests, "Deployment", "talktime-operator")["spec"]["template"]["spec"]["containers"][0]
    given = {env["name"]: env.get("value") for env in operator["env"]}
    assert given["TALKTIME_AGENT_IMAGE"] == "reg.example.com/team/talktime/agent:abc"
    assert given["TALKTIME_REDIS_IMAGE"] == "reg.example.com/team/talktime/redis:7.0"
    assert given["TALKTIME_SFU_IMAGE"] == "livekit/livekit-server:v1.13.5"


def test_a_ca_bundle_reaches_the_operator_and_another_one_restarts_it(
    render: Render, default: list[Manifest], tmp_path: Path
) -> None:
    def operator(manifests: list[Manifest]) -> Manifest:
        template: Manifest = named(manifests, "Deployment", "talktime-operator")["spec"]["template"]
        return template

    assert "talktime-agent-ca" not in {m["metadata"]["name"] for m in default}
    assert "agent-ca" not in str(operator(default))
    bundle = Authority.create("Körber & <Co>").pem
    rendered = []
    for text in (bundle, f"# Körber & <Co>\n{bundle}"):
        file = tmp_path / "ca.pem"
        file.write_text(text)
        manifests = render(files={"children.caBundle": file})
        assert named(manifests, "ConfigMap", "talktime-agent-ca")["data"] == {"ca.pem": text}
        (container,) = operator(manifests)["spec"]["containers"]
        (mount,) = [m for m in container["volumeMounts"] if m["name"] == "agent-ca"]
        given = {env["name"]: env.get("value") for env in container["env"]}
        assert given["TALKTIME_AGENT_CA_FILE"] == f"{mount['mountPath']}/ca.pem"
        assert mount["readOnly"] is True
        rendered.append(operator(manifests))
    assert rendered[0] != rendered[1]


@pytest.mark.parametrize(
    "wrong",
    [
        "operator.replicaz=2",
        "logLevel=LOUD",
        "gateway.replicas=0",
        "postgres.persistence.size=lots",
        "children.caBundle=/path",
    ],
)
def test_a_misspelt_or_impossible_value_is_refused(render: Render, wrong: str) -> None:
    with pytest.raises(ValueError, match="values don't meet the specifications"):
        render(wrong)


def test_network_policies_let_only_the_ledger_into_the_database(everything: list[Manifest]) -> None:
    policy = named(everything, "NetworkPolicy", "talktime-postgres")
    (ingress,) = policy["spec"]["ingress"]
    assert [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in ingress["from"]] == ["ledger"]
    gateway = named(everything, "NetworkPolicy", "talktime-gateway")
    assert "from" not in gateway["spec"]["ingress"][0]


def test_dashboards_reach_grafana(default: list[Manifest]) -> None:
    (board,) = [m for m in default if m["metadata"].get("labels", {}).get("grafana_dashboard")]
    assert '"uid": "talktime-finance"' in board["data"]["talktime-finance.json"]


def test_the_embedded_prometheus_has_a_valid_configuration(
    everything: list[Manifest], tmp_path_factory: pytest.TempPathFactory, promtool: Callable[..., None]
) -> None:
    folder = tmp_path_factory.mktemp("prometheus")
    for name, text in named(everything, "ConfigMap", "talktime-prometheus")["data"].items():
        (folder / name).write_text(text.replace("/etc/prometheus/", f"{folder}/"))
    promtool("check", "config", str(folder / "prometheus.yml"))
    promtool("check", "rules", str(folder / "alerts.yaml"))
