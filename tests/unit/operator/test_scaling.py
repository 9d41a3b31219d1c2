"""The buffer formula, its bounds, and whom a scale-down takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_operator.scaling import (
    NodePolicy,
    Policy,
    Reason,
    Worker,
    buffer,
    decide_replicas,
    desired_nodes,
)

POLICY = Policy(sessions_per_replica=4, min_replicas=1, max_replicas=10, spare_sessions=1)


@pytest.mark.parametrize(
    ("active", "waiting", "replicas"),
    [(0, 0, 1), (3, 0, 1), (4, 0, 2), (3, 1, 2), (7, 1, 3), (0, 12, 4)],
)
def test_the_buffer_formula(active: int, waiting: int, replicas: int) -> None:
    assert buffer(active, waiting, POLICY) == replicas


def test_a_new_project_starts_with_its_spare_sessions() -> None:
    assert decide_replicas(POLICY, None, [], None, 0, 30).replicas == 1
    assert decide_replicas(Policy(4, 0, 10, 0), None, [], None, 0, 30).replicas == 0


def test_waiting_sessions_add_replicas_at_once_in_bounded_steps() -> None:
    decision = decide_replicas(POLICY, 1, [Worker("a", True, 4)], 30, 0, 30)
    assert (decision.replicas, decision.wanted, decision.reason) == (5, 9, Reason.STEP)


def test_the_maximum_holds() -> None:
    decision = decide_replicas(POLICY, 8, [Worker(str(i), True, 4) for i in range(8)], 30, 0, 30)
    assert (decision.replicas, decision.reason) == (10, Reason.MAX_REPLICAS)


@pytest.mark.parametrize(
    ("workers", "waiting"),
    [([Worker("a", True, None), Worker("b", True, 0)], 0), ([Worker("a", True, 0), Worker("b", True, 0)], None)],
)
def test_unknown_load_keeps_the_replicas(workers: list[Worker], waiting: int | None) -> None:
    decision = decide_replicas(POLICY, 2, workers, waiting, 1e9, 30)
    assert (decision.replicas, decision.reason, decision.give_up) == (2, Reason.LOAD_UNKNOWN, ())


def test_unknown_load_does_not_shrink_to_a_lowered_maximum_but_grows_to_a_raised_minimum() -> None:
    workers = [Worker("a", True, None)]
    assert decide_replicas(Policy(4, 0, 1, 0), 3, workers, 0, 1e9, 30).replicas == 3
    assert decide_replicas(Policy(4, 5, 9, 0), 3, workers, 0, 1e9, 30).replicas == 5


def test_fewer_only_after_needing_fewer_for_a_while() -> None:
    workers = [Worker("a", True, 1), Worker("b", True, 0)]
    assert decide_replicas(POLICY, 2, workers, 0, 29, 30).reason is Reason.COOLING
    decision = decide_replicas(POLICY, 2, workers, 0, 30, 30)
    assert (decision.replicas, decision.give_up) == (1, ("b",))


def test_busy_pods_are_never_given_up() -> None:
    workers = [Worker("a", True, 1), Worker("b", True, 1), Worker("c", True, 1)]
    decision = decide_replicas(POLICY, 3, workers, 0, 60, 30)
    assert (decision.replicas, decision.reason) == (3, Reason.BUSY)


@pytest.mark.parametrize("jobs", [2, None])
def test_a_busy_or_silent_pod_that_is_not_ready_stops_a_scale_down(jobs: int | None) -> None:
    """The ReplicaSet deletes not-ready pods first, whatever the cost says."""
    workers = [Worker("a", False, jobs), Worker("b", True, 0), Worker("c", True, 0)]
    assert decide_replicas(POLICY, 3, workers, 0, 60, 30).reason is Reason.BUSY


def test_pods_that_are_not_ready_and_hold_nothing_go_first() -> None:
    workers = [Worker("a", True, 0), Worker("b", False, 0), Worker("c", True, 1)]
    assert decide_replicas(POLICY, 3, workers, 0, 60, 30).give_up == ("b",)


@given(
    current=st.integers(0, 20),
    jobs=st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=20),
    ready=st.lists(st.booleans(), min_size=20, max_size=20),
    waiting=st.one_of(st.none(), st.integers(0, 50)),
)
def test_whatever_the_load_no_busy_pod_is_chosen(
    current: int, jobs: list[int | None], ready: list[bool], waiting: int | None
) -> None:
    workers = [Worker(f"w{i}", ready[i], j) for i, j in enumerate(jobs)]
    decision = decide_replicas(POLICY, current, workers, waiting, 1e9, 30)
    idle = {w.name for w in workers if w.jobs == 0}
    assert set(decision.give_up) <= idle
    assert decision.replicas >= current - len(decision.give_up)
    if decision.replicas < current:
        assert waiting is not None
        assert not any(w.ready and w.jobs is None for w in workers)


@pytest.mark.parametrize(
    ("fixed", "before", "sessions", "nodes"),
    [
        (5, 1, 0, 5),
        (0, 3, 7, 0),
        (None, None, None, 1),
        (None, None, 200, 3),
        (None, 2, None, 2),
        (None, 1, 81, 2),
        (None, 1, 80, 1),
        (None, 1, 1000, 3),
        (None, 3, 0, 1),
        (None, 2, 80, 2),
        (None, 2, 71, 2),
        (None, 2, 70, 1),
        (None, 3, 70, 1),
        (None, 0, None, 1),
    ],
)
def test_nodes_of_a_pool(fixed: int | None, before: int | None, sessions: int | None, nodes: int) -> None:
    """100 sessions a node, a fifth kept free, 1 to 3 nodes; down only with a tenth of a node to spare."""
    assert desired_nodes(NodePolicy(fixed, 1, 3, 100, 20), before, sessions) == nodes


def test_unknown_load_grows_to_a_raised_minimum_and_does_not_shrink_to_a_lowered_maximum() -> None:
    assert desired_nodes(NodePolicy(None, 4, 9, 100, 20), 2, None) == 4
    assert desired_nodes(NodePolicy(None, 1, 2, 100, 20), 5, None) == 5


def test_autoscaling_never_gives_up_the_last_node() -> None:
    """A pool without a node would never see the session that makes it grow."""
    assert desired_nodes(NodePolicy(None, 0, 3, 100, 20), 1, 0) == 1


@given(st.integers(0, 2000), st.integers(1, 20), st.integers(1, 300), st.integers(0, 90))
def test_nodes_are_stable_for_a_steady_load(sessions: int, before: int, per_node: int, headroom: int) -> None:
    policy = NodePolicy(None, 1, 100, per_node, headroom)
    once = desired_nodes(policy, before, sessions)
    assert desired_nodes(policy, once, sessions) == once
