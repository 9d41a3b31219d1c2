"""Truncation holds its cap whatever the conversation; the cache is the unchanged beginning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talktime_simulator.prompt import CACHE_STEP, ContextOverflowError, Part, Prompt, Truncation, cached, retained
from talktime_simulator.tokens import Tokens

parts_of = st.lists(st.tuples(st.integers(0, 80), st.integers(0, 400)), max_size=30).map(
    lambda sizes: tuple(Part(f"item-{n}", Tokens(*size)) for n, size in enumerate(sizes))
)
INSTRUCTIONS = "Ask one question at a time and listen to the answer with care. " * 8


def weight(parts: tuple[Part, ...]) -> int:
    return sum(part.tokens.total for part in parts)


@given(parts_of, st.integers(1, 2000), st.floats(0, 1))
def test_never_more_than_the_cap(parts: tuple[Part, ...], limit: int, ratio: float) -> None:
    assert weight(retained(parts, Truncation(limit, ratio))) <= limit


@given(parts_of, st.integers(1, 2000), st.floats(0, 1))
def test_the_newest_stay_in_order(parts: tuple[Part, ...], limit: int, ratio: float) -> None:
    kept = retained(parts, Truncation(limit, ratio))
    assert [part.id for part in kept] == [part.id for part in parts[len(parts) - len(kept) :]]
    assert bool(kept) == bool(parts)


def test_an_overflow_drops_down_to_the_ratio() -> None:
    parts = tuple(Part(str(n), Tokens(audio=100)) for n in range(11))
    assert weight(retained(parts, Truncation(1000, 0.8))) == 800
    assert weight(retained(parts[:10], Truncation(1000, 0.8))) == 1000


def test_disabled_truncation_refuses_instead() -> None:
    with pytest.raises(ContextOverflowError):
        retained((Part("a", Tokens(audio=11)),), Truncation(10, 1.0, enabled=False))


def test_nothing_is_cached_the_first_time() -> None:
    assert cached(Prompt("", INSTRUCTIONS, ()), None) == Tokens()


def test_from_the_second_response_on_the_prefix_is_cached() -> None:
    first = Prompt("", INSTRUCTIONS, (Part("a", Tokens(audio=70)),))
    second = Prompt("", INSTRUCTIONS, (*first.parts, Part("b", Tokens(12, 100))))
    assert cached(second, first) == Tokens(text=first.head.text // 64 * 64, audio=64)


def test_other_instructions_keep_only_their_common_beginning() -> None:
    before = Prompt("", INSTRUCTIONS, (Part("a", Tokens(audio=640)),))
    after = Prompt("", INSTRUCTIONS + "Now conclude.", before.parts)
    assert cached(after, before) == Tokens(text=len(INSTRUCTIONS) // 4 // 64 * 64)


def test_a_changed_item_ends_the_cached_prefix() -> None:
    before = Prompt("", INSTRUCTIONS, (Part("a", Tokens(audio=640)), Part("b", Tokens(audio=640))))
    after = Prompt("", INSTRUCTIONS, (Part("a", Tokens(audio=640)), Part("b", Tokens(audio=320))))
    assert cached(after, before).audio == 640


@given(parts_of, parts_of)
def test_cached_is_part_of_the_prompt_in_whole_steps(parts: tuple[Part, ...], others: tuple[Part, ...]) -> None:
    prompt = Prompt("", INSTRUCTIONS, parts)
    part = cached(prompt, Prompt("", INSTRUCTIONS, others))
    assert part.text <= prompt.tokens.text
    assert part.audio <= prompt.tokens.audio
    assert part.text % CACHE_STEP == part.audio % CACHE_STEP == 0
