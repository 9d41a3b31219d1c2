"""What is restored fits the context cap; what was said reaches the ledger, and a lost agent's successor says so."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.agents import llm
from talktime_agent import context
from talktime_agent.close import may_speak
from talktime_agent.context import Memory, chat_context, fitting, interrupted, only_goodbye, recall, tokens_of
from talktime_agent.presence import Presence
from talktime_ledger.client import Fenced, Unavailable
from talktime_ledger.wire import Session, SessionEvent
from talktime_ledger.wire.resume import MOST_LOSSES, Checkpoint, ContextItem

AT = datetime(2026, 11, 22, tzinfo=UTC)


def item(text: str, role: Any = "user") -> ContextItem:
    return ContextItem(role=role, text=text)


def session(**changes: Any) -> Session:
    told: dict[str, Any] = {
        "session_id": "s", "namespace": "n", "project": "p", "provider": "main", "api": "OpenAIRealtime", "model": "m",
        "epoch": 2, "state": "open", "opened_at": AT, "participant_identity": "participant-1", "observers": (),
        "posted": Decimal(0), "reserved": Decimal(0), "limit": Decimal(1), "losses": 1, **changes,
    }  # fmt: skip
    return Session(**told)


texts = st.lists(st.text(min_size=1, max_size=300), max_size=30)


@given(texts, st.integers(500, 20_000))
def test_what_is_restored_is_the_newest_part_and_surely_fits(said: list[str], cap: int) -> None:
    items = [item(text) for text in said]
    kept = fitting(items, cap)
    assert list(kept) == items[len(items) - len(kept) :]
    assert sum(tokens_of(one) for one in kept) <= cap * context.SHARE
    if len(kept) < len(items):
        assert sum(tokens_of(one) for one in items[len(items) - len(kept) - 1 :]) > cap * context.SHARE - 1


def test_the_provider_gets_the_items_in_their_order() -> None:
    told = chat_context([item("Who are you?", "assistant"), item("Ada.")])
    assert [(one.id, one.role, one.text_content) for one in told.items if isinstance(one, llm.ChatMessage)] == [
        ("before_1", "assistant", "Who are you?"),
        ("before_2", "user", "Ada."),
    ]


@pytest.mark.parametrize(
    ("told", "before", "expected"),
    [
        (session(epoch=1, turns=3), (), False),
        (session(), (), False),
        (session(turns=1), (), True),
        (session(events=(SessionEvent(name="first_audio", at=AT),)), (), True),
        (session(), (item("x"),), True),
    ],
)
def test_only_who_takes_up_a_begun_conversation_speaks_of_the_interruption(
    told: Session, before: tuple[ContextItem, ...], expected: bool
) -> None:
    assert interrupted(told, before) is expected


@pytest.mark.parametrize(("losses", "only"), [(0, False), (MOST_LOSSES, False), (MOST_LOSSES + 1, True)])
def test_who_comes_after_too_many_losses_only_says_goodbye(losses: int, only: bool) -> None:
    assert only_goodbye(session(losses=losses)) is only
    assert may_speak("agent_died", valid=True)


class Ledger:
    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.kept: list[Checkpoint] = []
        self.asked = asyncio.Event()

    async def put_context(self, session_id: str, checkpoint: Checkpoint) -> bool:
        self.kept.append(checkpoint)
        self.asked.set()
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    async def context(self, session_id: str) -> Checkpoint:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Checkpoint(epoch=1, items=answer)


async def test_every_turn_is_kept_with_what_came_before_and_failures_are_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context, "RETRY_SECONDS", 0)
    ledger: Any = Ledger(Unavailable("away"))
    memory = Memory(ledger, session(), [item("before", "assistant")])
    keeping = asyncio.create_task(memory.keep())
    memory.on_item(llm.ChatMessage(role="user", content=[" Hello "]))
    memory.on_item(llm.ChatMessage(role="system", content=["not said"]))
    memory.said("assistant", "  ")
    async with asyncio.timeout(60):
        while len(ledger.kept) < 2:
            ledger.asked.clear()
            await ledger.asked.wait()
    assert [[one.text for one in told.items] for told in ledger.kept] == [["before", "Hello"]] * 2
    assert ledger.kept[0].epoch == 2
    keeping.cancel()


@pytest.mark.parametrize("answer", [False, Fenced("x")])
async def test_it_stops_where_nothing_is_kept(answer: Any) -> None:
    ledger: Any = Ledger(answer)
    memory = Memory(ledger, session(), ())
    memory.said("user", "Hello")
    await asyncio.wait_for(memory.keep(), 5)
    assert len(ledger.kept) == 1


async def test_the_conversation_is_asked_for_only_after_a_loss_whoever_is_the_provider() -> None:
    said = (item("Who are you?", "assistant"),)
    ledger: Any = Ledger(said, said, Unavailable("away"))
    assert await recall(ledger, session(epoch=1), 1000) == ()
    assert await recall(ledger, session(api="GeminiLive"), 1000) == said
    assert await recall(ledger, session(), 1000) == said
    assert await recall(ledger, session(), 1000) == ()


def test_an_agent_that_was_removed_leaves_the_room_to_the_next() -> None:
    presence = Presence("participant-1", rejoin_grace=1, reconnect_limit=60, monotonic=lambda: 0.0)
    presence.ended(removed=True)
    assert presence.over() == "fenced"
    presence = Presence("participant-1", rejoin_grace=1, reconnect_limit=60, monotonic=lambda: 0.0)
    presence.ended()
    assert presence.over() == "room_closed"
