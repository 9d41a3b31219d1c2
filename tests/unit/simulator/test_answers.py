"""What the model says, how an answer is cut at its cap, and what the log calls it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from talktime_simulator.interviewer import (
    OPENING,
    QUESTIONS,
    SUMMARY,
    given_sentence,
    is_closing,
    is_wrap_up,
    reply,
    response_instructions,
)
from talktime_simulator.utterance import STEP_BYTES, Utterance

CLOSING = 'Say exactly: "Thank you, we have covered everything I wanted to ask."'
WRAP_UP = "We are approaching the time limit. Summarize and conclude in the next 2 minutes."


def test_it_opens_once_and_then_asks() -> None:
    assert reply(0, 1, "") in OPENING
    asked = [reply(turn, 1, "") for turn in range(1, 9)]
    assert set(asked) <= set(QUESTIONS)
    assert len(set(asked)) == 8


def test_it_says_the_sentence_in_quotes() -> None:
    assert reply(5, 1, CLOSING) == "Thank you, we have covered everything I wanted to ask."
    assert given_sentence("Say “Auf Wiedersehen, und danke.” now") == "Auf Wiedersehen, und danke."
    assert given_sentence("Don't say anything that isn't asked") is None


def test_wrap_up_and_closing_are_told_apart() -> None:
    assert (is_wrap_up(WRAP_UP), is_closing(WRAP_UP)) == (True, False)
    assert (is_wrap_up(CLOSING), is_closing(CLOSING)) == (False, True)
    assert (is_wrap_up(""), is_closing("Greet the participant")) == (False, False)
    assert reply(5, 1, WRAP_UP) == SUMMARY


def test_only_what_is_beyond_the_session_counts() -> None:
    session = 'You interview people. Never say "budget" to them.'
    assert response_instructions(session, f"{session}\n{WRAP_UP}") == WRAP_UP
    assert response_instructions(session, None) == ""
    assert response_instructions(session, session) == ""


@given(st.integers(1, 400), st.integers(1, 40_000))
def test_a_cap_is_never_passed_and_used_to_the_last_step(cap: int, samples: int) -> None:
    answer = Utterance("one short question, please " * 4, b"\1\0" * samples)
    steps = answer.steps_within(cap)
    assert answer.tokens(steps).total <= cap or steps == 0
    assert steps == answer.steps or answer.tokens(steps + 1).total > cap


def test_without_a_cap_everything_is_said() -> None:
    answer = Utterance("hello there", bytes(STEP_BYTES * 30 + 2))
    assert answer.steps_within(None) == answer.steps == 31
    assert answer.text_until(31) == "hello there"
    assert len(answer.pcm_until(31)) == STEP_BYTES * 30 + 2
