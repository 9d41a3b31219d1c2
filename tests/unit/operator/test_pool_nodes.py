"""What the drain reads from pods and machines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from talktime_ledger.resources.pool import Ports
from talktime_operator.observed import Machine, Pod, SfuMarks
from talktime_operator.pools.drain import Mark, Why
from talktime_operator.pools.nodes import Around, NodeHealth, doors, drain_nodes, fresh_rooms, load, only_open, ports_of

OPEN = {"talktime.dev/signal": "open"}


@pytest.mark.parametrize(
    ("spec", "leaving"),
    [
        ({}, False),
        ({"unschedulable": True}, True),
        ({"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]}, True),
        ({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}, True),
        ({"taints": [{"key": "dedicated", "value": "media", "effect": "NoSchedule"}]}, False),
    ],
)
def test_a_machine_leaves_when_cordoned_or_about_to_be_taken_away(spec: dict[str, Any], leaving: bool) -> None:
    assert Machine.parse({"metadata": {"name": "m"}, "spec": spec}) == Machine("m", leaving)


@pytest.mark.parametrize(
    ("conditions", "away"),
    [
        ([], False),
        ([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}], False),
        ([{"type": "Ready", "status": "Unknown"}], True),
        ([{"type": "Ready", "status": "False"}], True),
    ],
)
def test_a_machine_whose_kubelet_does_not_report_is_away(conditions: list[dict[str, str]], away: bool) -> None:
    body = {"metadata": {"name": "m"}, "status": {"conditions": conditions}}
    assert Machine.parse(body) == Machine("m", leaving=False, away=away)


def test_a_pod_tells_its_node_template_drain_and_ports() -> None:
    marks = Pod.parse(
        {
            "metadata": {
                "name": "sfu-eu-3-0",
                "namespace": "talktime",
                "uid": "u",
                "deletionTimestamp": "2026-11-22T14:00:00Z",
                "labels": {
                    "talktime.dev/pool": "eu",
                    "talktime.dev/node": "sfu-eu-3",
                    "talktime.dev/drained": "true",
                    **OPEN,
                },
                "ownerReferences": [{"kind": "StatefulSet", "name": "sfu-eu-3", "controller": True}],
                "annotations": {
                    "talktime.dev/template": "abc",
                    "talktime.dev/drain": "2026-11-22T12:00:00Z Cordoned",
                },
            },
            "spec": {"containers": [{"ports": [{"name": "http", "hostPort": 1}, {"name": "rtc-udp", "hostPort": 2}]}]},
            "status": {
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
                "containerStatuses": [{"name": "livekit", "state": {"running": {"startedAt": "2026-11-22T11:00:00Z"}}}],
            },
        }
    ).sfu
    assert marks == SfuMarks(
        slot="sfu-eu-3",
        template="abc",
        drain="2026-11-22T12:00:00Z Cordoned",
        drained=True,
        homeless=True,
        ends="2026-11-22T14:00:00Z",
        ports=(("http", 1), ("rtc-udp", 2)),
        open=True,
        began="2026-11-22T11:00:00Z",
    )


def test_a_pod_is_asked_at_the_ports_it_was_started_with(pod: Callable[..., Pod]) -> None:
    spec = Ports.model_validate({})
    old = pod("a", sfu=SfuMarks(ports=(("http", 1), ("rtc-tcp", 2), ("rtc-udp", 3), ("metrics", 4))))
    assert ports_of(old, spec) == Ports.model_validate({"http": 1, "tcp": 2, "udp": 3, "metrics": 4})
    assert ports_of(pod("b"), spec) == spec


@pytest.mark.parametrize(
    ("changes", "health", "rooms"),
    [
        ({}, NodeHealth("good", "a", 3), 3),
        ({}, NodeHealth("bad", "a", 3), 3),
        ({}, NodeHealth("bad", "a", 0, stale=True), None),
        ({}, NodeHealth("good", "a", 3, counted=False), None),
        ({}, NodeHealth("unknown"), None),
        ({}, None, None),
        ({"phase": "Pending"}, None, 0),
        ({"waiting": (("CrashLoopBackOff", ""),)}, NodeHealth("bad", "a", None), 0),
    ],
)
def test_rooms_are_known_fresh_or_not_at_all(
    pod: Callable[..., Pod], changes: dict[str, Any], health: NodeHealth | None, rooms: int | None
) -> None:
    one = pod("a", **changes)
    known = {one.uid: health} if health is not None else {}
    assert fresh_rooms(one, known) == rooms
    assert load([one], known) == rooms


def test_the_drain_sees_what_the_pod_says(pod: Callable[..., Pod]) -> None:
    one = pod("a", node="m1", sfu=SfuMarks(slot="s", template="new", drain="2026-11-22T12:00:00Z ScaleDown"))
    ended = pod("b", phase="Failed")
    around = Around(frozenset({"m1"}), {"a": 7.0}, "newer")
    (node,) = drain_nodes([ended, one], {one.uid: NodeHealth("good", "n", 2, signals=3)}, around)
    assert (node.slot, node.rooms, node.signals, node.takes, node.outdated, node.cordoned, node.told) == (
        "s",
        2,
        3,
        "good",
        True,
        True,
        7.0,
    )
    assert node.mark == Mark(datetime(2026, 11, 22, 12, tzinfo=UTC), Why.SCALE_DOWN)


@pytest.mark.parametrize(
    ("pods", "labels", "narrow"),
    [
        ({"a": (True, True), "b": (True, True)}, {}, True),
        ({"a": (True, True), "going": (True, True)}, {"going": False}, True),
        ({"a": (True, True), "going": (False, True)}, {}, True),
        ({"going": (True, True)}, {"going": False}, False),  # nobody else: better there than nowhere
        ({"a": (True, False), "going": (False, True)}, {}, False),  # the other one only starts
        ({"a": (False, True), "b": (True, True)}, {"a": True}, False),  # of an older version: labelled first
        ({}, {}, False),
    ],
)
def test_new_signal_connections_go_to_nodes_that_stay(
    pod: Callable[..., Pod], pods: dict[str, tuple[bool, bool]], labels: dict[str, bool], narrow: bool
) -> None:
    """`pods`: name to (has the label, is ready); the one called `going` drains."""
    seen = [pod(name, sfu=SfuMarks(open=opened), ready=ready) for name, (opened, ready) in pods.items()]
    assert doors(seen, {"going"}) == labels
    assert only_open(seen, {"going"}) is narrow


def test_a_pod_that_ends_is_neither_opened_nor_waited_for(pod: Callable[..., Pod]) -> None:
    ending, stays = pod("b", terminating=True), pod("a", sfu=SfuMarks(open=True), ready=True)
    assert doors([ending, stays], set()) == {}
    assert only_open([ending, stays], set())
