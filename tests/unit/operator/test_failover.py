"""When new rooms move to the fallback and when they come back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_ledger.resources.pool import FallbackMode
from talktime_operator.pools.failover import STARTUP_GRACE, Active, Policy, Reason, Streak, Verdict, decide, recall

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
AUTO = Policy(FallbackMode.AUTO, True, 3, timedelta(minutes=5))
FORCE = Policy(FallbackMode.FORCE, True, 3, timedelta(minutes=5))
NEVER = Policy(FallbackMode.NEVER, True, 3, timedelta(minutes=5))
HERE = Active("SelfHosted", NOW - timedelta(days=1))
THERE = Active("Fallback", NOW - timedelta(minutes=6), Reason.POOL_SICK, "none of 1 nodes answers", 1)
SICK = Streak("bad", 3, 2.0, proven=True)
WELL = Streak("good", 300, 300.0, proven=True)


@pytest.mark.parametrize(
    ("before", "policy", "pool", "fallback", "target", "reason"),
    [
        # over
        (HERE, AUTO, SICK, "good", "Fallback", Reason.POOL_SICK),
        (HERE, AUTO, SICK, "unknown", "Fallback", Reason.POOL_SICK),
        (HERE, AUTO, SICK, "bad", "SelfHosted", Reason.STARTED),
        (HERE, AUTO, Streak("bad", 2, 1.0, True), "good", "SelfHosted", Reason.STARTED),
        (HERE, AUTO, Streak("unknown", 99, 99.0, True), "good", "SelfHosted", Reason.STARTED),
        (HERE, Policy(FallbackMode.AUTO, False, 3, timedelta(0)), SICK, "unknown", "SelfHosted", Reason.STARTED),
        (HERE, NEVER, SICK, "good", "SelfHosted", Reason.STARTED),
        # a pool that has never been good is starting
        (HERE, AUTO, Streak("bad", 50, STARTUP_GRACE - 1, False), "good", "SelfHosted", Reason.STARTED),
        (HERE, AUTO, Streak("bad", 60, STARTUP_GRACE, False), "good", "Fallback", Reason.POOL_SICK),
        # back
        (THERE, AUTO, WELL, "good", "SelfHosted", Reason.POOL_RECOVERED),
        (THERE, AUTO, Streak("good", 299, 299.0, True), "good", "Fallback", Reason.POOL_SICK),
        (THERE, AUTO, SICK, "bad", "Fallback", Reason.POOL_SICK),
        (THERE, AUTO, Streak("unknown", 999, 999.0, True), "bad", "Fallback", Reason.POOL_SICK),
        (THERE, NEVER, SICK, "good", "SelfHosted", Reason.FALLBACK_OFF),
        # planned
        (HERE, FORCE, WELL, "good", "Fallback", Reason.FORCED),
        (HERE, Policy(FallbackMode.FORCE, False, 3, timedelta(0)), WELL, "unknown", "SelfHosted", Reason.STARTED),
        (THERE, FORCE, WELL, "good", "Fallback", Reason.FORCED),
    ],
)
def test_where_new_rooms_go(
    before: Active, policy: Policy, pool: Streak, fallback: Verdict, target: str, reason: Reason
) -> None:
    after = decide(before, policy, pool, "none of 1 nodes answers", fallback, NOW)
    assert (after.target, after.reason) == (target, reason)
    moved = after.target != before.target
    assert after.count == before.count + moved
    assert after.since == (NOW if moved else before.since)
    assert bool(after.message) or not moved, "a switch says why"


def test_the_end_of_a_planned_switch_waits_for_proven_health() -> None:
    forced = decide(HERE, FORCE, WELL, "", "good", NOW)
    soon = decide(forced, AUTO, WELL, "", "good", NOW + timedelta(minutes=1))
    assert (soon.target, soon.reason, soon.since) == ("Fallback", Reason.NO_LONGER_FORCED, NOW)
    assert decide(soon, AUTO, WELL, "", "good", NOW + timedelta(minutes=5)).target == "SelfHosted"


def test_it_survives_an_operator_restart() -> None:
    assert Active.parse(THERE.render(), NOW) == THERE
    assert Active.parse({}, NOW) == Active("SelfHosted", NOW)
    assert Active.parse({"target": "Fallback", "since": "soon"}, NOW).target == "SelfHosted"


@pytest.mark.parametrize(
    ("told", "pushed", "target", "since"),
    [
        (HERE, "Fallback", "Fallback", NOW),
        (HERE, "SelfHosted", "SelfHosted", HERE.since),
        (HERE, None, "SelfHosted", HERE.since),
        (THERE, "SelfHosted", "Fallback", THERE.since),  # a way home that was not written is gone again, with its proof
        (THERE, "Fallback", "Fallback", THERE.since),
    ],
)
def test_a_new_operator_begins_where_gateways_are(told: Active, pushed: Any, target: str, since: datetime) -> None:
    begun = recall(told, pushed, NOW)
    assert (begun.target, begun.since) == (target, since)
    assert begun.count == told.count + (target != told.target)


def test_a_switch_that_was_not_written_ends_by_proven_health_only() -> None:
    begun = recall(HERE, "Fallback", NOW)
    fresh = Streak("good", 1, 0.0, proven=True)
    assert decide(begun, AUTO, fresh, "", "good", NOW).target == "Fallback"
    assert decide(begun, AUTO, WELL, "", "good", NOW + timedelta(minutes=4)).target == "Fallback"
    assert decide(begun, AUTO, WELL, "", "good", NOW + timedelta(minutes=5)).target == "SelfHosted"
    assert decide(begun, NEVER, WELL, "", "good", NOW).target == "SelfHosted"


def run(policy: Policy, rounds: list[tuple[float, Verdict, Verdict]]) -> list[tuple[datetime, Active]]:
    """Rounds of (seconds since the last one, pool, fallback); every decision with its time."""
    now, pool, active, out = NOW, Streak(proven=True), HERE, []
    for elapsed, verdict, fallback in rounds:
        now += timedelta(seconds=elapsed)
        pool = pool.then(verdict, elapsed)
        active = decide(active, policy, pool, "sick", fallback, now)
        out.append((now, active))
    return out


def test_a_node_that_dies_every_30_s_stays_out() -> None:
    flapping: list[tuple[float, Any, Any]] = [(1.0, "bad" if n % 30 < 4 else "good", "good") for n in range(3600)]
    seen = run(AUTO, [(1.0, "good", "good")] * 10 + flapping)
    assert [a.target for _, a in seen][9:12] == ["SelfHosted"] * 3
    over = [at for at, a in seen if a.target == "Fallback"]
    assert over[0] == NOW + timedelta(seconds=13)
    assert seen[-1][1].count == 1, "one switch in an hour of flapping"

    calm = run(AUTO, [(1.0, "good", "good")] * 10 + flapping + [(1.0, "good", "good")] * 400)
    assert (calm[-1][1].target, calm[-1][1].count) == ("SelfHosted", 2)


def test_detection_takes_less_than_four_seconds_at_the_default_interval() -> None:
    """Killed right after a good round: rounds follow at 1, 2 and 3 s."""
    seen = run(AUTO, [(1.0, "good", "good"), (1.0, "bad", "good"), (1.0, "bad", "good"), (1.0, "bad", "good")])
    assert [a.target for _, a in seen] == ["SelfHosted", "SelfHosted", "SelfHosted", "Fallback"]


VERDICTS: st.SearchStrategy[Any] = st.sampled_from(["good", "good", "bad", "bad", "bad", "unknown"])
ROUND = st.tuples(st.floats(0.2, 90), VERDICTS, st.sampled_from(["good", "good", "bad", "unknown"]))


@given(st.lists(ROUND, max_size=120), st.integers(1, 5), st.integers(1, 300))
def test_never_there_and_back_within_failback_after(
    rounds: list[tuple[float, Verdict, Verdict]], threshold: int, failback: int
) -> None:
    policy = Policy(FallbackMode.AUTO, True, threshold, timedelta(seconds=failback))
    seen = [(NOW, HERE), *run(policy, rounds)]
    over: datetime | None = None
    for index in range(1, len(seen)):
        (_, before), (now, after) = seen[index - 1], seen[index]
        if before.target == after.target:
            assert after == before
            continue
        assert rounds[index - 1][1] != "unknown"
        assert after.count == before.count + 1
        if after.target == "Fallback":
            assert [r[1] for r in rounds[max(0, index - threshold) : index]] == ["bad"] * threshold
            assert rounds[index - 1][2] != "bad"
            assert over is None or (now - over).total_seconds() >= failback - 1
            over = now
        else:
            assert over is not None
            assert (now - over).total_seconds() >= failback - 1, "to whole seconds: since is told so"
            good = 0.0
            for back in range(index - 1, 0, -1):
                if rounds[back][1] != "good" or rounds[back - 1][1] != "good":
                    break
                good += rounds[back][0]
            assert good >= failback - 1e-6
