"""The 2 W rule: Gemini hears the user only while two worst cases are held, and so never answers beyond the money."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from talktime_agent.budgeted import DEAF_SECONDS, Budgeted
from talktime_agent.clock import Clock
from talktime_agent.facts import HEARD_STEP_SECONDS, Billed, Opened
from talktime_agent.gate import Bounds
from talktime_agent.gemini_meter import GeminiMeter
from talktime_agent.limits import OUTAGE_SECONDS
from talktime_agent.spool import Spool
from talktime_agent.till import Till
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.money import ZERO
from talktime_ledger.core.usage import Usage, UsageKind
from talktime_ledger.core.worst_case import Caps, Legs
from talktime_ledger.core.worst_case_gemini import gemini_capped_response_bound, gemini_goodbye_bound
from talktime_ledger.wire import Attachment, Grant, Use

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
MODEL = "gemini-3.8-live"
PRICES = {"text_in": "0.75", "audio_in": "3", "text_out": "4.5", "audio_out": "12", "thoughts_out": "4.5"}


def grant(n: int = 0, reserved: str = "0.2", **more: Any) -> dict[str, Any]:
    budget = dict.fromkeys(("session_limit", "session_posted", "project_amount", "project_posted"), "1")
    return {
        "n": n, "state": "ok", "reserved": reserved, "goodbye": "0.01", "posted": "0", "session_limit": "1",
        "limit_state": "ok", "w": "0.03", "hold": 2, "budget": {**budget, "project_available": "1"}, **more,
    }  # fmt: skip


def attachment(**more: Any) -> Attachment:
    return Attachment.model_validate(
        {
            "session": {
                "session_id": "s1", "namespace": "ns", "project": "p", "provider": "backup", "api": "GeminiLive",
                "model": MODEL, "epoch": 1, "state": "open", "opened_at": AT, "participant_identity": "participant-1",
                "observers": ["observer-1"], "posted": "0", "reserved": "0.2", "limit": "1",
            },
            "config": {
                "instructions": "Ask.", "language": "en", "wrapUp": "Wrap up.", "closing": "Goodbye then.",
                "voice": "marin", "costUpdateSeconds": 10, "onLedgerOutage": "Drain",
                "caps": {"contextTokens": 1000, "responseSeconds": 10, "outputTokens": 250},
            },
            "grant": grant(**more),
            "rates": [{"card": "a", "vendor": "google", "model": MODEL, "effective_from": AT, "prices": PRICES}],
        }
    )  # fmt: skip


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> Clock:
        return Clock(wall=lambda: AT + timedelta(seconds=self.now - 1000), monotonic=lambda: self.now)


class Silent:
    """A journal, and the way to the metrics, nobody looks at."""

    def write(self, kind: str, at: float, **fields: object) -> None: ...

    def count(self, name: str, label: str = "", amount: int = 1) -> None: ...


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def budget(time: Time, tmp_path: Path) -> AsyncIterator[Budgeted]:
    # The ledger is not asked here: the charging loop is not started.
    ledger: Any = None
    telemetry: Any = Silent()
    yield Budgeted(
        ledger, attachment(), SecretStr("k"), Spool(tmp_path, "s1", 1, 0.0), time.clock(), telemetry,
        sent_at=time.now, use_interval=20,
    )  # fmt: skip


def granted(till: Till, time: Time, reserved: Decimal, **more: Any) -> None:
    """The ledger's next answer."""
    use = till.next_use()
    till.answered(use, Grant.model_validate(grant(n=use.n, reserved=str(reserved), **more)), time.now)


def needs(till: Till) -> Decimal:
    """What must be held to hear: C and two worst cases, the second with the first one's answer in its context."""
    context = till._meter.context_tokens
    first = till.bounds.response(context, HEARD_STEP_SECONDS)
    return Decimal("0.01") + first + till.bounds.response(context + 250, HEARD_STEP_SECONDS)


def spoken(key: str, tokens: int = 100) -> Billed:
    return Billed(Usage(key, UsageKind.RESPONSE, "backup", MODEL, {Meter.AUDIO_OUT: tokens}, AT))


async def test_the_user_is_heard_while_two_worst_cases_are_free(budget: Budgeted, time: Time) -> None:
    till = budget.till
    granted(till, time, needs(till))
    assert budget.hears()
    granted(till, time, needs(till) - Decimal("0.000000001"))
    assert not budget.hears()
    granted(till, time, needs(till))
    assert budget.hears()
    assert not budget.ended.done()


async def test_an_open_answer_takes_one_of_them(budget: Budgeted, time: Time) -> None:
    till = budget.till
    granted(till, time, needs(till))
    budget._heard({"type": "connected", "connection": "live_1"})
    budget._heard({"type": "message", "output": True, "interrupted": False, "turnComplete": False})
    assert budget.busy
    assert not budget.hears()
    # The open answer is in flight; the ledger grants two more beside it.
    granted(till, time, needs(till) + till.account.in_flight)
    assert budget.hears()
    assert till.turns == 1


async def test_nobody_is_left_talking_to_a_deaf_agent(budget: Budgeted, time: Time) -> None:
    granted(budget.till, time, Decimal("0.02"))
    assert not budget.hears()
    time.now += DEAF_SECONDS - 1
    assert not budget.hears()
    assert not budget.ended.done()
    time.now += 2
    assert not budget.hears()
    assert budget.ended.result() == "budget"


async def test_a_ledger_that_restarts_is_waited_for_until_it_is_an_outage(budget: Budgeted, time: Time) -> None:
    granted(budget.till, time, Decimal("0.02"))
    budget.charger.reachable = False
    assert not budget.hears()
    time.now += OUTAGE_SECONDS - 1
    assert not budget.hears()
    assert not budget.ended.done()
    time.now += 2
    assert not budget.hears()
    assert budget.ended.result() == "ledger_outage"


async def test_a_grant_in_time_lets_it_go_on(budget: Budgeted, time: Time) -> None:
    granted(budget.till, time, Decimal("0.02"))
    assert not budget.hears()
    time.now += DEAF_SECONDS - 1
    granted(budget.till, time, Decimal("0.3"))
    assert budget.hears()
    granted(budget.till, time, Decimal("0.02"))
    time.now += 2
    assert not budget.hears()
    assert not budget.ended.done()


async def test_a_lost_room_and_the_end_are_deaf(budget: Budgeted) -> None:
    assert budget.hears()
    budget.turns.shut()
    assert not budget.hears()
    budget.turns.open()
    assert budget.hears()
    budget.end("participant_left")
    budget.turns.open()
    assert not budget.hears()
    assert not budget.admits()


async def test_an_instruction_needs_two_worst_cases_and_holds_one(budget: Budgeted, time: Time) -> None:
    till = budget.till
    granted(till, time, needs(till) - Decimal("0.000000001"))
    assert not budget.admits()
    granted(till, time, needs(till))
    assert budget.admits()
    budget.request("ask_1")
    assert till.account.in_flight == till.worst_case()


async def test_the_hard_limit_is_where_two_worst_cases_do_not_fit(budget: Budgeted, time: Time) -> None:
    till = budget.till
    fits = Decimal("0.01") + 2 * till.wanted()
    granted(till, time, fits, state="final", limit_state="hard")
    assert not till.exhausted
    granted(till, time, fits - Decimal("0.000000001"), state="final", limit_state="hard")
    assert till.exhausted


async def test_long_talk_raises_what_must_be_held(budget: Budgeted) -> None:
    before = budget.till.worst_case()
    budget._heard({"type": "forwarded", "seconds": 60.0})
    assert budget.till.worst_case() - before == 60 * 25 * Decimal(3) / 1_000_000


def test_the_agents_w_is_the_ledgers() -> None:
    told = attachment()
    bounds = Bounds.of(told)
    assert bounds.hold == 2
    cap = gemini_capped_response_bound(
        Legs(bounds.legs.model), Caps(1000, 10), instruction_tokens=bounds.instruction_tokens
    )
    assert bounds.response(50_000, 60.0) == cap
    assert bounds.goodbye == gemini_goodbye_bound(bounds.legs.model, "Goodbye then.")


def test_a_newer_snapshot_is_not_lost_while_the_older_is_on_its_way(time: Time) -> None:
    told = attachment()
    meter = GeminiMeter("backup", MODEL, 250)
    till = Till(told, Bounds.of(told), meter, Silent(), time.clock(), sent_at=time.now)
    till.apply([Opened("live_1/1", None), spoken("live_1/1", 100)])
    use: Use = till.next_use()
    till.apply([spoken("live_1/1", 120)])
    till.answered(use, Grant.model_validate(grant(n=use.n)), time.now)
    assert [usage.meters for usage in till.next_use().usages] == [{Meter.AUDIO_OUT: 120}]
    # Observers see the last one, not the sum.
    assert till.audio_tokens == (0, 120)


HAPPENINGS = ("speak", "answer", "answer twice", "end", "renew", "partly", "lose")
Steps = list[tuple[str, int]]
STEPS: st.SearchStrategy[Steps] = st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 100)), max_size=40)


def play(steps: Steps, hold: int) -> Decimal:
    """The least that was ever free. Two answers can begin after what was heard last: the one that it starts, and one
    that was on its way already; nothing else begins. With a connection all that may have begun is lost, known or not.
    """
    time, told = Time(), attachment(reserved="0.022")
    bounds, meter = replace(Bounds.of(told), hold=hold), GeminiMeter("backup", MODEL, 250)
    till = Till(told, bounds, meter, Silent(), time.clock(), sent_at=time.now)
    limit, spent, answers, may_start = Decimal("0.05"), ZERO, 0, 0
    running: list[str] = []
    till.apply(meter.feed({"type": "connected", "connection": "live_1"}, AT))
    least = till.account.holdings(time.now).free
    for step, size in steps:
        match step:
            case "speak" if till.may_respond().allowed:
                till.apply(meter.feed({"type": "forwarded", "seconds": 0.05, "speech": True}, AT))
                may_start = 2
            case "answer" | "answer twice":
                for _ in range(min(may_start, 1 if step == "answer" else 2)):
                    may_start -= 1
                    answers += 1
                    begun = meter.feed({"type": "message", "output": True, "turnComplete": True}, AT)
                    running += [fact.key for fact in begun if isinstance(fact, Opened)]
                    till.apply(begun)
            case "lose":
                may_start = 0
                running.clear()
                till.apply(meter.feed({"type": "connected", "connection": "live_1"}, AT))
            case "end" if running:
                said = int(till.account.holds[running.pop(0)] * size / 100 / 12 * 1_000_000)
                details = [{"modality": "AUDIO", "tokenCount": said}]
                usage = {"responseTokenCount": said, "responseTokensDetails": details}
                till.apply(meter.feed({"type": "message", "usageMetadata": usage}, AT))
            case "renew" | "partly":
                use = till.next_use()
                spent += sum((Decimal(usage.meters[Meter.AUDIO_OUT]) * 12 / 1_000_000 for usage in use.usages), ZERO)
                want = Decimal("0.01") + use.in_flight + 2 * use.want
                # Nothing that is held is taken back but what was spent; nothing beyond the limit is granted.
                kept = till.account.grant.reserved - till.account.not_settled
                held = max(kept, min(limit - spent, want if step == "renew" else want * size / 100))
                till.answered(use, Grant.model_validate(grant(n=use.n, reserved=str(held))), time.now)
        least = min(least, till.account.holdings(time.now).free)
    return least


@given(steps=STEPS)
def test_whenever_it_answers_by_itself_it_is_paid_for(steps: Steps) -> None:
    assert play(steps, hold=2) >= 0


def test_one_worst_case_would_not_be_enough() -> None:
    steps: Steps = [("speak", 0), ("answer twice", 0)]
    assert play(steps, hold=1) < 0 <= play(steps, hold=2)
