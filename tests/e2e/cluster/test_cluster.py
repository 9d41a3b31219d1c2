"""The local cluster itself: a real network, names, tokens; it mends, and it leaves no trace."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from hack.chaos.house import eventually
from hack.cluster import lifecycle
from hack.cluster.layout import SERVICE_ACCOUNT_ISSUER, Cluster, binaries, cluster_named, state_root
from hack.cluster.processes import recorded, running
from hack.demo.kube import Kube, find
from hack.images import builder, catalogue, loading

SERVER = "python3 -m http.server 8000 --directory /var/run/secrets/probe"
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=30).read().decode())"


@pytest.fixture(scope="module")
def shop() -> builder.Workshop:
    return builder.Workshop(state_root(), binaries())


@pytest.fixture(scope="module")
def cluster(shop: builder.Workshop) -> Iterator[Cluster]:
    """A cluster of its own, so that killing its parts disturbs nobody."""
    made = cluster_named("probe")
    try:
        lifecycle.up(made, partial(loading.furnish, shop))
        loading.load(shop, made, [image for image in catalogue.trial_images() if image.target == "redis"])
        yield made
    finally:
        records = recorded(made.processes)
        lifecycle.down(made)
    assert records
    assert lifecycle.traces(made, records) == []


@pytest.fixture(scope="module")
def kube(cluster: Cluster) -> Kube:
    kube = Kube(find(cluster.binaries, "kubectl"), cluster.kubeconfig)
    kube("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": workloads()}))
    kube("rollout", "status", "daemonset/pods", "daemonset/hosts", "--timeout=120s")
    return kube


def workloads() -> list[dict[str, Any]]:
    """On each node a pod and a hostNetwork pod that serve their own projected token; a Service over the pods."""
    source = {"serviceAccountToken": {"path": "token", "audience": "probe", "expirationSeconds": 3600}}
    command = SERVER.split()
    container = {
        "name": "web",
        "image": "talktime/redis:7.0",  # any image with python3
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/probe"}],
    }

    def daemons(name: str, **pod: Any) -> dict[str, Any]:
        volumes = [{"name": "token", "projected": {"sources": [source], "defaultMode": 0o444}}]
        spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0, **pod}
        template = {"metadata": {"labels": {"app": name}}, "spec": spec}
        return {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
        }

    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "pods", "namespace": "default"},
        "spec": {"selector": {"app": "pods"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    return [daemons("pods"), daemons("hosts", hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"), service]


def addresses(kube: Kube, app: str) -> dict[str, str]:
    """Pod name to address."""
    pods = kube.json("get", "pods", f"--selector=app={app}")["items"]
    return {pod["metadata"]["name"]: pod["status"].get("podIP", "none-yet") for pod in pods}


def fetch(kube: Kube, pod: str, url: str) -> str:
    return kube("exec", pod, "--", "python3", "-c", FETCH, url)


def test_pods_and_host_network_pods_of_both_nodes_reach_each_other_and_services(kube: Kube) -> None:
    pods, hosts = addresses(kube, "pods"), addresses(kube, "hosts")
    assert sorted(hosts.values()) == ["10.211.0.11", "10.211.0.12"]
    urls = [f"http://{address}:8000/" for address in (*pods.values(), *hosts.values())]
    for pod in (*pods, *hosts):
        for url in urls:
            assert "token" in fetch(kube, pod, url), f"{pod} -> {url}"
        for url in ("http://pods/", "http://pods.default.svc.cluster.local/"):
            # Each node's kube-proxy hears of the Service's pods on its own, after their DaemonSet is complete.
            eventually(f"{pod} -> {url}", lambda pod=pod, url=url: "token" in fetch(kube, pod, url), 60)


def test_projected_tokens_carry_audience_and_issuer(kube: Kube) -> None:
    import jwt

    pod = next(iter(addresses(kube, "pods")))
    token = kube("exec", pod, "--", "cat", "/var/run/secrets/probe/token")
    keys = jwt.PyJWKSet.from_json(kube("get", "--raw", "/openid/v1/jwks"))
    key = next(key for key in keys.keys if key.key_id == jwt.get_unverified_header(token)["kid"])
    claims = jwt.decode(token, key, ["RS256"], audience="probe", issuer=SERVICE_ACCOUNT_ISSUER)
    assert claims["sub"] == "system:serviceaccount:default:default"


def test_a_claim_gets_a_volume(kube: Kube) -> None:
    assert kube("get", "storageclass", "local", "--output=name").strip() == "storageclass.storage.k8s.io/local"
    assert len(kube.json("get", "persistentvolumes")["items"]) == 4


def test_up_again_changes_nothing_and_is_quick(cluster: Cluster, shop: builder.Workshop) -> None:
    before, began = lifecycle.status(cluster), time.monotonic()
    lifecycle.up(cluster, partial(loading.furnish, shop))
    assert lifecycle.status(cluster) == before
    assert time.monotonic() - began < 20


def test_a_killed_node_comes_back_with_its_pods(cluster: Cluster, kube: Kube) -> None:
    lifecycle.kill(cluster, "node-2.init")
    assert running(cluster.processes, "node-2.kubelet") is None, "the whole node dies with its first process"
    lifecycle.restart(cluster, "node-2.init")
    kube("wait", "--for=condition=Ready", "node/node-2", "--timeout=120s")
    # The API tells the old state until the new kubelet has looked: minutes, on a machine that does other things too.
    deadline = time.monotonic() + 300
    pod = next(iter(addresses(kube, "hosts")))
    while True:
        try:
            for url in [f"http://{address}:8000/" for address in addresses(kube, "pods").values()]:
                assert "token" in fetch(kube, pod, url)
            return
        except RuntimeError:
            assert time.monotonic() < deadline, kube("get", "pods", "--output=wide")
            time.sleep(1)
