"""Keys of a pool change without anyone being refused: pairs, stages, and who may use what in each of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_operator.pools.rotation import (
    CLIENTS_FOLLOW,
    Asked,
    Keys,
    Pair,
    Stage,
    Users,
    fingerprint,
    recovered,
    step,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
OLD, NEW, MINE = Pair("APIold", "o" * 40), Pair("APInew", "n" * 40), Pair("APImine", "m" * 40)
FIRST, BOTH, LAST = fingerprint((OLD,)), fingerprint((NEW, OLD)), fingerprint((NEW,))
SETTLED = Keys(OLD)
ADDING = Keys(OLD, NEW, Stage.ADDING, NOW)
MOVING = Keys(NEW, OLD, Stage.MOVING, NOW)
RETIRING = Keys(NEW, OLD, Stage.RETIRING, NOW)
LATER = NOW + CLIENTS_FOLLOW


@pytest.mark.parametrize(
    ("asked", "stage", "other", "reason"),
    [
        (Asked("", OLD), Stage.SETTLED, None, "KeysSettled"),
        (Asked("", None), Stage.ADDING, NEW, "AddingKey"),
        (Asked("1", OLD), Stage.ADDING, NEW, "AddingKey"),
        (Asked("", MINE), Stage.ADDING, MINE, "AddingKey"),
        (Asked("", Pair("APImine", "short")), Stage.SETTLED, None, "KeyRefused"),
        (Asked("", Pair("has: colon", "m" * 40)), Stage.SETTLED, None, "KeyRefused"),
        (Asked("", Pair("APIold", "m" * 40)), Stage.SETTLED, None, "KeyRefused"),
        (Asked("", Pair("", "")), Stage.SETTLED, None, "KeyRefused"),
    ],
)
def test_what_begins_a_rotation(asked: Asked, stage: Stage, other: Pair | None, reason: str) -> None:
    taken = step(SETTLED, asked, Users([FIRST], 1, 0), NEW, NOW)
    assert (taken.keys.stage, taken.keys.other, taken.finding.reason) == (stage, other, reason)
    assert taken.keys.active == OLD


def test_a_request_is_taken_up_once() -> None:
    begun = step(SETTLED, Asked("1", OLD), Users([], 0, 0), NEW, NOW).keys
    settled = replace(SETTLED, active=NEW, asked=begun.asked)
    assert step(settled, Asked("1", NEW), Users([LAST], 1, 0), MINE, NOW).keys == settled
    assert step(settled, Asked("2", NEW), Users([LAST], 1, 0), MINE, NOW).keys.other == MINE


@pytest.mark.parametrize(
    ("keys", "users", "now", "stage"),
    [
        # One node does not know the new key yet, one that ends neither, one that is missing: nobody uses it.
        (ADDING, Users([BOTH, FIRST], 2, 0), LATER, Stage.ADDING),
        (ADDING, Users([BOTH], 2, 0), LATER, Stage.ADDING),
        (ADDING, Users([BOTH, ""], 2, 0), LATER, Stage.ADDING),
        (ADDING, Users([BOTH, BOTH], 2, 0), NOW, Stage.MOVING),
        (ADDING, Users([], 0, 0), NOW, Stage.MOVING),
        # The old key stays as long as an agent uses it, and as long as a token that was handed out is good.
        (MOVING, Users([BOTH], 1, 1), LATER, Stage.MOVING),
        (MOVING, Users([BOTH], 1, 0), LATER - timedelta(seconds=1), Stage.MOVING),
        (MOVING, Users([BOTH], 1, 0), LATER, Stage.RETIRING),
        (RETIRING, Users([LAST, BOTH], 2, 0), LATER, Stage.RETIRING),
        (RETIRING, Users([LAST, LAST], 2, 0), NOW, Stage.SETTLED),
    ],
)
def test_a_stage_ends_when_nobody_needs_it(keys: Keys, users: Users, now: datetime, stage: Stage) -> None:
    assert step(keys, Asked("", keys.active), users, MINE, now).keys.stage is stage


@pytest.mark.parametrize("keys", [ADDING, MOVING, RETIRING])
@pytest.mark.parametrize("asked", [Asked("", None), Asked("9", MINE), Asked("", MINE)])
def test_a_request_during_a_rotation_waits(keys: Keys, asked: Asked) -> None:
    taken = step(keys, asked, Users([FIRST], 1, 1), MINE, NOW)
    assert taken.keys == keys


def test_moving_is_looked_at_again_when_its_time_is_over() -> None:
    assert step(MOVING, Asked("", NEW), Users([BOTH], 1, 0), MINE, NOW + timedelta(minutes=5)).again == 600


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "1", "2"]), st.booleans(), st.integers(0, 2), st.integers(0, 1200)), max_size=40
    )
)
def test_what_is_signed_with_is_always_known_to_every_node(
    script: list[tuple[str, bool, int, int]],
) -> None:
    """Law: whatever is asked and whichever node is replaced when, the pair in use is in every node's ring, and so is
    the one before it for as long as agents may use it."""
    keys, now = SETTLED, NOW
    nodes = {0: keys.ring, 1: keys.ring}
    agents = {keys.active}
    for number, (annotation, deleted, node, seconds) in enumerate(script):
        now += timedelta(seconds=seconds)
        if node < 2:
            nodes[node] = keys.ring
        else:
            agents = {keys.active}
        users = Users([fingerprint(r) for r in nodes.values()], 2, sum(1 for a in agents if a == keys.other))
        fresh = Pair(f"API{number:03}", f"{number:040}")
        keys = step(keys, Asked(annotation, None if deleted else keys.active), users, fresh, now).keys
        agents.add(keys.active)
        assert all(keys.active in ring for ring in nodes.values())
        assert all(agent in ring for agent in agents for ring in nodes.values())
        assert all(fingerprint(ring) in keys.rings for ring in nodes.values())
        assert all(agent in (keys.active, keys.other) for agent in agents)


@pytest.mark.parametrize("keys", [SETTLED, ADDING, MOVING, RETIRING, replace(SETTLED, asked="7")])
def test_the_state_is_read_as_it_was_written(keys: Keys) -> None:
    assert Keys.parse(keys.render()) == keys


@pytest.mark.parametrize("text", ["", "{}", "null", SETTLED.render().replace("Settled", "Moving"), "[1]"])
def test_a_state_that_makes_no_sense_is_none(text: str) -> None:
    assert Keys.parse(text) is None


def test_a_lost_secret_is_recovered_from_the_gateways_copy() -> None:
    entry = {"apiKey": "APIold", "apiSecret": "o" * 40}
    assert recovered(entry, NOW) == SETTLED
    # The first pair is good on every node in every stage; the second one may go.
    both = recovered({**entry, "also": {"APInew": "n" * 40}}, NOW)
    assert both == Keys(OLD, NEW, Stage.MOVING, NOW)
    assert recovered({}, NOW) is None


def test_secrets_are_in_no_representation() -> None:
    assert "n" * 40 not in repr(MOVING)
