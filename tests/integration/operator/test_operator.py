"""The operator as a process against a real API server, under the chart's own RBAC. No controller manager runs here, so
pods are made by hand and nothing is garbage collected."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.integration.operator.apiserver import free_port
from tests.integration.operator.waiting import until

RELEASE = "talktime"
GROUP = "/apis/talktime.dev/v1alpha1"
OPERATOR = f"system:serviceaccount:{RELEASE}:talktime-operator"
MERGE = {"Content-Type": "application/merge-patch+json"}


def project(namespace: str, **agent: Any) -> dict[str, Any]:
    return {
        "apiVersion": "talktime.dev/v1alpha1",
        "kind": "Project",
        "metadata": {"name": "study", "namespace": namespace},
        "spec": {
            "budget": {"amount": "5", "session": {"limit": "0.50"}},
            "providers": [
                {"name": "openai", "api": "OpenAIRealtime", "model": "mini", "secretRef": {"name": "openai"}}
            ],
            "agent": {"instructions": "Ask about the commute.", **agent},
            "media": {"poolRef": {"name": "eu"}},
        },
    }


class World:
    """One namespace with a Project, and the shared pool."""

    def __init__(self, api: httpx.Client, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    def get(self, path: str) -> dict[str, Any] | None:
        answer = self.api.get(path)
        return answer.json() if answer.status_code == 200 else None

    def make_pool(self, **spec: Any) -> None:
        body = {
            "apiVersion": "talktime.dev/v1alpha1",
            "kind": "SFUPool",
            "metadata": {"name": "eu"},
            "spec": spec,
        }
        self.api.post(f"{GROUP}/namespaces/{RELEASE}/sfupools", json=body).raise_for_status()

    def make_project(self, **agent: Any) -> None:
        where = f"{GROUP}/namespaces/{self.namespace}/projects"
        self.api.post(where, json=project(self.namespace, **agent)).raise_for_status()

    def project(self) -> dict[str, Any]:
        return self.get(f"{GROUP}/namespaces/{self.namespace}/projects/study") or {}

    def pool(self) -> dict[str, Any]:
        return self.get(f"{GROUP}/namespaces/{RELEASE}/sfupools/eu") or {}

    def condition(self, name: str, of: Callable[[], dict[str, Any]] | None = None) -> dict[str, Any]:
        status = (of or self.project)().get("status") or {}
        return next((c for c in status.get("conditions") or () if c["type"] == name), {})

    def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        body = self.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return body and {k: base64.b64decode(v).decode() for k, v in body["data"].items()}

    def deployment(self) -> dict[str, Any] | None:
        return self.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/talktime-agent-study")

    def make_pod(self, name: str, status: dict[str, Any], namespace: str = "", **labels: str) -> None:
        namespace = namespace or self.namespace
        chosen = labels or {
            "app.kubernetes.io/component": "agent",
            "talktime.dev/project": "study",
        }
        made_by = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": "u", "controller": True}
        labels = {"app.kubernetes.io/managed-by": "talktime", **chosen}
        body = {
            "metadata": {"name": name, "labels": labels, "ownerReferences": [made_by]},
            "spec": {"containers": [{"name": "agent", "image": "x"}], "terminationGracePeriodSeconds": 0},
        }
        pods = f"/api/v1/namespaces/{namespace}/pods"
        self.api.post(pods, json=body).raise_for_status()
        self.api.patch(
            f"{pods}/{name}/status", headers=MERGE, content=json.dumps({"status": status})
        ).raise_for_status()


@pytest.fixture
def world(api: httpx.Client, namespace: str) -> World:
    return World(api, namespace)


def running(ip: str) -> dict[str, Any]:
    return {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "hostIP": ip,
        "conditions": [{"type": "Ready", "status": "True"}],
    }


@contextmanager
def answering(ip: str, port: int, answers: dict[str, Callable[[], str]]) -> Iterator[None]:
    """A small HTTP server on an address of the loopback network."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            make = answers.get(self.path)
            self.send_response(200 if make else 404)
            self.end_headers()
            if make:
                self.wfile.write(make().encode())

        def do_POST(self) -> None:
            """LiveKit's room service: no such room."""
            self.send_response(200 if self.path.endswith("/ListRooms") else 404)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer((ip, port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def writes(apiserver: Any, since: float) -> list[str]:
    """Write requests of the operator, without the Lease and the events."""
    return [
        f"{e['verb']} {e['requestURI'].split('?')[0]}"
        for e in apiserver.requests(OPERATOR, since)
        if e["verb"] in ("create", "patch", "update", "delete")
        and e["objectRef"]["resource"] not in ("leases", "events")
    ]


def test_it_is_ready_in_a_cluster_without_any_project(operator: Any, world: World) -> None:
    operator.stop()
    managed = "labelSelector=app.kubernetes.io/managed-by=talktime"
    watched = {
        "/api/v1": [f"{kind}?{managed}" for kind in ("configmaps", "pods", "services", "serviceaccounts")],
        "/apis/apps/v1": [f"{kind}?{managed}" for kind in ("deployments", "statefulsets")],
        "/apis/policy/v1": [f"poddisruptionbudgets?{managed}"],
        "/apis/networking.k8s.io/v1": [f"networkpolicies?{managed}"],
        GROUP: ["projects", "sfupools", "ratecards"],
    }
    for root, kinds in watched.items():
        for kind in kinds:
            for item in (world.get(f"{root}/{kind}") or {})["items"]:
                space = item["metadata"].get("namespace")
                where = f"{root}/namespaces/{space}" if space else root
                world.api.delete(f"{where}/{kind.split('?')[0]}/{item['metadata']['name']}")
    operator.start()
    until(lambda: _readyz(operator) == "leader")


def test_a_project_and_its_pool_get_their_children(operator: Any, world: World, ledger: Any) -> None:
    world.make_pool(replicas=2)
    world.make_project()
    deployment = until(world.deployment)
    spec = deployment["spec"]["template"]["spec"]
    environment = {e["name"]: e for e in spec["containers"][0]["env"]}
    assert environment["TALKTIME_PROJECT"]["value"] == f"{world.namespace}/study"
    assert environment["TALKTIME_AGENT_NAME"]["value"] == f"tt-{world.namespace}.study"
    assert environment["TALKTIME_PROVIDER_KEY_0"]["valueFrom"]["secretKeyRef"] == {"name": "openai", "key": "api-key"}
    name = environment["LIVEKIT_URL"]["valueFrom"]["secretKeyRef"]["name"]
    copy = world.secret(world.namespace, name)
    keys = world.secret(RELEASE, "sfu-eu-keys")
    assert copy is not None
    assert keys is not None
    assert copy == {
        "url": f"ws://sfu-eu.{RELEASE}.svc:7880",
        "api-key": keys["api-key"],
        "api-secret": keys["api-secret"],
    }
    assert keys["keys.yaml"] == f"{keys['api-key']}: {keys['api-secret']}\n"
    aggregate = until(lambda: world.secret(RELEASE, "talktime-sfu-keys"))
    assert json.loads(aggregate[f"{RELEASE}.eu.json"]) == {
        "apiKey": keys["api-key"],
        "apiSecret": keys["api-secret"],
    }
    for slot in ("sfu-eu-0", "sfu-eu-1"):
        node = until(lambda slot=slot: world.get(f"/apis/apps/v1/namespaces/{RELEASE}/statefulsets/{slot}"))
        assert node["spec"]["template"]["spec"]["hostNetwork"] is True
    for path in (
        f"/api/v1/namespaces/{world.namespace}/serviceaccounts/talktime-agent-study",
        f"/apis/networking.k8s.io/v1/namespaces/{world.namespace}/networkpolicies/talktime-agent-study",
        f"/apis/policy/v1/namespaces/{world.namespace}/poddisruptionbudgets/talktime-agent-study",
        f"/api/v1/namespaces/{RELEASE}/services/sfu-eu",
        f"/api/v1/namespaces/{RELEASE}/services/sfu-eu-nodes",
        f"/api/v1/namespaces/{RELEASE}/services/sfu-eu-redis",
        f"/apis/apps/v1/namespaces/{RELEASE}/deployments/sfu-eu-redis",
        f"/apis/policy/v1/namespaces/{RELEASE}/poddisruptionbudgets/sfu-eu",
    ):
        until(lambda path=path: world.get(path))
    push = until(lambda: ledger.projects.get(f"{world.namespace}/study"))
    assert push["instructions"] == "Ask about the commute."
    access = until(lambda: world.secret(world.namespace, "study-access"))
    known = {k["sha256"]: k["kind"] for k in ledger.projects[f"{world.namespace}/study"]["accessKeys"]}
    assert known[hashlib.sha256(access["server-key"].encode()).hexdigest()] == "server"
    assert known[hashlib.sha256(access["observer-key"].encode()).hexdigest()] == "observer"
    assert access["server-key"].startswith("tts_")
    assert access["observer-key"].startswith("tto_")
    assert until(lambda: ledger.pools.get(f"{RELEASE}/eu"))["publicURL"] == f"ws://sfu-eu.{RELEASE}.svc:7880"
    until(lambda: world.project().get("status", {}).get("budget", {}).get("amount") == "5.00")
    assert world.condition("PriceKnown")["status"] == "True"
    until(lambda: world.condition("Ready").get("reason") == "AgentsNotReady")
    assert access["server-key"] not in operator.log.read_text()


def test_nothing_is_written_when_nothing_changed_nor_after_a_restart(
    operator: Any, world: World, ledger: Any, apiserver: Any
) -> None:
    world.make_pool()
    world.make_project()
    until(lambda: world.condition("PriceKnown").get("status") == "True")
    quiet = _quiet(apiserver)
    time.sleep(5)
    probes = f"create /api/v1/namespaces/{world.namespace}/secrets"
    assert [w for w in writes(apiserver, quiet) if w != probes] == []
    operator.stop()
    restarted = time.time() + 1
    time.sleep(1)
    operator.start(TALKTIME_RESYNC="1")
    until(lambda: _readyz(operator) == "leader")
    time.sleep(5)
    assert [w for w in writes(apiserver, restarted) if w != probes] == []


def _quiet(apiserver: Any) -> float:
    """Waits until no write came for two seconds; returns the moment after."""
    while True:
        since = time.time()
        time.sleep(2)
        if not [w for w in writes(apiserver, int(since)) if "/secrets" not in w]:
            return float(int(time.time()) + 1)


def _readyz(operator: Any) -> str:
    try:
        return httpx.get(f"{operator.url}/readyz", trust_env=False, timeout=30).text
    except httpx.HTTPError:
        return ""


def test_one_changed_state_is_one_write_and_one_event(operator: Any, world: World, ledger: Any, apiserver: Any) -> None:
    world.make_pool()
    world.make_project()
    until(lambda: world.condition("BudgetAvailable").get("status") == "True")
    since = _quiet(apiserver)
    time.sleep(1)
    budget = ledger.status(f"{world.namespace}/study")["budget"]
    ledger.say(f"{world.namespace}/study", budget={**budget, "posted": "4.9", "available": "0.1", "state": "HardLimit"})
    until(lambda: world.project()["status"]["budget"].get("state") == "HardLimit")
    time.sleep(2)
    mine = [w for w in writes(apiserver, since) if not w.endswith("/secrets")]
    assert mine == [f"patch {GROUP}/namespaces/{world.namespace}/projects/study/status"]
    status = world.project()["status"]
    assert status["budget"]["usedPercent"] == "98.0%"
    assert world.condition("BudgetAvailable")["reason"] == "HardLimit"
    assert "raise spec.budget.amount" in world.condition("BudgetAvailable")["message"]
    events = world.get(f"/api/v1/namespaces/{world.namespace}/events") or {}
    reasons = [e["reason"] for e in events["items"] if e["reason"] == "HardLimit"]
    assert len(reasons) >= 1
    assert 'talktime_project_budget_state{namespace="' in operator.metrics()


def test_amounts_alone_are_written_rarely(operator: Any, world: World, ledger: Any, apiserver: Any) -> None:
    world.make_pool()
    world.make_project()
    until(lambda: world.condition("BudgetAvailable").get("status") == "True")
    since = _quiet(apiserver)
    began = time.monotonic()
    budget = ledger.status(f"{world.namespace}/study")["budget"]
    for cents in range(1, 31):
        posted = f"{cents / 100:.2f}"
        ledger.say(f"{world.namespace}/study", budget={**budget, "posted": posted})
        time.sleep(0.1)
    until(lambda: world.project()["status"]["budget"]["posted"] == "0.30")
    mine = [w for w in writes(apiserver, since) if w.endswith("/study/status")]
    assert 1 <= len(mine) <= 2 + (time.monotonic() - began) / 3  # an interval of 3 s in this test


def test_agents_follow_sessions_and_busy_pods_stay(operator: Any, world: World, ledger: Any) -> None:
    world.make_pool()
    world.make_project(sessionsPerReplica=2, spareSessions=1, minReplicas=1, maxReplicas=5)
    until(world.deployment)
    jobs = {"127.7.0.1": 2, "127.7.0.2": 0, "127.7.0.3": 0}

    def answer(ip: str) -> Callable[[], str]:
        return lambda: json.dumps({"agent_name": "x", **({"active_jobs": jobs[ip]} if jobs[ip] else {})})

    with (
        answering("127.7.0.1", 8081, {"/worker": answer("127.7.0.1")}),
        answering("127.7.0.2", 8081, {"/worker": answer("127.7.0.2")}),
        answering("127.7.0.3", 8081, {"/worker": answer("127.7.0.3")}),
    ):
        world.make_pod("agent-busy", running("127.7.0.1"))
        until(lambda: world.deployment()["spec"]["replicas"] == 2)
        jobs["127.7.0.2"] = 2
        world.make_pod("agent-two", running("127.7.0.2"))
        until(lambda: world.deployment()["spec"]["replicas"] == 3)
        world.make_pod("agent-three", running("127.7.0.3"))
        until(lambda: world.project()["status"]["agents"]["summary"] == "3/3")
        jobs["127.7.0.2"] = 0
        until(lambda: world.deployment()["spec"]["replicas"] == 2)
        costs = {
            p["metadata"]["name"]: p["metadata"]
            .get("annotations", {})
            .get("controller.kubernetes.io/pod-deletion-cost")
            for p in world.get(f"/api/v1/namespaces/{world.namespace}/pods")["items"]
        }
        assert costs["agent-busy"] is None
        assert [costs["agent-three"], costs["agent-two"]].count("-100") == 1
        assert until(lambda: world.condition("MetricsFresh").get("status")) == "True"
    # Nobody answers any more: unknown keeps the replicas and says so.
    until(lambda: world.condition("MetricsFresh").get("reason") == "LoadUnknown")
    assert world.deployment()["spec"]["replicas"] == 2


def test_a_missing_secret_and_an_unknown_pool_name_the_field_and_the_fix(
    operator: Any, world: World, ledger: Any
) -> None:
    world.make_project()
    until(lambda: world.condition("MediaHealthy").get("reason") == "PoolNotFound")
    assert "spec.media.poolRef.name" in world.condition("MediaHealthy")["message"]
    assert world.deployment() is None
    world.make_pool()
    until(world.deployment)
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "openai" not found'}
    world.make_pod(
        "agent-1",
        {
            "phase": "Pending",
            "containerStatuses": [
                {
                    "name": "agent",
                    "image": "x",
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"waiting": waiting},
                }
            ],
        },
    )
    until(lambda: world.condition("CredentialsValid").get("reason") == "SecretNotFound")
    assert "spec.providers[0].secretRef.name" in world.condition("CredentialsValid")["message"]
    assert world.condition("Ready")["reason"] == "SecretNotFound"
    ledger.say(
        f"{world.namespace}/study",
        prices=[{"provider": "openai", "model": "mini", "known": False, "reason": "no card"}],
    )
    until(lambda: world.condition("PriceKnown").get("reason") == "PriceUnknown")
    assert "RateCard" in world.condition("PriceKnown")["message"]


def test_pause_is_an_annotation(operator: Any, world: World, ledger: Any) -> None:
    world.make_pool()
    world.make_project()
    until(lambda: ledger.projects.get(f"{world.namespace}/study"))
    where = f"{GROUP}/namespaces/{world.namespace}/projects/study"
    patch = '{"metadata":{"annotations":{"talktime.dev/paused":"true"}}}'
    world.api.patch(where, headers=MERGE, content=patch).raise_for_status()
    until(lambda: ledger.projects[f"{world.namespace}/study"]["paused"])
    until(lambda: world.condition("Ready").get("reason") == "Paused")


def test_deleting_a_project_tells_the_ledger_and_keeps_tokens_of_live_sessions(
    operator: Any, world: World, ledger: Any
) -> None:
    world.make_pool()
    world.make_project()
    account = f"/api/v1/namespaces/{world.namespace}/serviceaccounts/talktime-agent-study"
    until(lambda: world.get(account) and ledger.projects.get(f"{world.namespace}/study"))
    world.make_pod("agent-live", running("127.7.1.1"))

    def known() -> bool:
        """The operator has seen the pod; deletion and pod come to it by two watches."""
        agents = (world.project().get("status") or {}).get("agents") or {}
        return str(agents.get("summary", "")).startswith("1/")

    until(known)
    assert "finalizers" not in world.project()["metadata"]
    world.api.delete(f"{GROUP}/namespaces/{world.namespace}/projects/study").raise_for_status()
    until(lambda: f"{world.namespace}/study" in ledger.deleted)
    time.sleep(2)
    assert world.get(account) is not None
    world.api.delete(f"/api/v1/namespaces/{world.namespace}/pods/agent-live").raise_for_status()
    until(lambda: world.get(account) is None)


def test_a_deletion_while_the_operator_is_dead_is_told_after_its_restart(
    operator: Any, world: World, ledger: Any
) -> None:
    world.make_pool()
    world.make_project()
    until(lambda: ledger.projects.get(f"{world.namespace}/study"))
    operator.stop(signal.SIGKILL)
    world.api.delete(f"{GROUP}/namespaces/{world.namespace}/projects/study").raise_for_status()
    assert f"{world.namespace}/study" not in ledger.deleted
    operator.start(TALKTIME_RESYNC="2")
    until(lambda: f"{world.namespace}/study" in ledger.deleted)


def test_kill_9_loses_nothing(operator: Any, world: World, ledger: Any) -> None:
    world.make_pool()
    world.make_project()
    until(world.deployment)
    access = until(lambda: world.secret(world.namespace, "study-access"))
    operator.stop(signal.SIGKILL)
    where = f"{GROUP}/namespaces/{world.namespace}/projects/study"
    patch = '{"spec":{"agent":{"minReplicas":3}}}'
    world.api.patch(where, headers=MERGE, content=patch).raise_for_status()
    ledger.projects.clear()
    operator.start()
    until(lambda: world.deployment()["spec"]["replicas"] == 3)
    push = until(lambda: ledger.projects.get(f"{world.namespace}/study"))
    assert hashlib.sha256(access["server-key"].encode()).hexdigest() in [k["sha256"] for k in push["accessKeys"]]
    assert world.secret(world.namespace, "study-access") == access


def test_deleting_the_access_secret_rotates_the_keys(operator: Any, world: World, ledger: Any) -> None:
    world.make_pool()
    world.make_project()
    old = until(lambda: world.secret(world.namespace, "study-access"))
    where = f"/api/v1/namespaces/{world.namespace}/secrets/study-access"
    until(lambda: ledger.projects.get(f"{world.namespace}/study"))
    world.api.delete(where).raise_for_status()

    def rotated() -> dict[str, str] | None:
        new = world.secret(world.namespace, "study-access")
        return new if new and new != old else None

    new = until(rotated)
    known = lambda: [k["sha256"] for k in ledger.projects[f"{world.namespace}/study"]["accessKeys"]]  # noqa: E731
    until(lambda: hashlib.sha256(new["server-key"].encode()).hexdigest() in known())
    until(lambda: hashlib.sha256(old["server-key"].encode()).hexdigest() not in known())


def test_a_silent_ledger_is_said_and_changes_no_agent(operator: Any, world: World, ledger: Any) -> None:
    world.make_pool()
    world.make_project(minReplicas=2)
    until(lambda: world.condition("LedgerReachable").get("status") == "True")
    ledger.refuse_all = True
    until(lambda: world.condition("LedgerReachable").get("status") == "False")
    # It answers, and refuses: that is another finding than silence.
    until(lambda: world.condition("Ready")["reason"] == "LedgerFailing")
    assert world.deployment()["spec"]["replicas"] == 2
    assert world.project()["status"]["budget"]["amount"] == "5.00"
    ledger.refuse_all = False
    until(lambda: world.condition("LedgerReachable").get("status") == "True")


def test_a_pool_shows_its_nodes(operator: Any, world: World, ledger: Any) -> None:
    metrics = 'livekit_room_total{node_id="ND_abc",node_type="SERVER"} 3\n'
    world.make_pool(replicas=1, network={"ports": {"http": 17880, "metrics": 16789}})
    with (
        answering("127.7.2.1", 17880, {"/": lambda: "OK"}),
        answering("127.7.2.1", 16789, {"/metrics": lambda: metrics}),
    ):
        world.make_pod(
            "sfu-eu-0-0",
            running("127.7.2.1"),
            RELEASE,
            **{
                "app.kubernetes.io/component": "sfu",
                "talktime.dev/pool": "eu",
                "talktime.dev/node": "sfu-eu-0",
            },
        )
        until(lambda: world.condition("Ready", world.pool).get("status") == "True")
        status = world.pool()["status"]
        assert status["nodesSummary"] == "1/1"
        assert status["nodes"][0]["nodeID"] == "ND_abc"
        until(lambda: world.pool()["status"].get("sessions") == 3)
        assert world.condition("Autoscaling", world.pool)["reason"] == "HeldByReplicas"
        push = until(lambda: ledger.pools.get(f"{RELEASE}/eu"))
        until(lambda: ledger.pools[f"{RELEASE}/eu"]["health"] == "good")
        assert push["active"] == "SelfHosted"
        node = ledger.pools[f"{RELEASE}/eu"]["nodes"][0]
        assert (node["nodeID"], node["state"], node["rooms"]) == ("ND_abc", "Ready", 3)
        scale = world.get(f"{GROUP}/namespaces/{RELEASE}/sfupools/eu/scale")
        assert scale is not None
        assert scale["status"]["replicas"] == 1
        assert "talktime.dev/pool=eu" in scale["status"]["selector"]
    until(lambda: world.condition("Ready", world.pool).get("reason") == "PoolSick")
    world.api.delete(f"/api/v1/namespaces/{RELEASE}/pods/sfu-eu-0-0")


def test_rate_cards_reach_the_ledger_and_leave_it(operator: Any, world: World, ledger: Any) -> None:
    card = {
        "apiVersion": "talktime.dev/v1alpha1",
        "kind": "RateCard",
        "metadata": {"name": "mini"},
        "spec": {
            "provider": "openai",
            "model": "mini",
            "entries": [
                {
                    "effectiveFrom": "2026-01-01T00:00:00Z",
                    "meters": {"audio_in": {"usdPerMillion": "10"}},
                    "source": "page",
                    "checkedAt": "2026-11-01",
                }
            ],
        },
    }
    world.api.post(f"{GROUP}/ratecards", json=card).raise_for_status()
    until(lambda: "mini" in ledger.cards)
    until(lambda: world.condition("Ready", lambda: world.get(f"{GROUP}/ratecards/mini") or {}).get("status") == "True")
    assert (world.get(f"{GROUP}/ratecards/mini") or {})["status"]["effectiveFrom"] == "2026-01-01T00:00:00Z"
    world.api.delete(f"{GROUP}/ratecards/mini")
    until(lambda: "mini" not in ledger.cards)


def test_pools_and_cards_deleted_while_the_operator_is_dead_leave_the_ledger(
    operator: Any, world: World, ledger: Any
) -> None:
    world.make_pool()
    until(lambda: f"{RELEASE}/eu" in ledger.pools)
    operator.stop(signal.SIGKILL)
    world.api.delete(f"{GROUP}/namespaces/{RELEASE}/sfupools/eu").raise_for_status()
    operator.start(TALKTIME_RESYNC="2")
    until(lambda: f"{RELEASE}/eu" not in ledger.pools)
    aggregate = world.get(f"/api/v1/namespaces/{RELEASE}/secrets/talktime-sfu-keys") or {}
    assert aggregate.get("data") is None


def test_a_second_replica_waits_and_takes_over(
    operator: Any, world: World, ledger: Any, apiserver: Any, operator_token: str, tmp_path: Any
) -> None:
    world.make_pool()
    until(lambda: _readyz(operator) == "leader")
    folder = tmp_path / "second"
    folder.mkdir()
    second = type(operator)(apiserver, operator_token, ledger.url, folder, 0)
    port = free_port()
    second.url = f"http://127.0.0.1:{port}"
    second.start(TALKTIME_LISTEN_PORT=str(port), TALKTIME_POD_NAME="second")
    try:
        until(lambda: "follower" in _readyz(second))  # on a busy machine its imports alone take half a minute
        operator.stop()
        until(lambda: _readyz(second) == "leader")
        world.make_project()
        until(world.deployment)
    finally:
        second.close()
