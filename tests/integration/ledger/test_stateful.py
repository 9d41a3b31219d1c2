"""Any interleaving of what can happen to sessions keeps the money laws, on real PostgreSQL with a clock of our own.

The desk's transactions run as the server runs them, again after a lost race; two at a time where a rule says so.
After every step the books are recomputed from rows. CI runs the same examples every time; TALKTIME_STATEFUL_SEED=7 runs
others, TALKTIME_STATEFUL_EXAMPLES=2000 more of them (50 steps each). A failure tells the steps that led to it.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from talktime_ledger.desk import lost
from talktime_ledger.desk.errors import DeskError
from talktime_ledger.store import accounts, renewals
from talktime_ledger.store.sessions import SessionState

from .interleavings import Interleavings
from .lawful_agent import ZERO, Agent
from .stateful_world import GRACE_SEC, USD, VALID_SEC, Study, World, prepared

CI_EXAMPLES = 400
EXAMPLES = int(os.environ.get("TALKTIME_STATEFUL_EXAMPLES", CI_EXAMPLES))
SEED = int(os.environ["TALKTIME_STATEFUL_SEED"]) if "TALKTIME_STATEFUL_SEED" in os.environ else None
STEPS = 50


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A fresh database with the clock of our own."""
    loop = asyncio.new_event_loop()
    made = World(loop, loop.run_until_complete(prepared(database_url)))
    yield made
    loop.run_until_complete(made.pool.close())
    loop.close()


def interleave(world: World, examples: int, *, random_seed: int | None = None) -> None:
    """Runs examples, the same every time without a seed. Raises what went wrong first, as it was seen: a race may not
    be lost again when hypothesis repeats it.
    """
    machine = machine_of(world)
    if random_seed is not None:
        machine = seed(random_seed)(machine)
    plan = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        derandomize=random_seed is None,
        database=None,
        deadline=None,
        # Shrinking runs thousands of transactions more, and a race has no smaller one.
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=plan)
    except Exception:
        if world.wrong:
            raise world.wrong[0] from None
        raise


def machine_of(world: World) -> type[Interleavings]:
    """The machine on a database."""
    return type("InterleavingsHere", (Interleavings,), {"world": world})


def test_any_interleaving_keeps_the_laws(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    begun, cpu = time.monotonic(), time.process_time()
    interleave(world, EXAMPLES, random_seed=SEED)
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    with capsys.disabled():
        print(
            f"\nstateful: {world.steps} steps that did something ({world.idle} did not) in {world.examples} examples, "
            f"seed {'of CI' if SEED is None else SEED}, {world.transactions} transactions, {seconds:.0f} s "
            f"({cpu:.0f} s CPU of this process), {world.steps / seconds:.0f} steps/s; "
            f"{dict(sorted(world.outcomes.items()))}"
        )
    assert world.steps >= 10_000 or EXAMPLES != CI_EXAMPLES


async def _unguarded(connection: Any, account_id: int, move: accounts.Move) -> accounts.Account:
    """The grant as anybody would write it first: read, look, then write."""
    return await accounts.settle(connection, account_id, move)


def _without_guards(statement: str) -> str:
    """The hot way's statement without its two guards."""
    found = re.subn(r"AND \(NOT \$\d+::boolean OR posted \+ reserved [^)]*<= budget\)", "", statement)
    assert found[1] == 2
    return found[0]


@pytest.fixture
def unguarded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No budget in any WHERE clause, and no CHECK behind it."""

    async def drop() -> None:
        async with world.pool.acquire() as connection:
            await connection.execute("ALTER TABLE accounts DROP CONSTRAINT never_over_budget")

    world.run(drop())
    monkeypatch.setattr(accounts, "grant", _unguarded)
    monkeypatch.setattr(renewals, "_WRITE", _without_guards(renewals._WRITE))


@pytest.mark.usefixtures("unguarded")
def test_without_the_guard_the_machine_finds_an_overdraft(world: World) -> None:
    with pytest.raises(AssertionError, match="over the budget") as seen:
        interleave(world, EXAMPLES)
    print(f"after {world.steps} steps in {world.examples} examples: {seen.value}")


def _one_w(session: SessionState) -> Decimal:
    """The rule before ADR 4: one worst case, or what was last said to be in flight."""
    if session.worker is None:
        return ZERO
    held = max(ZERO, session.reserved - session.fixed)
    return min(held, max(session.hold * session.w_usd, session.in_flight))


def test_with_one_w_for_a_lost_agent_the_machine_finds_unpaid_speech(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "held_by_agent", _one_w)
    with pytest.raises(AssertionError, match="neither posted nor reserved"):
        interleave(world, EXAMPLES)


def cut_off_and_replayed(world: World) -> None:
    """ADR 4's example in the prices of here, USD: budget 0.3, W 0.01994, C 0.00553, outage reserve 0.06.

    A holds C + 1.5 W + 0.06 = 0.09544. Cut off, it answers four times and says goodbye: 0.0852. It is swept, and
    others take all that is free then, up to a rest under W. At last A's spool comes back. With one W assumed (0.01994)
    it finds more than 0.28 posted or reserved, so it ends at more than 0.28 - 0.01994 + 0.0852 = 0.345 of 0.3.
    """
    machine = machine_of(world)()
    study = Study("adr4", "0.3", "0.2", floor="0.03", outage="0.06")
    machine.studies = [study]

    def comes() -> Agent | None:
        """One more client and its agent, if they are let in."""
        if isinstance(machine.run(machine.open(study, None)), DeskError):
            return None
        agent = machine.interviews[-1].agents[-1]
        machine.run(machine.attach(agent, True))
        machine.check()
        return agent

    machine.run(machine.tell(study))
    lost_one = comes()
    assert lost_one is not None
    while lost_one.start(machine.now):
        lost_one.finish(4)
    lost_one.say_goodbye()
    assert (lost_one.reserved, lost_one.true_cost) == (USD("0.0954407"), USD("0.0852"))
    machine.ahead += timedelta(seconds=VALID_SEC + GRACE_SEC + 1)
    machine.set_clock()
    machine.run(machine.sweep_all())
    assert world.outcomes["swept"] == 1
    machine.check()
    while (other := comes()) is not None:
        # To its last grant: all that is free is held by somebody.
        while not other.over and not (other.reserved - other.goodbye < other.w):
            while other.start(machine.now):
                other.finish(4)
            machine.run(machine.use(other, other.next_use(machine.now)))
            machine.check()
    account = machine.present_account(0)
    assert account["budget"] - account["posted"] - account["reserved"] < lost_one.w, "nothing is free any more"
    machine.run(machine.close(lost_one, "agent_died"))
    machine.check()
    machine.teardown()


def test_an_agent_cut_off_spends_all_it_held_and_nobody_goes_over(world: World) -> None:
    cut_off_and_replayed(world)


def test_with_one_w_for_a_lost_agent_its_spool_overdraws_the_budget(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "held_by_agent", _one_w)
    # What A spent is neither posted nor reserved from the sweep on; here it is the budget that we are looking at.
    monkeypatch.setattr(Interleavings, "check_session", lambda _, row: row)
    with pytest.raises(AssertionError, match="over the budget"):
        cut_off_and_replayed(world)
