"""A Project's plan, from what was seen to what should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.wire import ProjectStatus
from talktime_operator.children.access_secret import derive_access_keys
from talktime_operator.children.agent_deployment import AgentSettings
from talktime_operator.children.agent_record import Record
from talktime_operator.children.livekit_secret import LiveKitAccess
from talktime_operator.conditions import Finding, PoolView, Silence
from talktime_operator.names import Key
from talktime_operator.observed import Child, Pod, Resource
from talktime_operator.pools.fallback_keys import Standby
from talktime_operator.projects.plan import Seen, plan, plan_invalid


@pytest.fixture
def seen(
    now: datetime, key: Key, project_spec: Callable[..., ProjectSpec], ledger_status: Callable[..., ProjectStatus]
) -> Callable[..., Seen]:
    def make(**changes: Any) -> Seen:
        spec = changes.pop("spec", project_spec())
        resource = Resource(key, "uid-1", 3, changes.pop("paused", False), spec, "", changes.pop("status", {}), False)
        fields: dict[str, Any] = {
            "resource": resource,
            "spec": spec,
            "now": now,
            "release_namespace": "talktime",
            "pool": PoolView("good", "SelfHosted"),
            "pool_names": ("eu",),
            "livekit": LiveKitAccess("ws://sfu-eu.talktime.svc:7880", "k", "s"),
            "deployment": None,
            "pods": (),
            "loads": {},
            "ledger": ledger_status(),
            "ledger_reachable": True,
            "ledger_silence": None,
            "instructions": "Ask.",
            "instructions_problem": "",
            "record": Record(0, derive_access_keys(b"seed", "uid-1", 0).hashes(), ""),
            "next_keys": derive_access_keys(b"seed", "uid-1", 1),
            "blocked": None,
            "fewer_for": 0.0,
            "fewer_after": 30.0,
            "agents": AgentSettings("talktime/agent:1", "IfNotPresent", "http://ledger", 15000),
        }
        return Seen(**(fields | changes))

    return make


def _deployment(key: Key, replicas: int) -> Child:
    where = Key(key.namespace, "talktime-agent-study")
    return Child("Deployment", where, "study", "", "uid-1", "", 1, replicas, replicas, {}, False)


def kinds(made: Any) -> list[str]:
    return [c["kind"] for c in made.children]


def test_children_and_push(seen: Callable[..., Seen]) -> None:
    made = plan(seen())
    assert kinds(made) == ["ServiceAccount", "NetworkPolicy", "PodDisruptionBudget", "ConfigMap", "Deployment"]
    assert made.push is not None
    assert made.push.generation == 3
    assert [k.id for k in made.push.accessKeys] == ["server-0", "observer-0", "server-1", "observer-1"]


def test_a_bundle_is_there_before_the_pods_that_mount_it(seen: Callable[..., Seen]) -> None:
    made = plan(seen(agents=AgentSettings("talktime/agent:1", "IfNotPresent", "http://ledger", 15000, "PEM")))
    assert kinds(made)[-2:] == ["ConfigMap", "Deployment"]
    assert made.children[-2]["data"] == {"ca.pem": "PEM"}


def test_without_a_pool_there_is_no_deployment_and_an_existing_one_is_left_alone(seen: Callable[..., Seen]) -> None:
    made = plan(seen(pool=None, livekit=None))
    assert "Deployment" not in kinds(made)
    assert made.push is not None
    reasons = {f.type: f.reason for f in made.findings}
    assert reasons["MediaHealthy"] == reasons["Ready"] == "PoolNotFound"


def test_without_instructions_nothing_is_pushed(seen: Callable[..., Seen]) -> None:
    made = plan(seen(instructions=None, instructions_problem="spec.agent.configMapRef.name: no ConfigMap"))
    assert made.push is None
    assert made.findings[0] == Finding(
        "Ready", "False", "InstructionsNotFound", "spec.agent.configMapRef.name: no ConfigMap"
    )


def test_a_block_is_the_reason_of_not_being_ready(seen: Callable[..., Seen]) -> None:
    blocked = Finding("Ready", "False", "AccessSecretConflict", "delete it")
    assert plan(seen(blocked=blocked)).findings[0] == blocked


def test_the_status_shows_money_sessions_agents_media(
    seen: Callable[..., Seen], pod: Callable[..., Pod], key: Key
) -> None:
    pods = (pod("a"), pod("b", ready=False), pod("old", terminating=True))
    loads = {"uid-a": 1, "uid-old": 2}
    made = plan(seen(pods=pods, loads=loads, deployment=_deployment(key, 2)))
    assert made.status["budget"] == {
        "amount": "5.00",
        "posted": "1.234568",
        "reserved": "0.50",
        "available": "3.265432",
        "forecast": "2.00",
        "usedPercent": "24.7%",
        "state": "OK",
        "period": "Total",
    }
    assert made.status["sessions"] == {"open": 2, "attached": 1, "waiting": 1, "completed": 7}
    assert made.status["agents"] == {"desired": 2, "ready": 1, "busy": 2, "draining": 1, "summary": "1/2"}
    assert made.status["media"] == {"active": "SelfHosted", "pool": "eu"}
    assert made.status["observedGeneration"] == 3


def test_a_silent_ledger_keeps_the_amounts_that_were_known(seen: Callable[..., Seen], key: Key) -> None:
    before = {"budget": {"posted": "1.00"}, "sessions": {"open": 3}}
    made = plan(seen(ledger=None, ledger_reachable=False, status=before, deployment=_deployment(key, 4)))
    assert made.status["budget"] == {"posted": "1.00"}
    assert made.status["sessions"] == {"open": 3}
    assert made.decision is not None
    assert made.decision.replicas == 4


def test_while_the_ledger_is_silent_the_status_keeps_its_amounts_and_says_since_when(
    seen: Callable[..., Seen], key: Key, now: datetime
) -> None:
    before = plan(seen(deployment=_deployment(key, 4))).status
    silence = Silence(datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC), "LedgerFailing", "HTTP 503")
    gone = {"ledger_reachable": False, "ledger_silence": silence, "deployment": _deployment(key, 4)}
    made = plan(seen(status=before, **gone))
    later = plan(seen(status=made.status, now=now + timedelta(minutes=10), **gone))
    assert (made.status["budget"], made.status["sessions"]) == (before["budget"], before["sessions"])
    found = {c["type"]: c for c in made.status["conditions"]}
    reachable = found["LedgerReachable"]
    assert (reachable["status"], reachable["reason"]) == ("False", "LedgerFailing")
    assert "since 2026-11-22T15:04:05Z" in reachable["message"]
    assert (found["MetricsFresh"]["status"], found["MetricsFresh"]["reason"]) == ("False", "LedgerSilent")
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "LedgerFailing")
    assert later.status == made.status, "ten minutes of it are one write, and its transition time stays"


def test_a_stale_answer_of_a_ledger_that_is_gone_does_not_scale(seen: Callable[..., Seen], key: Key) -> None:
    made = plan(seen(ledger_reachable=False, deployment=_deployment(key, 4), fewer_for=1e9))
    assert made.decision is not None
    assert made.decision.replicas == 4


def test_pods_without_a_started_container_hold_nothing(
    seen: Callable[..., Seen], pod: Callable[..., Pod], key: Key
) -> None:
    waiting = (("CrashLoopBackOff", ""),)
    pods = (pod("a"), pod("new", phase="Pending", ready=False), pod("crash", ready=False, waiting=waiting))
    made = plan(seen(pods=pods, loads={"uid-a": 0}, deployment=_deployment(key, 3), fewer_for=60))
    assert made.decision is not None
    assert made.decision.replicas == 2
    assert [k.name for k in made.give_up] == ["new"]
    assert made.needs_fewer


def test_a_pod_marked_once_is_not_marked_again(seen: Callable[..., Seen], pod: Callable[..., Pod], key: Key) -> None:
    pods = (pod("a"), pod("b", deletion_cost="-100"))
    loads = {"uid-a": 1, "uid-b": 0}
    made = plan(seen(pods=pods, loads=loads, deployment=_deployment(key, 2), fewer_for=60, ledger=_idle(seen)))
    assert made.decision is not None
    assert made.decision.give_up == ("b",)
    assert made.give_up == ()


def _idle(seen: Callable[..., Seen]) -> ProjectStatus:
    ledger = seen().ledger
    assert ledger is not None
    return ledger.model_copy(update={"sessions": ledger.sessions.model_copy(update={"waiting": 0})})


def test_paused_is_pushed_and_said(seen: Callable[..., Seen]) -> None:
    made = plan(seen(paused=True))
    assert made.push is not None
    assert made.push.paused
    assert made.findings[0].reason == "Paused"


def test_a_spec_that_does_not_parse_touches_nothing(key: Key, now: datetime) -> None:
    body = {
        "metadata": {"namespace": "team", "name": "study", "uid": "u", "generation": 2},
        "spec": {"budget": {}},
        "status": {"budget": {"posted": "1.00"}},
    }
    resource = Resource.parse(body, ProjectSpec)
    assert resource.spec is None
    made = plan_invalid(resource, now)
    assert made.children == ()
    assert made.push is None
    assert made.status["budget"] == {"posted": "1.00"}
    assert made.status["conditions"][0]["reason"] == "SpecInvalid"
    assert "spec.budget" in made.status["conditions"][0]["message"]


def test_the_plan_is_pure(seen: Callable[..., Seen]) -> None:
    one, two = seen(), seen()
    assert plan(one) == plan(two)
    assert plan(replace(one)) == plan(one)


CLOUD = Standby(LiveKitAccess("wss://cloud", "ck", "cs"), 2)
OVER = PoolView("bad", "Fallback", "none of 1 nodes answers", "good")


def reserve_of(made: Any) -> dict[str, Any] | None:
    found = [
        c for c in made.children if c["kind"] == "Deployment" and c["metadata"]["name"] == "talktime-standby-study"
    ]
    return found[0] if found else None


def _standby_deployment(key: Key, replicas: int) -> Child:
    return replace(_deployment(key, replicas), key=Key(key.namespace, "talktime-standby-study"))


def test_standby_agents_are_there_while_the_project_has_sessions(seen: Callable[..., Seen], key: Key) -> None:
    made = plan(seen(standby=CLOUD))
    deployment = reserve_of(made)
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 2
    template = deployment["spec"]["template"]
    assert template["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"]
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "standby"
    (container,) = template["spec"]["containers"]
    url = next(e for e in container["env"] if e["name"] == "LIVEKIT_URL")["valueFrom"]["secretKeyRef"]
    assert url["name"] == CLOUD.access.secret_name("study")
    assert template["spec"]["serviceAccountName"] == "talktime-agent-study"
    budgets = [c["metadata"]["name"] for c in made.children if c["kind"] == "PodDisruptionBudget"]
    assert budgets == ["talktime-agent-study", "talktime-standby-study"]


def test_without_sessions_none_is_made_and_those_there_are_given_up_after_a_while(
    seen: Callable[..., Seen], ledger_status: Callable[..., ProjectStatus], key: Key, pod: Callable[..., Pod]
) -> None:
    calm = ledger_status(sessions={"open": 0, "waiting": 0, "attached": 0, "completed": 9})
    assert reserve_of(plan(seen(standby=CLOUD, ledger=calm))) is None
    assert reserve_of(plan(seen())) is None, "no fallback, no standby"
    pods = (pod("s-1", component="standby"), pod("s-2", component="standby"))
    idle = {"uid-s-1": 0, "uid-s-2": 0}
    there = {"standby": CLOUD, "ledger": calm, "standby_deployment": _standby_deployment(key, 2), "pods": pods}
    warm = plan(seen(**there, loads=idle))
    assert warm.standby_needs_fewer
    assert warm.standby is not None
    assert warm.standby.replicas == 2
    gone = plan(seen(**there, loads=idle, standby_fewer_for=31.0)).standby
    assert gone is not None
    assert gone.replicas == 1
    busy = plan(seen(**there, loads={"uid-s-1": 3, "uid-s-2": 1}, standby_fewer_for=31.0)).standby
    assert busy is not None
    assert busy.replicas == 2, "sessions on the fallback finish there"


def test_on_the_fallback_standby_agents_follow_the_sessions(
    seen: Callable[..., Seen],
    ledger_status: Callable[..., ProjectStatus],
    project_spec: Callable[..., ProjectSpec],
    key: Key,
    pod: Callable[..., Pod],
) -> None:
    pods = (pod("s-1", component="standby"), pod("a-1"))
    spec = project_spec(sessionsPerReplica=2, spareSessions=1, maxReplicas=10)
    many = ledger_status(sessions={"open": 6, "waiting": 4, "attached": 2, "completed": 0})
    fields = {"standby": CLOUD, "pods": pods, "spec": spec, "ledger": many, "loads": {"uid-s-1": 2, "uid-a-1": 0}}
    over = plan(seen(**fields, pool=OVER, standby_deployment=_standby_deployment(key, 2)))
    assert over.standby is not None
    assert over.standby.replicas == 4, "ceil((2 + 4 + 1) / 2)"
    assert over.status["media"]["active"] == "Fallback"
    assert {f.type: f.reason for f in over.findings}["MediaHealthy"] == "OnFallback"
    assert over.status["agents"]["busy"] == 0, "told of the agents at the pool's own nodes"
    silent = plan(seen(**(fields | {"ledger": None}), pool=OVER, standby_deployment=_standby_deployment(key, 5)))
    assert silent.standby is not None
    assert silent.standby.replicas == 5


REDIS_AWAY = PoolView("unknown", "SelfHosted", "Redis does not answer", fallback="good")
SICK = PoolView("bad", "SelfHosted", "none of 1 nodes answers", fallback="good")
HERE = PoolView("good", "SelfHosted", fallback="good")


@pytest.mark.parametrize(
    ("pool", "busy", "sessions", "replicas", "why"),
    [
        (REDIS_AWAY, 4, (7, 3), 2, "ceil((4 + 3 + 1) / 4): the fifth session on the fallback gets an agent"),
        (SICK, 0, (4, 4), 2, "ceil((0 + 4 + 1) / 4): before the switch is decided"),
        (HERE, 4, (5, 1), 2, "ceil((4 + 1 + 1) / 4): a gateway fell back by itself, the operator sees nothing"),
        (HERE, 4, (4, 0), 2, "ceil((4 + 0 + 1) / 4): a seat for the next one"),
        (HERE, 0, (9, 3), 1, "nobody went there: waiting sessions wait for the pool's own agents"),
    ],
)
def test_standby_agents_follow_sessions_that_came_to_the_fallback_one_by_one(
    seen: Callable[..., Seen],
    ledger_status: Callable[..., ProjectStatus],
    project_spec: Callable[..., ProjectSpec],
    key: Key,
    pod: Callable[..., Pod],
    pool: PoolView,
    busy: int,
    sessions: tuple[int, int],
    replicas: int,
    why: str,
) -> None:
    count, waiting = sessions
    made = plan(
        seen(
            standby=replace(CLOUD, replicas=1),
            pool=pool,
            spec=project_spec(sessionsPerReplica=4, spareSessions=1, maxReplicas=10),
            pods=(pod("s-1", component="standby"),),
            loads={"uid-s-1": busy},
            ledger=ledger_status(
                sessions={"open": count, "waiting": waiting, "attached": count - waiting, "completed": 0}
            ),
            standby_deployment=_standby_deployment(key, 1),
        )
    )
    assert made.standby is not None
    assert made.standby.replicas == replicas, why


def test_a_pool_that_says_nothing_keeps_standby_agents_only_for_projects_with_sessions(
    seen: Callable[..., Seen], ledger_status: Callable[..., ProjectStatus], key: Key
) -> None:
    cold = replace(CLOUD, replicas=0)
    calm = ledger_status(sessions={"open": 0, "waiting": 0, "attached": 0, "completed": 9})
    assert plan(seen(standby=cold, pool=REDIS_AWAY, ledger=calm)).standby is None
    first = plan(seen(standby=cold, pool=REDIS_AWAY)).standby
    assert first is not None
    assert first.replicas == 1, "one waits, and none is kept warm"
    silent = plan(
        seen(standby=CLOUD, pool=REDIS_AWAY, ledger=None, standby_deployment=_standby_deployment(key, 3))
    ).standby
    assert silent is not None
    assert silent.replicas == 3, "without the ledger's count the number stays"
    assert plan(seen(standby=None, pool=SICK)).standby is None, "fallback.mode Never: no gateway goes there"


def test_both_sick_is_said_on_the_project(seen: Callable[..., Seen]) -> None:
    made = plan(seen(standby=CLOUD, pool=replace(OVER, fallback="bad")))
    assert {f.type: (f.status, f.reason) for f in made.findings}["MediaHealthy"] == ("False", "BothSick")
