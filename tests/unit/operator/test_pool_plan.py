"""A pool's plan: nodes, health in three values, and what Projects and the ledger are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.rates import RateEntry, RateSnapshot
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.children.sfu_statefulset import Images, template_digest
from talktime_operator.names import Key
from talktime_operator.observed import Child, Pod, Resource, SfuMarks
from talktime_operator.pools.drain import Mark, Why
from talktime_operator.pools.failover import Streak
from talktime_operator.pools.healing import Sickness
from talktime_operator.pools.health import Answer, Cause, Evidence, Media
from talktime_operator.pools.nodes import NodeHealth
from talktime_operator.pools.plan import Plan, Seen, judge, plan, plan_wrong_namespace
from talktime_operator.pools.saving import Spent, Used
from talktime_operator.pools.switching import Second

TURN: dict[str, Any] = {"network": {"turn": {"domain": "turn.acme.test"}, "tlsSecretRef": {"name": "cert"}}}
OTHERS = {"http": 1, "tcp": 2, "udp": 3, "metrics": 4}
SECONDS = Meter.PARTICIPANT_SECONDS
GOOD = NodeHealth("good", "ND_1", 3)
BAD = NodeHealth("bad", "ND_2", None)
STALE = NodeHealth("bad", "ND_3", 1, stale=True)
IMAGES = Images("lk", "redis", "IfNotPresent")


@pytest.fixture
def seen(now: datetime, pool_key: Key, pool_spec: Callable[..., SFUPoolSpec]) -> Callable[..., Seen]:
    def make(pods: tuple[Pod, ...] = (), nodes: dict[str, NodeHealth] | None = None, **fields: Any) -> Seen:
        status, others = fields.pop("status", {}), fields.pop("others", ())
        around = {name: fields.pop(name) for name in ("leaving", "told") if name in fields}
        spec = pool_spec(**fields)
        sets = tuple(
            Child("StatefulSet", Key("talktime", slot), "", "eu", "u", "", 1, 1, 0, {}, False)
            for slot in sorted({p.sfu.slot for p in pods})
        )
        resource = Resource(pool_key, "uid-2", 1, False, spec, "", status, False)
        return Seen(resource, spec, now, sets, pods, nodes or {}, IMAGES, others, **around)

    return make


@pytest.fixture
def node(pod: Callable[..., Pod], pool_key: Key, pool_spec: Callable[..., SFUPoolSpec]) -> Callable[..., Pod]:
    def make(name: str, **changes: Any) -> Pod:
        marks = SfuMarks(
            slot=name.removesuffix("-0"), template=changes.pop("template", template), **changes.pop("sfu", {})
        )
        return pod(name, project="", pool="eu", component="sfu", sfu=marks, **changes)

    template = template_digest(pool_key, pool_spec(), IMAGES)
    return make


def test_children_with_and_without_an_own_redis(seen: Callable[..., Seen]) -> None:
    embedded = [(c["kind"], c["metadata"]["name"]) for c in plan(seen()).children]
    assert ("Deployment", "sfu-eu-redis") in embedded
    own = [(c["kind"], c["metadata"]["name"]) for c in plan(seen(redis={"address": "redis:6379"})).children]
    assert own == [entry for entry in embedded if not entry[1].endswith("-redis")]


def test_a_good_node_makes_the_pool_good(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    made = plan(seen((node("sfu-eu-0-0"),), {"uid-sfu-eu-0-0": GOOD}, replicas=1))
    assert made.view.health == "good"
    assert made.push is not None
    assert made.push.health == "good"
    assert made.push.nodes[0].model_dump() == {
        "name": "sfu-eu-0-0",
        "nodeID": "ND_1",
        "address": "10.1.0.1",
        "rooms": 3,
        "state": "Ready",
        "silent": None,
    }
    assert made.status["nodesSummary"] == "1/1"
    assert made.status["sessions"] == 3
    assert made.status["replicas"] == 1
    assert made.findings[0].status == "True"


@pytest.mark.parametrize(
    ("healths", "expected"),
    [
        ([GOOD, BAD], "good"),
        ([BAD, BAD], "bad"),
        ([STALE, STALE], "unknown"),
        ([STALE, BAD], "bad"),
        ([BAD, None], "unknown"),
        ([], "unknown"),
    ],
)
def test_all_sick_together_by_redis_is_unknown_and_not_bad(
    node: Callable[..., Pod], healths: list[NodeHealth | None], expected: str
) -> None:
    pods = [node(f"n{i}") for i in range(len(healths))]
    known = {f"uid-n{i}": h for i, h in enumerate(healths) if h is not None}
    assert judge(2, pods, known).health == expected


def test_zero_nodes_is_said_with_the_fix() -> None:
    assert "spec.replicas" in judge(0, [], {}).message


def _slots(made: Plan) -> list[str]:
    return [c["metadata"]["name"] for c in made.children if c["kind"] == "StatefulSet"]


def _reasons(made: Plan) -> dict[str, str]:
    return {f.type: f.reason for f in made.findings}


def test_the_months_saving_stands_in_the_status_and_stays_while_nobody_tells(
    seen: Callable[..., Seen], node: Callable[..., Pod]
) -> None:
    """400,000 minutes at 0.0005 on one node of 70 USD, from the month's beginning; no plan fee, nothing included."""
    rates = RateSnapshot(
        "c", "livekit", "participant", datetime(2026, 1, 1, tzinfo=UTC), {SECONDS: Decimal("8.333333")}
    )
    spent = Spent(Used(400_000, 400_000 * 60), (RateEntry(rates.effective_from, {}), rates))
    looked = seen((node("sfu-eu-0-0"),), nodeMonthlyCost="70", replicas=1)
    told = plan(replace(looked, spent=spent)).status["saving"]
    assert (told["month"], told["participantMinutes"], told["cloudUsd"]) == (f"{looked.now:%Y-%m}", 400_000, "200.00")
    assert Decimal(told["savedUsd"]) == Decimal(told["cloudUsd"]) - Decimal(told["nodesUsd"])
    cost = plan(replace(looked, spent=spent)).status["nodeCost"]
    assert (cost["participantMinutes"], cost["nodesUsd"]) == (400_000, told["nodesUsd"])
    before = {"saving": {"month": "2026-01"}, "nodeCost": {"month": "2026-01"}}
    kept = plan(seen(nodeMonthlyCost="70", status=before)).status
    assert (kept["saving"], kept["nodeCost"]) == (before["saving"], before["nodeCost"])
    without = plan(replace(seen(status=before), spent=spent)).status
    assert not {"saving", "nodeCost"} & without.keys(), "what a node costs is not known"


def test_a_node_that_came_yesterday_is_not_charged_for_the_whole_month(
    seen: Callable[..., Seen], node: Callable[..., Pod]
) -> None:
    """22 November, noon: 516 of 720 hours are over. One node all the time, two since a day."""
    rates = RateSnapshot("c", "livekit", "participant", datetime(2026, 1, 1, tzinfo=UTC), {SECONDS: Decimal(8)})
    spent = Spent(Used(), (RateEntry(rates.effective_from, {}), rates))
    yesterday = {"nodeHours": {"nodes": 1, "since": "2026-11-01T00:00:00Z", "hours": "0"}}
    two = (node("sfu-eu-0-0"), node("sfu-eu-1-0"))
    looked = replace(seen(two, nodeMonthlyCost="72", replicas=2, status=yesterday), spent=spent)
    first = plan(replace(looked, now=looked.now - timedelta(days=1)))
    assert first.status["nodeHours"] == {"nodes": 2, "since": "2026-11-21T12:00:00Z", "hours": "492.0000"}
    later = plan(replace(looked, resource=replace(looked.resource, status=first.status)))
    assert later.status["nodeHours"] == first.status["nodeHours"], "time alone writes nothing"
    assert later.status["saving"]["nodesUsd"] == "54.00", "(492 + 2 x 24) / 720 x 72"


@pytest.mark.parametrize(
    ("cost", "spent", "reason"),
    [
        (None, Spent(Used(5, 300), None), "NodeCostUnset"),
        ("70", None, "LedgerSilent"),
        ("70", Spent(Used(5, 300), None), "CloudPriceMissing"),
    ],
)
def test_a_saving_that_is_not_there_says_why(
    seen: Callable[..., Seen], cost: str | None, spent: Spent | None, reason: str
) -> None:
    made = plan(replace(seen(nodeMonthlyCost=cost), spent=spent))
    assert "saving" not in made.status
    assert told(made)["SavingKnown"] == ("Unknown", reason)


def test_fixed_replicas_hold_autoscaling_and_say_so(seen: Callable[..., Seen]) -> None:
    made = plan(seen(replicas=3))
    assert _slots(made) == ["sfu-eu-0", "sfu-eu-1", "sfu-eu-2"]
    assert _reasons(made)["Autoscaling"] == "HeldByReplicas"
    assert made.status["desired"] == 3


def test_a_new_node_takes_the_smallest_free_number(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    pods = (node("sfu-eu-0-0"), node("sfu-eu-2-0"))
    health = {p.uid: GOOD for p in pods}
    assert _slots(plan(seen(pods, health, replicas=3))) == ["sfu-eu-0", "sfu-eu-2", "sfu-eu-1"]


def test_unknown_sessions_keep_the_number_of_nodes(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    pods = (node("sfu-eu-0-0"), node("sfu-eu-1-0"))
    made = plan(seen(pods, {"uid-sfu-eu-0-0": NodeHealth("good", "a", 0)}))
    assert _slots(made) == ["sfu-eu-0", "sfu-eu-1"]
    assert made.drain.begin == {}
    assert "sessions" not in made.status


def test_a_count_that_is_not_of_the_last_round_is_not_known(
    seen: Callable[..., Seen], node: Callable[..., Pod]
) -> None:
    pods = (node("sfu-eu-0-0"), node("sfu-eu-1-0"))
    old = NodeHealth("good", "b", 0, counted=False)
    made = plan(seen(pods, {"uid-sfu-eu-0-0": NodeHealth("good", "a", 5), "uid-sfu-eu-1-0": old}, replicas=1))
    assert list(made.drain.begin) == ["sfu-eu-0-0"]


def test_what_was_desired_outlives_a_successor_and_unknown_load(
    seen: Callable[..., Seen], node: Callable[..., Pod]
) -> None:
    pods = (node("sfu-eu-0-0"), node("sfu-eu-1-0"), node("sfu-eu-2-0"))
    assert plan(seen(pods, {}, status={"desired": 2})).status["desired"] == 2


def test_a_node_that_begins_to_drain_gets_no_new_signal_connections_and_waits_for_those_it_has(
    seen: Callable[..., Seen], node: Callable[..., Pod]
) -> None:
    def selector(made: Plan) -> Any:
        (found,) = [c["spec"] for c in made.children if c["metadata"]["name"] == "sfu-eu" and c["kind"] == "Service"]
        return found["selector"]

    pods = tuple(node(name, ready=True, sfu={"open": True}) for name in ("sfu-eu-0-0", "sfu-eu-1-0"))
    health = {p.uid: NodeHealth("good", p.uid, rooms, signals=2) for rooms, p in enumerate(pods)}
    made = plan(seen(pods, health, replicas=1))
    assert list(made.drain.begin) == ["sfu-eu-0-0"]
    assert selector(made)["talktime.dev/signal"] == "open"
    assert made.doors == {}, "the mark itself takes the label away"
    mark = {"drain": "2026-11-22T11:00:00Z ScaleDown", "open": True}
    marked = (node("sfu-eu-0-0", ready=True, sfu=mark), pods[1])
    made = plan(seen(marked, health, replicas=1, told={"sfu-eu-0-0": 999.0}))
    assert made.doors == {"sfu-eu-0-0": False}, "a drain that an older operator began"
    assert made.drain.remove == []
    assert "signal connections" in next(f.message for f in made.findings if f.type == "Draining")
    old = tuple(node(name, ready=True) for name in ("sfu-eu-0-0", "sfu-eu-1-0"))
    made = plan(seen(old, health, replicas=2))
    assert made.doors == {"sfu-eu-0-0": True, "sfu-eu-1-0": True}
    assert "talktime.dev/signal" not in selector(made)


def test_fewer_sessions_drain_a_node_and_say_until_when(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    pods = (node("sfu-eu-0-0"), node("sfu-eu-1-0"))
    health = {"uid-sfu-eu-0-0": NodeHealth("good", "a", 1), "uid-sfu-eu-1-0": NodeHealth("good", "b", 4)}
    made = plan(seen(pods, health))
    assert made.drain.begin == {"sfu-eu-0-0": Why.SCALE_DOWN}
    assert made.push is not None
    assert [n.state.value for n in made.push.nodes] == ["Draining", "Ready"]
    draining = made.status["nodes"][0]
    assert (draining["rooms"], draining["drainReason"]) == (1, "ScaleDown")
    assert draining["drainDeadline"] == "2026-11-22T14:00:00Z"
    assert made.view.health == "good"
    assert _reasons(made)["Draining"] == "ScaleDown"


def test_a_drain_at_its_end_takes_the_set_and_is_remembered(
    seen: Callable[..., Seen], node: Callable[..., Pod]
) -> None:
    late = node("sfu-eu-1-0", sfu={"drain": "2026-11-22T09:00:00Z ScaleDown"})
    health = {"uid-sfu-eu-0-0": GOOD, "uid-sfu-eu-1-0": NodeHealth("good", "b", 2)}
    made = plan(seen((node("sfu-eu-0-0"), late), health, replicas=1))
    assert _slots(made) == ["sfu-eu-0"]
    assert made.push is not None
    assert [n.state.value for n in made.push.nodes] == ["Ready", "Moving"]
    last = {"node": "sfu-eu-1-0", "reason": "ScaleDown", "ended": "2026-11-22T12:00:00Z", "moved": 2}
    assert made.status["lastDrain"] == last
    later = plan(seen((node("sfu-eu-0-0"),), health, replicas=1, status={"lastDrain": last}))
    assert later.status["lastDrain"] == last


def test_a_cordoned_machine_drains_its_node(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    pods = (node("sfu-eu-0-0", node="a"), node("sfu-eu-1-0", node="b"))
    made = plan(seen(pods, {p.uid: GOOD for p in pods}, replicas=2, leaving=frozenset({"b"})))
    assert made.drain.begin == {"sfu-eu-1-0": Why.CORDONED}
    assert _slots(made) == ["sfu-eu-0", "sfu-eu-1", "sfu-eu-2"]


def test_another_image_is_an_update_another_deadline_is_not(
    seen: Callable[..., Seen], node: Callable[..., Pod]
) -> None:
    pods = (node("sfu-eu-0-0"), node("sfu-eu-1-0"))
    health = {p.uid: GOOD for p in pods}
    assert plan(seen(pods, health, replicas=2, drain={"deadline": "5m"})).drain.begin == {}
    changed = plan(seen(pods, health, replicas=2, network={"ports": {"udp": 7000}}))
    assert changed.drain.begin == {"sfu-eu-0-0": Why.UPDATE}


def test_a_held_drain_says_why(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    made = plan(seen((node("sfu-eu-0-0", template="old"),), {"uid-sfu-eu-0-0": GOOD}, replicas=1))
    (finding,) = [f for f in made.findings if f.type == "Draining"]
    assert (finding.status, finding.reason) == ("False", "DrainHeld")
    assert "sfu-eu-0-0 is the last node" in finding.message
    assert "add a machine" in finding.message


@pytest.mark.parametrize(
    ("mine", "other", "clash"),
    [
        ({}, {}, True),
        ({"network": {"ports": {"http": 1, "tcp": 2, "udp": 3, "metrics": 4}}}, {}, False),
        ({"network": {"ports": {"http": 1, "tcp": 2, "udp": 7881, "metrics": 4}}}, {}, False),
        ({"network": {"ports": {"http": 1, "tcp": 2, "udp": 7882, "metrics": 4}}}, {}, True),
        (TURN | {"nodeSelector": {"pool": "a"}}, {"nodeSelector": {"pool": "b"}}, False),
        ({"network": {"ports": OTHERS} | TURN["network"]}, TURN, True),
        ({"network": {"ports": OTHERS} | TURN["network"]}, {}, False),
        ({"nodeSelector": {"pool": "a"}}, {"nodeSelector": {"zone": "b"}}, True),
    ],
)
def test_pools_that_cannot_share_a_machine_name_each_other(
    seen: Callable[..., Seen],
    pool_spec: Callable[..., SFUPoolSpec],
    mine: dict[str, Any],
    other: dict[str, Any],
    clash: bool,
) -> None:
    made = plan(seen(others=((Key("talktime", "us"), pool_spec(**other)),), **mine))
    (finding,) = [f for f in made.findings if f.type == "PortClash"]
    assert (finding.status == "True") is clash
    assert ("SFUPool 'us'" in finding.message) is clash


def test_a_draining_node_is_told_as_draining(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    made = plan(
        seen(
            (node("sfu-eu-0-0", terminating=True, sfu={"ends": "2026-11-22T12:30:00Z"}),),
            {"uid-sfu-eu-0-0": GOOD},
            replicas=1,
        )
    )
    assert made.push is not None
    assert made.push.nodes[0].state.value == "Draining"


def test_a_node_that_finds_no_machine_names_the_reason(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    pods = (node("sfu-eu-0-0"), node("sfu-eu-1-0", node="", phase="Pending", ready=False))
    made = plan(seen(pods, {"uid-sfu-eu-0-0": GOOD}, replicas=2))
    (finding,) = [f for f in made.findings if f.type == "NodesHealthy"]
    assert finding.reason == "SomeNodesMissing"
    assert "sfu-eu-1-0 cannot be scheduled" in finding.message


FALLBACK = {"mode": "Auto", "url": "wss://x", "secretRef": {"name": "cloud"}}
SICK = Evidence(Streak("bad", 3, 3.0, True), Cause.ALL_NODES, "none of 1 nodes answers: n refuses connections", True)


def told(made: Plan) -> dict[str, tuple[str, str]]:
    return {f.type: (f.status, f.reason) for f in made.findings}


def test_a_sick_pool_goes_over_and_says_so_to_everybody(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    base = seen((node("sfu-eu-0"),), {"uid-sfu-eu-0": BAD}, replicas=1, fallback=FALLBACK)
    second = Second("wss://x")
    made = plan(replace(base, evidence=replace(SICK, fallback="good"), second=second))
    assert made.push is not None
    assert (made.push.active, made.push.fallbackURL, made.push.fallbackMode) == ("Fallback", "wss://x", "Auto")
    assert made.push.sessionsPerNode == 100
    assert made.status["active"] == {
        "target": "Fallback",
        "since": base.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "reason": "PoolSick",
        "message": SICK.message,
        "count": 1,
    }
    assert told(made)["OnFallback"] == ("True", "PoolSick")
    assert told(made)["NodesHealthy"] == ("False", "AllNodesSick")
    assert told(made)["Ready"] == ("True", "OnFallback")
    assert (made.view.active, made.view.fallback) == ("Fallback", "good")

    both = plan(replace(base, evidence=replace(SICK, fallback="bad", fallback_message="hangs"), second=second))
    assert both.status["active"]["target"] == "SelfHosted"
    assert told(both)["Ready"] == ("False", "BothSick")
    assert told(both)["FallbackReady"] == ("False", "FallbackSick")


WELL = Evidence(Streak("good", 300, 300.0, True), Cause.NONE, "")


@pytest.mark.parametrize(
    ("mode", "fallback", "ready"),
    [
        ("Force", "good", ("True", "OnFallback")),
        ("Force", "unknown", ("True", "OnFallback")),
        ("Force", "bad", ("False", "FallbackSick")),
        ("Auto", "bad", ("True", "Ready")),
    ],
)
def test_a_planned_switch_to_a_dead_fallback_is_no_healthy_pool(
    seen: Callable[..., Seen], node: Callable[..., Pod], mode: str, fallback: Any, ready: tuple[str, str]
) -> None:
    """Gateways leave the nodes alone while the switch is forced, so each new session is refused. After the end of the
    switch (Auto) they use them again when the fallback fails."""
    base = seen((node("sfu-eu-0"),), {"uid-sfu-eu-0": GOOD}, replicas=1, fallback=FALLBACK | {"mode": mode})
    active = {"target": "Fallback", "since": "2026-11-22T11:59:30Z", "reason": "Forced", "message": "", "count": 1}
    status = {"active": active}
    base = replace(base, resource=replace(base.resource, status=status), second=Second("wss://x"))
    made = plan(replace(base, evidence=replace(WELL, fallback=fallback, fallback_message="hangs")))
    assert told(made)["Ready"] == ready
    if ready[0] == "False":
        (said,) = [f.message for f in made.findings if f.type == "Ready"]
        assert "set spec.fallback.mode to Auto" in said
    assert made.view.forced is (mode == "Force")


def test_redis_away_keeps_the_pool_and_names_the_cause(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    evidence = Evidence(Streak("unknown", 99, 99.0, True), Cause.REDIS, "every node answers 406", fallback="good")
    base = seen((node("sfu-eu-0"),), {"uid-sfu-eu-0": STALE}, replicas=1, fallback=FALLBACK)
    made = plan(replace(base, evidence=evidence, second=Second("wss://x")))
    assert made.status["active"]["target"] == "SelfHosted"
    assert told(made)["NodesHealthy"] == ("Unknown", "RedisAway")
    assert told(made)["Ready"][0] == "Unknown"


def test_a_planned_switch_and_missing_keys(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    pods = ((node("sfu-eu-0"),), {"uid-sfu-eu-0": GOOD})
    forced = seen(*pods, replicas=1, fallback=FALLBACK | {"mode": "Force"})
    assert plan(replace(forced, second=Second("wss://x"))).status["active"]["reason"] == "Forced"
    lacking = plan(replace(forced, second=Second("wss://x", "no Secret 'cloud'")))
    assert lacking.status["active"]["target"] == "SelfHosted"
    assert told(lacking)["FallbackReady"] == ("False", "KeysNotFound")
    assert lacking.push is not None
    assert lacking.push.fallbackURL is None
    assert "FallbackReady" not in told(plan(seen(*pods, replicas=1)))


def test_the_way_back_is_looked_at_when_its_time_has_come(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    base = seen((node("sfu-eu-0"),), {"uid-sfu-eu-0": GOOD}, replicas=1, fallback=FALLBACK | {"failbackAfter": "1m"})
    since = (base.now - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"active": {"target": "Fallback", "since": since, "reason": "PoolSick", "message": "x", "count": 1}}
    base = replace(base, resource=replace(base.resource, status=status), second=Second("wss://x"))
    waiting = plan(replace(base, evidence=Evidence(Streak("good", 40, 40.0, True), Cause.NONE, fallback="good")))
    assert (waiting.status["active"], waiting.again) == (status["active"], 20.0)
    back = plan(replace(base, evidence=Evidence(Streak("good", 60, 60.0, True), Cause.NONE, fallback="good")))
    assert back.status["active"]["reason"] == "PoolRecovered"
    assert back.status["active"]["count"] == 2


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        (Media("good", "", True), ("True", "MediaFlows")),
        (Media("bad", "UDP is gone", True), ("False", "MediaBlocked")),
        (Media("unknown", "nobody joined", True), ("Unknown", "MediaUnknown")),
        (Media("unknown", "never", False), ("Unknown", "NeverProven")),
    ],
)
def test_what_is_said_of_media_paths(seen: Callable[..., Seen], media: Media, expected: tuple[str, str]) -> None:
    looked = replace(seen(), evidence=Evidence(media=media))
    assert told(plan(looked))["MediaProbed"] == expected
    unasked = replace(seen(health={"mediaProbe": False}), evidence=Evidence(media=media))
    assert "MediaProbed" not in told(plan(unasked))


HUNG = Sickness(Answer.HUNG, 90.0, None)


@pytest.mark.parametrize("silent", [True, False])
def test_of_a_sick_node_it_is_told_whether_it_answers(
    seen: Callable[..., Seen], node: Callable[..., Pod], silent: bool
) -> None:
    made = plan(seen((node("sfu-eu-0-0"),), {"uid-sfu-eu-0-0": replace(BAD, silent=silent)}, replicas=1))
    assert made.push is not None
    [sick] = made.push.nodes
    assert (sick.state, sick.silent) == ("Sick", silent)


def test_a_sick_node_is_restarted_and_counted(seen: Callable[..., Seen], node: Callable[..., Pod]) -> None:
    pods = (node("sfu-eu-0-0"), node("sfu-eu-1-0"))
    looked = seen(pods, {"uid-sfu-eu-0-0": BAD, "uid-sfu-eu-1-0": GOOD}, replicas=2)
    made = plan(replace(looked, sick={"uid-sfu-eu-0-0": HUNG}))
    assert made.restart == "sfu-eu-0-0"
    assert made.status["restarts"] == [
        {"node": "sfu-eu-0-0", "count": 1, "last": "2026-11-22T12:00:00Z", "why": HUNG.answer.value}
    ]
    assert told(made)["RestartingNodes"] == ("True", "NodeRestarted")
    away = plan(replace(looked, sick={"uid-sfu-eu-0-0": HUNG}, away=frozenset({"node-1"})))
    assert (away.restart, told(away)["RestartingNodes"]) == ("", ("False", "MachineAway"))


@pytest.mark.parametrize(
    ("changes", "spec"),
    [
        ({"sfu": {"drain": Mark(datetime(2026, 11, 22, 12, tzinfo=UTC), Why.CORDONED).render()}}, {}),
        ({"waiting": (("CrashLoopBackOff", ""),)}, {}),
        ({"terminating": True}, {}),
        ({}, {"health": {"restartSick": False}}),
    ],
)
def test_nodes_that_go_or_do_not_start_are_left_to_others(
    seen: Callable[..., Seen], node: Callable[..., Pod], changes: dict[str, Any], spec: dict[str, Any]
) -> None:
    marked = "sfu" in changes
    looked = seen(
        (node("sfu-eu-0-0", **changes), node("sfu-eu-1-0")),
        {"uid-sfu-eu-0-0": BAD, "uid-sfu-eu-1-0": GOOD},
        replicas=2,
        **spec,
        **({"leaving": frozenset({"node-1"})} if marked else {}),
    )
    assert plan(replace(looked, sick={"uid-sfu-eu-0-0": HUNG})).restart == ""


def test_a_pool_elsewhere_is_refused_with_the_right_place(pool_spec: Callable[..., SFUPoolSpec], now: datetime) -> None:
    resource = Resource(Key("team", "eu"), "u", 1, False, pool_spec(), "", {}, False)
    made = plan_wrong_namespace(resource, "talktime", now)
    assert made.children == ()
    assert "'talktime'" in made.findings[0].message
