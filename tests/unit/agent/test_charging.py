"""Till, charging loop and turn taking against a ledger that answers, stays away, repeats or refuses. Fake time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from talktime_agent.charging import Charger
from talktime_agent.clock import Clock
from talktime_agent.close import Quiet, final_close, settle
from talktime_agent.facts import Billed, Committed, Connected, Free, Opened, Unmeterable
from talktime_agent.gate import Bounds
from talktime_agent.meter import ProviderMeter
from talktime_agent.till import Till
from talktime_agent.turns import Turns
from talktime_ledger.client import Fenced, SessionClosed, Unavailable
from talktime_ledger.core.gate import Decision
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.usage import Usage, UsageKind
from talktime_ledger.core.worst_case import capped_response_bound
from talktime_ledger.wire import Attachment, Close, Grant, Use

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
MODEL = "gpt-realtime-2.1-mini"


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> Clock:
        return Clock(wall=lambda: AT + timedelta(seconds=self.now - 1000), monotonic=lambda: self.now)


class Journal:
    def __init__(self) -> None:
        self.rows: list[tuple[str, dict[str, Any]]] = []

    def write(self, kind: str, at: float, **fields: Any) -> None:
        self.rows.append((kind, fields))


def grant(n: int = 0, reserved: str = "0.20", **more: Any) -> dict[str, Any]:
    budget = dict.fromkeys(("session_limit", "session_posted", "project_amount", "project_posted"), "1")
    return {
        "n": n, "state": "ok", "reserved": reserved, "goodbye": "0.006", "posted": "0", "session_limit": "1",
        "limit_state": "ok", "w": "0.03", "budget": {**budget, "project_available": "1"}, **more,
    }  # fmt: skip


def attachment(**more: Any) -> Attachment:
    prices = {"text_in": "0.6", "audio_in": "10", "audio_cached_in": "0.3", "text_out": "2.4", "audio_out": "20"}
    heard = {"audio_in": "3", "text_in": "1.25", "text_out": "5"}
    return Attachment.model_validate(
        {
            "session": {
                "session_id": "s1", "namespace": "ns", "project": "p", "provider": "primary", "api": "OpenAIRealtime",
                "model": MODEL, "epoch": 1, "state": "open", "opened_at": AT, "participant_identity": "participant-1",
                "observers": ["observer-1"], "posted": "0", "reserved": "0.2", "limit": "1",
            },
            "config": {
                "instructions": "Ask.", "language": "en", "wrapUp": "Wrap up.", "closing": "Goodbye then.",
                "voice": "marin", "transcriptionModel": "gpt-4o-mini-transcribe", "costUpdateSeconds": 10,
                "caps": {"contextTokens": 1000, "responseSeconds": 10, "outputTokens": 250}, "onLedgerOutage": "Drain",
            },
            "grant": grant(**more),
            "rates": [
                {"card": "a", "vendor": "openai", "model": MODEL, "effective_from": AT, "prices": prices},
                {"card": "b", "vendor": "openai", "model": "gpt-4o-mini-transcribe", "effective_from": AT,
                 "prices": heard},
            ],
        }
    )  # fmt: skip


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def till(time: Time, journal: Journal) -> Till:
    told = attachment()
    meter = ProviderMeter(provider="primary", model=MODEL, transcription_model="gpt-4o-mini-transcribe")
    return Till(told, Bounds.of(told), meter, journal, time.clock(), sent_at=1000.0)


def billed(key: str, audio_out: int = 100) -> Billed:
    return Billed(Usage(key, UsageKind.RESPONSE, "primary", MODEL, {Meter.AUDIO_OUT: audio_out}, AT))


class Ledger:
    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.uses: list[Use] = []
        self.closes: list[Close] = []

    async def use(self, session_id: str, request: Use, *, patience_sec: float | None = None) -> Grant:
        self.uses.append(request)
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, Exception):
            raise answer
        return Grant.model_validate(grant(n=request.n, **answer))

    async def close(self, session_id: str, request: Close) -> None:
        self.closes.append(request)
        if self.answers:
            raise self.answers.pop(0)


def charger(till: Till, ledger: Any, time: Time, refused: Callable[[str], None] = lambda _: None) -> Charger:
    return Charger(
        ledger, "s1", till, interval=20, monotonic=lambda: time.now, on_grant=lambda _: None, on_refused=refused
    )


def test_a_request_is_held_until_its_usage_comes(till: Till, journal: Journal) -> None:
    till.request("create_1")
    bound = till.account.in_flight
    assert bound > 0
    till.apply([Opened("sess/r1", "create_1"), billed("sess/r1")])
    assert till.account.in_flight == 0
    assert till.account.not_settled == Decimal("0.002")
    assert [kind for kind, _ in journal.rows] == ["hold", "hold", "release", "usage", "release"]


def test_nothing_is_waited_for_that_went_down_with_a_connection(till: Till) -> None:
    """A request without an answer and a transcription; both stay held, and a later request is waited for."""
    till.apply([Connected("sess_1", replaced=False), Committed("item_1", 3.0)])
    till.request("create_1")
    assert not till.quiet
    till.apply([Connected("sess_2", replaced=True)])
    assert till.quiet
    assert {"item_1/0", "create_1"} == set(till.account.holds)
    till.request("create_2")
    assert not till.quiet


def test_a_response_that_nobody_asked_for_is_held_too(till: Till) -> None:
    till.apply([Opened("sess/r1", None)])
    assert till.account.in_flight == till.worst_case()


def test_committed_audio_holds_its_transcription_answered_or_not(till: Till) -> None:
    till.apply([Committed("item_1", 5.0)])
    assert till.account.holds == {"item_1/0": till.bounds.transcription(5.0)}
    till.apply([Free("item_1/0")])
    assert till.account.holds == {}


def test_what_cannot_be_metered_is_closed_at_its_bound_and_not_waited_for(till: Till) -> None:
    till.request("create_1")
    till.apply([Opened("sess/r1", "create_1")])
    assert not till.quiet
    till.apply([Unmeterable("sess/r1", "the connection was lost")])
    assert till.quiet
    (left,) = final_close(till, "budget").unmetered
    assert (left.key, left.usd) == ("sess/r1", till.account.in_flight)


def test_a_provider_that_never_took_us_in_billed_nothing(till: Till) -> None:
    till.request("create_1")
    till.nothing_was_asked()
    assert final_close(till, "provider_error").unmetered == ()


def test_the_hard_limit_waits_for_what_is_open_but_not_for_what_is_lost(till: Till, time: Time) -> None:
    last = Grant.model_validate(grant(n=1, reserved="0.01", state="final"))
    till.answered(till.next_use(), last, time.now)
    assert till.exhausted
    till.request("create_1")
    assert not till.exhausted
    till.apply([Opened("sess/r1", "create_1"), Unmeterable("sess/r1", "the connection was lost")])
    assert till.exhausted


def test_observers_hear_of_the_hard_limit_also_when_the_last_grant_did_not_say_so(till: Till, time: Time) -> None:
    """A final grant is the last there is, while what is posted may still be below the hard limit."""
    last = Grant.model_validate(grant(n=1, reserved="0.01", state="final", limit_state="soft"))
    till.answered(till.next_use(), last, time.now)
    assert till.cost_now().limit_state == "soft"
    till.reach_hard_limit()
    assert till.cost_now().limit_state == "hard"
    assert [event.name for event in final_close(till, "budget").events] == ["hard_limit"]


def test_the_worst_case_grows_with_the_conversation_up_to_the_cap(till: Till) -> None:
    bounds = till.bounds
    assert bounds.response(0, 0) < bounds.response(500, 0) < bounds.response(500, 10)
    assert bounds.response(1000, 0) == bounds.response(9000, 60)
    assert bounds.wanted(500, 0) == bounds.response(500, 15)
    cap = capped_response_bound(bounds.legs, bounds.caps, instruction_tokens=bounds.instruction_tokens)
    assert bounds.response(9000, 60) == cap


async def test_usage_is_sent_once_and_settled_by_the_answer(till: Till, time: Time) -> None:
    ledger = Ledger()
    till.apply([billed("sess/r1")])
    await charger(till, ledger, time).flush()
    await charger(till, ledger, time).flush()
    assert [[usage.key for usage in use.usages] for use in ledger.uses] == [["sess/r1"], []]
    assert [use.n for use in ledger.uses] == [1, 2]
    assert till.account.not_settled == 0


async def test_an_unanswered_request_is_repeated_unchanged(till: Till, time: Time) -> None:
    ledger = Ledger(Unavailable("away"))
    charging = charger(till, ledger, time)
    till.apply([billed("sess/r1")])
    with pytest.raises(Unavailable):
        await charging.flush()
    till.apply([billed("sess/r2")])
    await charging.flush()
    await charging.flush()
    assert ledger.uses[0] == ledger.uses[1]
    assert [usage.key for usage in ledger.uses[2].usages] == ["sess/r2"]


async def test_while_the_ledger_is_away_validity_runs_from_the_last_answered_request(till: Till, time: Time) -> None:
    charging = charger(till, Ledger({}, Unavailable("away")), time)
    time.now = 1020.0
    await charging.flush()
    time.now = 1290.0
    with pytest.raises(Unavailable):
        await charging.flush()
    assert till.may_respond().allowed
    time.now = 1300.0
    assert till.may_respond() == Decision(False, "validity")
    assert till.expired


async def as_far_as_it_goes() -> None:
    """Turns of the loop, not time: a machine that stops us for 10 ms gives nobody else a turn in them."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_shrunk_grant_is_not_asked_for_again_at_once_but_usage_is_posted_at_once(
    till: Till, time: Time
) -> None:
    ledger = Ledger(*({"reserved": "0.02"} for _ in range(9)))
    charging: Charger

    def again(_: Grant) -> None:
        assert till.short
        charging.kick()

    charging = Charger(
        ledger, "s1", till, interval=20, monotonic=lambda: time.now, on_grant=again, on_refused=lambda _: None
    )
    running = asyncio.create_task(charging.run())

    async def uses_after(kick: bool = True) -> int:
        if kick:
            charging.kick()
        await as_far_as_it_goes()
        return len(ledger.uses)

    assert await uses_after() == 1
    assert [await uses_after() for _ in range(5)] == [1] * 5
    till.apply([billed("sess/r1")])
    assert await uses_after() == 2
    assert await uses_after() == 2
    time.now += 1.0
    assert await uses_after() == 3
    running.cancel()


async def test_a_renewal_that_came_too_soon_is_made_later(till: Till, time: Time) -> None:
    ledger = Ledger()
    charging = charger(till, ledger, time)
    await charging.flush()
    time.now += 0.99
    running = asyncio.create_task(charging.run())
    assert await charging.renewed(60)
    assert len(ledger.uses) == 2
    running.cancel()


@pytest.mark.parametrize(("error", "reason"), [(Fenced("old epoch"), "fenced"), (SessionClosed("over"), "closed")])
async def test_a_refusal_ends_the_charging(till: Till, time: Time, error: Exception, reason: str) -> None:
    reasons: list[str] = []
    charging = charger(till, Ledger(error), time, reasons.append)
    charging.kick()
    async with asyncio.timeout(60):
        await charging.run()
    assert reasons == [reason]


@pytest.mark.parametrize(
    ("error", "settled"),
    [(None, True), (Fenced("old"), True), (SessionClosed("over"), True), (Unavailable("x"), False)],
)
async def test_settling_leaves_the_spool_only_when_nobody_answered(
    till: Till, error: Exception | None, settled: bool
) -> None:
    ledger: Any = Ledger(*([error] if error else []))
    till.apply([billed("sess/r1")])
    assert await settle(ledger, "s1", till, "participant_left") is settled
    assert [usage.key for usage in ledger.closes[0].usages] == ["sess/r1"]


async def test_waiting_for_quiet_ends_at_once_or_at_its_limit() -> None:
    open_ones = {"r1"}
    quiet = Quiet(lambda: not open_ones)
    assert not await quiet(0.01)
    waiting = asyncio.create_task(quiet(60))
    await asyncio.sleep(0)
    open_ones.clear()
    quiet.changed()
    assert await waiting


class Money:
    def __init__(self, *decisions: Decision) -> None:
        self.decisions = list(decisions)

    def may_respond(self) -> Decision:
        return self.decisions.pop(0) if len(self.decisions) > 1 else self.decisions[0]


def turns(money: Money, said: list[str]) -> Turns:
    async def at_once(_: float) -> bool:
        return True

    return Turns(money, answer=lambda: said.append("answer"), renewed=at_once, quiet=at_once, refused=said.append)


YES, NO = Decision(True), Decision(False, "money")


@pytest.mark.parametrize(("decisions", "said"), [([YES], ["answer"]), ([NO, YES], ["answer"]), ([NO, NO], ["money"])])
async def test_a_turn_is_answered_when_it_is_paid_for(decisions: list[Decision], said: list[str]) -> None:
    heard: list[str] = []
    taking = turns(Money(*decisions), heard)
    taking.respond()
    await as_far_as_it_goes()
    assert heard == said


async def test_nothing_is_answered_while_shut() -> None:
    heard: list[str] = []
    taking = turns(Money(YES), heard)
    taking.respond()
    taking.shut()
    taking.respond()
    await as_far_as_it_goes()
    assert heard == []
    taking.open()
    taking.respond()
    await as_far_as_it_goes()
    assert heard == ["answer"]


async def test_the_newest_turn_wins() -> None:
    heard: list[str] = []
    taking = turns(Money(YES), heard)
    taking.respond()
    taking.respond()
    await as_far_as_it_goes()
    assert heard == ["answer"]
