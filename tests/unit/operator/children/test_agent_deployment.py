"""Twin of children/agent_deployment.py"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from talktime_ledger.resources.project import ProjectSpec
from talktime_operator.children.agent_ca import agent_ca_name
from talktime_operator.children.agent_deployment import AgentSettings, build_agent_deployment
from talktime_operator.names import Key, Manifest, Owner

SETTINGS = AgentSettings("talktime/agent:1", "IfNotPresent", "http://talktime-ledger.talktime.svc:8080", 15000)


@pytest.fixture
def build(key: Key, owner: Owner, project_spec: Callable[..., ProjectSpec]) -> Callable[..., Manifest]:
    return lambda **agent: build_agent_deployment(key, owner, project_spec(**agent), 2, "study-livekit-abc", SETTINGS)


def _container(manifest: Manifest) -> Manifest:
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_environment_is_the_contract(build: Callable[..., Manifest]) -> None:
    environment = {e["name"]: e.get("value") or e["valueFrom"]["secretKeyRef"] for e in _container(build())["env"]}
    assert environment == {
        "TALKTIME_PROJECT": "team/study",
        "TALKTIME_LEDGER_URL": "http://talktime-ledger.talktime.svc:8080",
        "TALKTIME_AGENT_NAME": "tt-team.study",
        "TALKTIME_SESSIONS_PER_REPLICA": "4",
        "TALKTIME_PROVIDER_NAMES": "openai,backup",
        "HOME": "/tmp",
        "LIVEKIT_URL": {"name": "study-livekit-abc", "key": "url"},
        "LIVEKIT_API_KEY": {"name": "study-livekit-abc", "key": "api-key"},
        "LIVEKIT_API_SECRET": {"name": "study-livekit-abc", "key": "api-secret"},
        "TALKTIME_PROVIDER_KEY_0": {"name": "openai", "key": "api-key"},
        "TALKTIME_PROVIDER_KEY_1": {"name": "google", "key": "token"},
    }


def test_pods_meet_the_restricted_standard(build: Callable[..., Manifest]) -> None:
    pod = build()["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert _container(build())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_session_is_never_cut(build: Callable[..., Manifest]) -> None:
    manifest = build()
    assert manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 15000
    assert manifest["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    container = _container(manifest)
    assert "livenessProbe" not in container
    assert "lifecycle" not in container
    assert "limits" not in container["resources"]


def test_the_ledger_token_is_a_projected_volume(build: Callable[..., Manifest]) -> None:
    volumes = {v["name"]: v for v in build()["spec"]["template"]["spec"]["volumes"]}
    (source,) = volumes["ledger-token"]["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "talktime-ledger"
    mounts = {m["name"]: m["mountPath"] for m in _container(build())["volumeMounts"]}
    assert mounts["ledger-token"] == "/var/run/secrets/talktime"


def test_without_a_bundle_agents_trust_the_cas_of_their_image(build: Callable[..., Manifest]) -> None:
    assert "SSL_CERT_FILE" not in {e["name"] for e in _container(build())["env"]}
    assert "ca" not in {v["name"] for v in build()["spec"]["template"]["spec"]["volumes"]}


def test_a_bundle_is_mounted_read_only_and_another_one_makes_new_pods(
    key: Key, owner: Owner, project_spec: Callable[..., ProjectSpec]
) -> None:
    def build(bundle: str) -> Manifest:
        settings = replace(SETTINGS, ca_bundle=bundle)
        return build_agent_deployment(key, owner, project_spec(), 2, "study-livekit-abc", settings)

    manifest = build("one")
    environment = {e["name"]: e.get("value") for e in _container(manifest)["env"]}
    assert environment["SSL_CERT_FILE"] == "/etc/talktime/ca/ca.pem"
    (mount,) = [m for m in _container(manifest)["volumeMounts"] if m["name"] == "ca"]
    assert mount == {"name": "ca", "mountPath": "/etc/talktime/ca", "readOnly": True}
    (volume,) = [v for v in manifest["spec"]["template"]["spec"]["volumes"] if v["name"] == "ca"]
    assert volume["configMap"]["name"] == agent_ca_name("study", "one")
    assert manifest["spec"]["template"] != build("two")["spec"]["template"]
    assert manifest["spec"]["selector"] == build("two")["spec"]["selector"]


def test_image_and_resources_of_the_project_win(build: Callable[..., Manifest]) -> None:
    container = _container(build(image="acme/agent:7", resources={"limits": {"memory": "1Gi"}}))
    assert container["image"] == "acme/agent:7"
    assert container["resources"] == {"limits": {"memory": "1Gi"}}


def test_the_project_owns_it(build: Callable[..., Manifest]) -> None:
    assert build()["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
