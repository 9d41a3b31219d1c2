"""Gemini's meter: growing, late, repeated and missing usage, interrupted turns, lost connections. Fake time."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from talktime_agent.facts import Billed, Connected, Fact, Free, Heard, Opened, Unmeterable
from talktime_agent.gemini_meter import GeminiMeter
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.usage import Usage, UsageKind, UsageStatus

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Wire:
    """Feeds a meter as the session would, and keeps the facts."""

    def __init__(self) -> None:
        self.meter = GeminiMeter("backup", "gemini-3.8-live", 250)
        self.at = AT
        self.facts: list[Fact] = []
        self.connect("live_1")

    def event(self, **event: Any) -> list[Fact]:
        facts = self.meter.feed(event, self.at)
        self.facts += facts
        return facts

    def connect(self, connection: str) -> list[Fact]:
        return self.event(type="connected", connection=connection)

    def message(self, *, output: bool = False, over: bool = False, cut: bool = False, usage: int = 0) -> list[Fact]:
        told = {"usageMetadata": usage_metadata(usage)} if usage else {}
        return self.event(type="message", output=output, turnComplete=over, interrupted=cut, **told)

    def posted(self) -> dict[str, int]:
        """Audio tokens out by key, as the ledger has them: a later body under one key replaces the earlier."""
        return {key: usage.meters[Meter.AUDIO_OUT] for key, usage in self.usages().items()}

    def usages(self) -> dict[str, Usage]:
        return {fact.usage.key: fact.usage for fact in self.facts if isinstance(fact, Billed)}


def usage_metadata(spoken: int, prompt: int = 100) -> dict[str, Any]:
    return {
        "promptTokenCount": prompt,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        "responseTokenCount": spoken,
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": spoken}],
    }


def test_growing_snapshots_are_one_usage_the_last() -> None:
    wire = Wire()
    assert wire.message(output=True, usage=5) == [Opened("live_1/1", None)]
    assert wire.message(output=True, usage=10) == []
    (fact,) = wire.message(over=True, usage=42)
    assert isinstance(fact, Billed)
    assert (fact.usage.key, fact.usage.meters[Meter.AUDIO_OUT]) == ("live_1/1", 42)
    assert wire.meter.open_responses == frozenset()


def test_usage_after_the_turn_belongs_to_it_and_is_waited_for() -> None:
    wire = Wire()
    wire.message(output=True)
    assert wire.message(over=True) == []
    assert wire.meter.open_responses == {"live_1/1"}
    (fact,) = wire.message(usage=42)
    assert isinstance(fact, Billed)
    assert wire.meter.open_responses == frozenset()


def test_a_later_snapshot_replaces_what_was_posted_and_a_repeated_one_is_nothing() -> None:
    wire = Wire()
    wire.message(output=True)
    wire.message(over=True, usage=40)
    assert wire.message(usage=40) == []
    (fact,) = wire.message(usage=42)
    assert isinstance(fact, Billed)
    assert wire.posted() == {"live_1/1": 42}


def test_late_usage_that_comes_after_the_next_turn_began_is_not_the_next_ones() -> None:
    wire = Wire()
    wire.message(output=True)
    wire.message(over=True)
    assert wire.message(output=True) == [Opened("live_1/2", None)]
    wire.message(usage=42)
    wire.message(over=True, usage=7)
    assert wire.posted() == {"live_1/1": 42, "live_1/2": 7}


def test_an_interrupted_turn_is_cancelled_and_billed() -> None:
    wire = Wire()
    wire.message(output=True, usage=5)
    wire.message(cut=True)
    wire.message(over=True, usage=6)
    assert wire.usages()["live_1/1"].status is UsageStatus.CANCELLED


def test_an_interrupted_turn_that_never_ends_is_closed_by_the_next_one() -> None:
    wire = Wire()
    wire.message(output=True, usage=5)
    wire.message(cut=True)
    facts = wire.message(output=True, usage=1)
    assert [type(fact) for fact in facts] == [Billed, Opened, Free]
    wire.message(over=True, usage=9)
    assert wire.posted() == {"live_1/1": 5, "live_1/2": 9}


def test_a_turn_that_ends_before_it_says_anything_is_billed() -> None:
    wire = Wire()
    wire.message(output=True)
    wire.message(over=True, usage=42)
    wire.message(cut=True)
    facts = wire.message(over=True, usage=1)
    assert [type(fact) for fact in facts] == [Opened, Billed]
    assert wire.posted() == {"live_1/1": 42, "live_1/2": 1}


def test_what_we_asked_for_keeps_its_hold_until_it_is_answered() -> None:
    wire = Wire()
    wire.event(type="asked", request="ask_1")
    assert wire.meter.open_responses == {"ask_1"}
    assert wire.message(output=True) == [Opened("live_1/1", "ask_1")]
    assert wire.meter.open_responses == {"live_1/1"}


def test_a_request_that_is_never_answered_stays_at_its_bound() -> None:
    wire = Wire()
    wire.event(type="asked", request="ask_1")
    wire.at += timedelta(seconds=21)
    assert wire.event(type="forwarded", seconds=0.05) == [Unmeterable("ask_1", "never answered")]
    assert wire.meter.open_responses == frozenset()


def test_a_turn_without_usage_stays_at_its_bound_and_is_replaced_by_a_very_late_one() -> None:
    wire = Wire()
    wire.message(output=True)
    wire.message(over=True)
    wire.at += timedelta(seconds=16)
    (fact,) = wire.event(type="forwarded", seconds=0.05)
    assert isinstance(fact, Unmeterable)
    assert wire.event(type="forwarded", seconds=0.05) == []
    (late,) = wire.message(usage=42)
    assert isinstance(late, Billed)


def test_a_lost_connection_leaves_its_open_turns_at_their_bound_and_counts_anew() -> None:
    wire = Wire()
    wire.message(output=True, usage=5)
    wire.message(over=True, usage=6)
    wire.message(output=True, usage=5)
    wire.event(type="asked", request="ask_1")
    facts = wire.connect("live_2")
    assert facts[0] == Connected("live_2", replaced=True)
    assert [fact.key for fact in facts if isinstance(fact, Unmeterable)] == ["live_1/2", "ask_1"]
    wire.message(output=True)
    wire.message(over=True, usage=9)
    # The partial snapshot of the lost turn is no usage: more of it was billed than we saw.
    assert wire.posted() == {"live_1/1": 6, "live_2/1": 9}


def test_a_connection_that_keeps_the_id_of_the_one_before_does_not_overwrite_its_answers() -> None:
    wire = Wire()
    for tokens in (6, 9, 11):
        wire.message(output=True)
        wire.message(over=True, usage=tokens)
        wire.connect("live_1")
    assert sorted(wire.posted().values()) == [6, 9, 11]
    assert len({fact.provider_session for fact in wire.facts if isinstance(fact, Connected)}) == 4


def heard(wire: Wire, seconds: float = 0.05) -> list[Fact]:
    return wire.event(type="forwarded", seconds=seconds, speech=True)


def test_what_was_heard_may_be_answered_until_an_answer_opens() -> None:
    wire = Wire()
    assert heard(wire) == [Heard("heard_live_1/1")]
    assert heard(wire, 0.9) == []
    assert heard(wire, 0.1) == [Heard("heard_live_1/1")], "its bound grows with what is heard"
    assert wire.event(type="forwarded", seconds=2.0) == [], "silence is not answered"
    assert wire.message(output=True) == [Opened("live_1/1", None), Free("heard_live_1/1")]
    assert wire.event(type="forwarded", seconds=0.5, speech=False) == []
    assert heard(wire) == [Heard("heard_live_1/2")]


def test_after_a_pause_a_second_answer_may_come_and_never_a_third() -> None:
    wire = Wire()
    heard(wire)
    wire.event(type="forwarded", seconds=0.2, speech=False)
    assert heard(wire) == [Heard("heard_live_1/1"), Heard("heard_live_1/2")]
    wire.event(type="forwarded", seconds=0.2, speech=False)
    assert heard(wire) == []
    # What has begun is the answer to all that was heard before: what it interrupted would have been told first.
    assert wire.message(output=True) == [Opened("live_1/1", None), Free("heard_live_1/1"), Free("heard_live_1/2")]


def test_an_answer_that_nothing_is_known_of_is_lost_with_its_connection() -> None:
    wire = Wire()
    heard(wire)
    assert wire.connect("live_2")[1:] == [Unmeterable("heard_live_1/1", "the connection was lost")]
    assert heard(wire) == [Heard("heard_live_2/2")]


def test_an_answer_we_asked_for_is_not_the_one_to_what_was_heard() -> None:
    wire = Wire()
    heard(wire)
    wire.event(type="asked", request="ask_1")
    assert wire.message(output=True) == [Opened("live_1/1", "ask_1")]
    assert [fact.key for fact in wire.connect("live_2") if isinstance(fact, Unmeterable)] == [
        "live_1/1", "heard_live_1/1",
    ]  # fmt: skip


def test_a_noise_is_not_waited_for_for_ever() -> None:
    wire = Wire()
    wire.message(output=True)
    heard(wire)
    wire.at += timedelta(seconds=9)
    assert wire.event(type="tick") == []
    # The turn that is going on comes first.
    wire.message(usage=5)
    wire.at += timedelta(seconds=9)
    assert wire.event(type="tick") == []
    wire.at += timedelta(seconds=1)
    assert wire.event(type="tick") == [Free("heard_live_1/1")]
    assert wire.event(type="tick") == []


def test_who_interrupts_a_turn_before_it_speaks_is_answered_by_the_next_one() -> None:
    wire = Wire()
    heard(wire)
    facts = wire.message(cut=True, over=True, usage=7)
    assert [type(fact) for fact in facts] == [Opened, Free, Heard, Billed]
    assert [fact.key for fact in wire.connect("live_2") if isinstance(fact, Unmeterable)] == ["heard_live_1/2"]


def test_an_interruption_is_by_what_was_heard_and_by_nothing_more() -> None:
    wire = Wire()
    wire.message(output=True)
    heard(wire)
    wire.event(type="forwarded", seconds=1.0, speech=False)
    assert [type(fact) for fact in wire.message(cut=True, over=True, usage=7)] == [Billed]
    assert wire.message(output=True)[1:] == [Free("heard_live_1/1")]


def test_a_malformed_usage_stays_at_the_bound() -> None:
    wire = Wire()
    wire.message(output=True)
    facts = wire.event(
        type="message", output=False, turnComplete=True, interrupted=False, usageMetadata={"promptTokenCount": "many"}
    )
    assert [type(fact) for fact in facts] == [Unmeterable]
    assert wire.meter.open_responses == frozenset()


def test_the_context_grows_by_what_was_said_and_by_what_is_being_said() -> None:
    wire = Wire()
    wire.event(type="forwarded", seconds=4.0)
    assert wire.meter.pending_seconds == 4.0
    wire.message(output=True)
    wire.event(type="forwarded", seconds=1.5)
    assert (wire.meter.context_tokens, wire.meter.pending_seconds) == (250, 5.5)
    wire.message(over=True, usage=42)
    # Prompt and answer are the next prompt's beginning; only what was heard since the answer began comes on top.
    assert (wire.meter.context_tokens, wire.meter.pending_seconds) == (142, 1.5)


def test_rendering_the_goodbye_is_posted_as_such() -> None:
    meter = GeminiMeter("backup", "gemini-3.8-live", 0, UsageKind.CLOSING_RENDER)
    meter.feed({"type": "connected", "connection": "live_9"}, AT)
    message = {"type": "message", "output": True, "interrupted": False, "turnComplete": True}
    facts = meter.feed({**message, "usageMetadata": usage_metadata(9)}, AT)
    assert [fact.usage.kind for fact in facts if isinstance(fact, Billed)] == [UsageKind.CLOSING_RENDER]


@given(
    turns=st.lists(
        st.tuples(
            st.integers(1, 8),  # messages with output
            st.sampled_from(["with_end", "late", "late_after_next", "repeated", "grows_after_end"]),
            st.booleans(),  # interrupted
            st.booleans(),  # snapshots on the way
            st.booleans(),  # a new connection afterwards
        ),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 1000),
)
def test_whatever_the_order_the_sum_is_what_the_provider_billed(
    turns: list[tuple[int, str, bool, bool, bool]], seed: int
) -> None:
    chance = random.Random(seed)
    wire, truth, number, connection = Wire(), {}, 0, 1
    owed: int | None = None
    for messages, ending, cut, snapshots, reconnect in turns:
        number += 1
        final = chance.randint(10, 400)
        truth[f"live_{connection}/{number}"] = final
        for step in range(messages):
            wire.message(output=True, usage=1 + final * step // messages if snapshots and ending != "late" else 0)
            if owed is not None:
                wire.message(usage=owed)
                owed = None
        if cut:
            wire.message(cut=True)
        match ending:
            case "with_end":
                wire.message(over=True, usage=final)
            case "repeated":
                wire.message(over=True, usage=final)
                wire.message(usage=final)
            case "grows_after_end":
                wire.message(over=True, usage=max(1, final - 5))
                wire.message(usage=final)
            case "late":
                wire.message(over=True)
                wire.message(usage=final)
            case "late_after_next" if not snapshots and not reconnect:
                wire.message(over=True)
                owed = final
            case _:
                wire.message(over=True, usage=final)
        if reconnect:
            connection, number = connection + 1, 0
            wire.connect(f"live_{connection}")
    if owed is not None:
        wire.message(usage=owed)
    assert wire.posted() == truth
    assert wire.meter.open_responses == frozenset()
    # What interrupted a turn would have been answered next, had the connection lasted.
    lost = [fact.key for fact in wire.facts if isinstance(fact, Unmeterable)]
    assert all(key.startswith("heard_") for key in lost)
    assert len(lost) <= sum(cut for *_, cut, _, reconnect in turns if reconnect)
