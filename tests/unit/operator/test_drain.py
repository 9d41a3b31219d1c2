"""Whom a drain takes, when it begins, what it waits for and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_operator.pools.drain import CUT_GRACE, SETTLE, Decision, Mark, Node, Why, decide

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DEADLINE = timedelta(hours=2)
SOME_TIME_AGO = NOW - timedelta(minutes=10)
LONG_AGO = NOW - timedelta(hours=3)


def node(number: int, rooms: int | None = 0, **changes: Any) -> Node:
    """Pod `n<number>-0` of StatefulSet `n<number>`, healthy unless said otherwise."""
    return replace(Node(f"n{number}-0", f"n{number}", "good", rooms), **changes)


def draining(number: int, rooms: int | None, why: Why = Why.SCALE_DOWN, **changes: Any) -> Node:
    changes = {"mark": Mark(SOME_TIME_AGO, why), "told": SETTLE} | changes
    return node(number, rooms, **changes)


def run(wanted: int, nodes: Sequence[Node], fixed: bool = True, **options: Any) -> Decision:
    slots = sorted({n.slot for n in nodes if n.slot and not n.orphan} | set(options.pop("empty", ())))
    return decide(wanted, fixed, slots, nodes, DEADLINE, NOW, **options)


def gone(decision: Decision) -> list[str]:
    return sorted(r.name for r in decision.remove)


def held(decision: Decision) -> dict[str, str]:
    return {h.name: h.reason for h in decision.held}


def test_a_new_pool_gets_its_nodes() -> None:
    assert run(2, []).add == 2


def test_enough_is_left_alone() -> None:
    decision = run(2, [node(0, 3), node(1, 0)])
    assert decision == Decision(keep=["n0", "n1"])


@pytest.mark.parametrize(
    ("rooms", "chosen"),
    [
        ([0, 2, 5], "n0-0"),
        ([5, 2, 0], "n2-0"),
        ([5, 1, 9], "n1-0"),
        ([None, 4, 2], "n2-0"),
        ([0, 0, 0], "n0-0"),
    ],
)
def test_fewer_nodes_drain_the_emptiest_whatever_its_number(rooms: list[int | None], chosen: str) -> None:
    decision = run(2, [node(i, r) for i, r in enumerate(rooms)])
    assert decision.begin == {chosen: Why.SCALE_DOWN}
    assert decision.remove == []
    assert decision.keep == ["n0", "n1", "n2"]
    assert decision.states[chosen].kind == "Draining"
    assert decision.states[chosen].until == NOW + DEADLINE


def test_a_node_whose_rooms_are_not_known_is_never_chosen() -> None:
    decision = run(1, [node(0, None), node(1, None)])
    assert (decision.begin, decision.remove) == ({}, [])
    assert held(decision) == {"n0-0": "RoomsUnknown"}


def test_nodes_without_a_process_go_first_and_at_once() -> None:
    pending = node(1, 0, takes="unknown", dead=True, homeless=True)
    decision = run(1, [node(0, 0), pending])
    assert gone(decision) == ["n1-0"]
    assert decision.begin == {}
    assert decision.keep == ["n0"]
    assert run(1, [node(0, 4)], empty=("n7",)).drop == ["n7"]


def test_a_fixed_number_drains_all_that_is_too_many_autoscaling_one_after_the_other() -> None:
    nodes = [node(i, i) for i in range(5)]
    assert sorted(run(2, nodes, fixed=True).begin) == ["n0-0", "n1-0", "n2-0"]
    assert sorted(run(2, nodes, fixed=False).begin) == ["n0-0"]
    assert run(2, [draining(0, 1), *nodes[1:]], fixed=False).begin == {}


def test_the_last_healthy_node_is_not_given_up_for_a_sick_one() -> None:
    decision = run(1, [node(0, 0), node(1, 3, takes="bad")])
    assert decision.begin == {"n1-0": Why.SCALE_DOWN}


def test_zero_nodes_drain_them_all() -> None:
    assert sorted(run(0, [node(0, 1), node(1, 2)]).begin) == ["n0-0", "n1-0"]


@pytest.mark.parametrize(
    ("rooms", "told", "since", "expected"),
    [
        (0, SETTLE, SOME_TIME_AGO, ("removed", 0, None)),
        (0, SETTLE - 1, SOME_TIME_AGO, ("draining",)),
        (0, None, SOME_TIME_AGO, ("draining",)),
        (3, SETTLE, SOME_TIME_AGO, ("draining",)),
        (None, SETTLE, SOME_TIME_AGO, ("draining",)),
        (3, SETTLE, LONG_AGO, ("removed", 3, CUT_GRACE)),
        (None, SETTLE, LONG_AGO, ("removed", None, CUT_GRACE)),
        (0, None, LONG_AGO, ("removed", 0, CUT_GRACE)),
    ],
)
def test_a_drain_ends_by_a_known_zero_or_by_the_deadline(
    rooms: int | None, told: float | None, since: datetime, expected: tuple[Any, ...]
) -> None:
    decision = run(1, [node(0, 5), draining(1, rooms, mark=Mark(since, Why.SCALE_DOWN), told=told)])
    if expected == ("draining",):
        assert decision.remove == []
        assert decision.keep == ["n0", "n1"]
        assert decision.states["n1-0"].kind == "Draining"
        assert 0 < decision.again <= DEADLINE.total_seconds()
    else:
        (removal,) = decision.remove
        assert (removal.name, removal.slot) == ("n1-0", "n1")
        assert ("removed", removal.moved, removal.grace) == expected
        assert decision.keep == ["n0"]
        assert decision.states["n1-0"].kind == ("Moving" if removal.grace else "Draining")


def test_a_node_that_carries_signals_of_other_nodes_rooms_stays_until_they_end_or_its_deadline() -> None:
    """Those clients would have to reconnect in the middle of their interview."""
    decision = run(1, [node(0, 5), draining(1, 0, signals=2)])
    assert decision.remove == []
    assert decision.states["n1-0"].carries
    assert decision.again == (SOME_TIME_AGO + DEADLINE - NOW).total_seconds()
    assert gone(run(1, [node(0, 5), draining(1, 0, signals=0)])) == ["n1-0"]
    late = run(1, [node(0, 5), draining(1, 0, signals=2, mark=Mark(LONG_AGO, Why.SCALE_DOWN))])
    assert [(r.name, r.grace) for r in late.remove] == [("n1-0", CUT_GRACE)]
    assert not run(1, [node(0, 5), draining(1, 3, signals=2)]).states["n1-0"].carries, "it has rooms of its own"


def test_it_looks_again_when_the_zero_may_be_believed() -> None:
    assert run(1, [node(0), draining(1, 0, told=SETTLE - 12)]).again == 12
    assert run(1, [node(0, 1), draining(1, 0, told=None)]).again == SETTLE
    assert run(1, [node(0, 1), node(1, 0)]).again == SETTLE


def test_more_nodes_again_take_the_fullest_drain_back_before_a_new_one_is_made() -> None:
    decision = run(2, [node(0, 5), draining(1, 1), draining(2, 4)])
    assert decision.cancel == ["n2-0"]
    assert decision.add == 0
    assert "n2-0" not in decision.states


def test_a_cordoned_machine_gets_a_successor_and_drains() -> None:
    decision = run(2, [node(0, 2), node(1, 0, cordoned=True)])
    assert decision.add == 1
    assert decision.begin == {"n1-0": Why.CORDONED}
    after = run(2, [node(0, 2), draining(1, 0, Why.CORDONED, cordoned=True), node(2, 0, dead=True, takes="unknown")])
    assert gone(after) == ["n1-0"]
    assert after.add == 0


def test_uncordoned_takes_the_drain_back_and_the_surplus_successor_goes() -> None:
    pending = node(2, 0, dead=True, takes="unknown", homeless=True)
    decision = run(2, [node(0, 2), draining(1, 1, Why.CORDONED), pending])
    assert decision.cancel == ["n1-0"]
    assert gone(decision) == ["n2-0"]


def test_a_node_that_is_empty_meanwhile_goes_instead_of_one_that_is_still_talked_on() -> None:
    decision = run(2, [draining(0, 1), node(1, 3), node(2, 0)])
    assert (decision.cancel, decision.begin) == (["n0-0"], {"n2-0": Why.SCALE_DOWN})
    assert decision.add == 0


@pytest.mark.parametrize(
    "nodes",
    [
        [draining(0, 0), node(1, 3), node(2, 0)],  # nothing gained
        [draining(0, 1), node(1, 3), node(2, None)],  # not known
        [draining(0, 1), node(1, 3), node(2, 0, signals=1)],
        [draining(0, 1, takes="bad"), node(1, 3), node(2, 0)],  # the empty one is the better of the two
        [draining(0, 1, outdated=True), node(1, 3), node(2, 0)],
        [draining(0, 1, Why.CORDONED, cordoned=True), node(1, 3), node(2, 0)],
    ],
)
def test_otherwise_a_drain_goes_on_with_whom_it_began(nodes: list[Node]) -> None:
    assert run(2, nodes).cancel == []


def test_the_last_node_waits_for_its_successor() -> None:
    waiting = run(1, [node(0, 3, cordoned=True), node(1, 0, takes="unknown")])
    assert waiting.begin == {}
    assert held(waiting) == {"n0-0": "LastReadyNode"}
    assert run(1, [node(0, 3, cordoned=True), node(1, 0)]).begin == {"n0-0": Why.CORDONED}


def test_the_last_node_drains_when_new_rooms_go_to_the_fallback() -> None:
    assert run(1, [node(0, 3, outdated=True)], elsewhere=True).begin == {"n0-0": Why.UPDATE}


@pytest.mark.parametrize(("rooms", "begins"), [(0, True), (1, False), (None, False)])
def test_the_only_machine_is_swapped_while_idle(rooms: int | None, begins: bool) -> None:
    pending = node(1, 0, takes="unknown", dead=True, homeless=True)
    decision = run(1, [node(0, rooms, outdated=True), pending])
    assert bool(decision.begin) is begins
    assert decision.add == 0


def test_an_update_takes_one_node_at_a_time_the_emptiest_first() -> None:
    old = [node(0, 4, outdated=True), node(1, 1, outdated=True), node(2, 6, outdated=True)]
    first = run(3, old)
    assert first.begin == {"n1-0": Why.UPDATE}
    assert first.add == 1
    during = run(3, [old[0], draining(1, 1, Why.UPDATE, outdated=True), old[2], node(3, 0)])
    assert (during.begin, during.add, during.remove) == ({}, 0, [])


def test_the_next_update_waits_for_the_successor() -> None:
    old = [node(0, 4, outdated=True), node(2, 6, outdated=True)]
    waiting = run(3, [*old, node(3, 0, takes="unknown")])
    assert waiting.begin == {}
    assert held(waiting) == {"n0-0": "SuccessorNotReady"}
    assert run(3, [*old, node(3, 0)]).begin == {"n0-0": Why.UPDATE}


def test_the_next_update_waits_until_the_last_one_is_gone() -> None:
    ending = draining(1, 0, Why.UPDATE, outdated=True, terminating=True, ends=NOW + timedelta(hours=1))
    assert run(2, [node(0, 4, outdated=True), ending, node(3, 0)], empty=()).begin == {}


def test_a_change_taken_back_takes_its_drain_back() -> None:
    decision = run(1, [draining(0, 2, Why.UPDATE, outdated=False), node(1, 0)])
    assert decision.cancel == ["n0-0"]


def test_a_broken_template_is_mended_without_waiting_for_the_broken_ones() -> None:
    broken = [node(i, 0, takes="unknown", dead=True, outdated=True) for i in range(2)]
    assert gone(run(2, broken)) == ["n0-0"]


def test_nodes_of_an_older_version_without_a_set_of_their_own_drain_one_after_the_other() -> None:
    old = [replace(node(i, i + 1, outdated=True), slot="") for i in range(2)]
    decision = run(2, old)
    assert decision.add == 2
    assert decision.begin == {"n0-0": Why.UPDATE}


@pytest.mark.parametrize("mark", [None, Mark(SOME_TIME_AGO, Why.CORDONED), Mark(SOME_TIME_AGO, Why.SCALE_DOWN)])
def test_a_pod_whose_set_is_gone_is_replaced_whatever_it_drained_for(mark: Mark | None) -> None:
    decision = run(2, [node(0, 3, orphan=True, mark=mark), node(1, 2)])
    assert decision.add == 1
    assert decision.states["n0-0"].kind == "Draining"
    assert decision.cancel == decision.remove == []
    assert gone(run(2, [draining(0, 0, orphan=True), node(1), node(2)])) == ["n0-0"]


def test_a_pod_someone_deleted_drains_until_its_grace_ends() -> None:
    ends = NOW + timedelta(minutes=50)
    decision = run(1, [node(0, 2, terminating=True, ends=ends)])
    assert (decision.states["n0-0"].kind, decision.states["n0-0"].until) == ("Draining", ends)
    assert (decision.remove, decision.keep) == ([], ["n0"])


@pytest.mark.parametrize(("left", "kind"), [(timedelta(hours=1), "Draining"), (timedelta(seconds=CUT_GRACE), "Moving")])
def test_a_pod_that_ends_is_not_deleted_again_its_kubelet_would_keep_to_the_first_grace(
    left: timedelta, kind: str
) -> None:
    mark = Mark(LONG_AGO, Why.SCALE_DOWN)
    decision = run(1, [node(0), draining(1, 2, mark=mark, terminating=True, ends=NOW + left)])
    assert decision.remove == []
    assert (decision.states["n1-0"].kind, decision.states["n1-0"].until) == (kind, NOW + left)


def test_a_mark_survives_being_written() -> None:
    mark = Mark(NOW, Why.CORDONED)
    assert Mark.parse(mark.render()) == mark
    assert Mark.parse("") is None
    assert Mark.parse("yesterday Tired") is None


@st.composite
def _nodes(draw: st.DrawFn) -> list[Node]:
    out = []
    for i in range(draw(st.integers(0, 5))):
        dead = draw(st.booleans()) if draw(st.booleans()) else False
        since = draw(st.sampled_from([None, SOME_TIME_AGO, LONG_AGO]))
        out.append(
            node(
                i,
                0 if dead else draw(st.sampled_from([None, 0, 1, 7])),
                takes="unknown" if dead else draw(st.sampled_from(["good", "bad", "unknown"])),
                dead=dead,
                signals=0 if dead else draw(st.sampled_from([0, 2])),
                homeless=dead and draw(st.booleans()),
                orphan=draw(st.sampled_from([False, False, True])),
                outdated=draw(st.booleans()),
                cordoned=draw(st.booleans()),
                mark=Mark(since, draw(st.sampled_from([Why.SCALE_DOWN, Why.CORDONED, Why.UPDATE]))) if since else None,
                told=draw(st.sampled_from([None, 1.0, SETTLE])) if since else None,
            )
        )
    return out


@given(_nodes(), st.integers(0, 5), st.booleans(), st.booleans())
def test_no_live_session_is_cut_before_the_deadline(
    nodes: list[Node], wanted: int, fixed: bool, elsewhere: bool
) -> None:
    """Laws 5 and 6, for whatever may be seen."""
    decision = run(wanted, nodes, fixed, elsewhere=elsewhere)
    by_name = {n.name: n for n in nodes}
    by_slot = {n.slot: n for n in nodes}
    for removal in decision.remove:
        n = by_name[removal.name]
        late = n.mark is not None and NOW - n.mark.since >= DEADLINE
        empty = n.rooms == n.signals == 0 and n.mark is not None and n.told is not None and n.told >= SETTLE
        assert n.dead or empty or late
        assert removal.grace is None or late
    assert not set(decision.drop) & set(by_slot)
    removed = {r.slot for r in decision.remove}
    orphaned = {n.slot for n in nodes if n.orphan}
    assert set(by_slot) - orphaned == (set(decision.keep) | removed) - orphaned
    new_updates = [n for n, why in decision.begin.items() if why is Why.UPDATE]
    running_updates = [n for n in nodes if n.mark and n.mark.why is Why.UPDATE and n.name not in decision.cancel]
    assert len(new_updates) <= 1
    if new_updates:
        assert not [n for n in running_updates if n.outdated and not n.cordoned]


@given(_nodes(), st.integers(1, 5))
def test_new_rooms_keep_a_node_to_go_to(nodes: list[Node], wanted: int) -> None:
    """Whoever takes rooms now and begins to drain leaves another one that does, or was idle with nowhere else to be."""
    decision = run(wanted, nodes)
    taking = [n for n in nodes if n.takes == "good" and not n.mark and not n.dead]
    begun = [n for n in taking if n.name in decision.begin]
    left = [n for n in taking if n.name not in decision.begin]
    back = [n for n in nodes if n.name in decision.cancel and n.takes == "good"]
    if begun and not left and not back:
        assert all(n.rooms == 0 for n in begun[-1:])
        assert any(n.homeless for n in nodes)


@given(_nodes(), st.integers(0, 5), st.booleans())
def test_a_drain_taken_back_is_not_begun_again_by_the_next_look(nodes: list[Node], wanted: int, fixed: bool) -> None:
    """Of a pool that only scales."""
    scaled = {Mark(at, Why.SCALE_DOWN) for at in (SOME_TIME_AGO, LONG_AGO)}
    nodes = [
        replace(n, outdated=False, cordoned=False, orphan=False, mark=n.mark if n.mark in scaled else None)
        for n in nodes
        if not n.dead
    ]
    first = run(wanted, nodes, fixed)
    after = [
        replace(n, mark=Mark(NOW, first.begin[n.name])) if n.name in first.begin else n
        for n in (replace(n, mark=None) if n.name in first.cancel else n for n in nodes)
    ]
    second = run(wanted, after, fixed)
    assert not set(first.cancel) & set(second.begin)
    assert not set(first.begin) & set(second.cancel)


def test_steps_repeated_come_to_rest() -> None:
    """Three outdated nodes on three machines with sessions that end: each replaced, never two at once, then quiet."""
    nodes = [node(i, i + 1, outdated=True) for i in range(3)]
    number, most = 3, 0
    for _ in range(40):
        decision = run(3, nodes)
        removed = set(gone(decision))
        marked = []
        for n in nodes:
            if n.name in removed:
                continue
            if n.name in decision.begin:
                n = replace(n, mark=Mark(NOW, decision.begin[n.name]), told=SETTLE)
            elif n.mark:
                n = replace(n, rooms=max((n.rooms or 0) - 1, 0))
            if n.dead:  # its machine is free when another one has gone
                n = replace(n, dead=len(nodes) - len(removed) > 3, takes="good")
            marked.append(n)
        for _new in range(decision.add):
            marked.append(node(number, 0, takes="unknown", dead=True))
            number += 1
        nodes = marked
        most = max(most, sum(1 for n in nodes if n.mark))
    assert most == 1
    assert [(n.outdated, n.mark) for n in nodes] == [(False, None)] * 3
    assert run(3, nodes) == Decision(keep=sorted(n.slot for n in nodes))
