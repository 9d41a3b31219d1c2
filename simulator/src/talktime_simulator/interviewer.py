"""What the simulated model says: interview questions, and a given sentence when the instructions ask for it."""

from __future__ import annotations

import re

OPENING = (
    "Hello, and thank you for joining. To begin, could you tell me a little about yourself?",
    "Hi there, it is good to meet you. What brought you to take part in this interview?",
    "Welcome, I am glad you could come. How has your week been so far?",
)
QUESTIONS = (
    "That is interesting. Can you give me an example of that?",
    "Thank you. What mattered most to you in that moment?",
    "I see. How did the people around you react?",
    "That helps a lot. What would you have done differently?",
    "Understood. How often does something like this happen to you?",
    "Thanks for sharing that. What was the hardest part?",
    "Let us go a bit deeper. Why do you think it turned out that way?",
    "That makes sense. What do you expect from a service like this?",
    "Good point. Which tools do you use for it today?",
    "I would like to understand your routine. How does a usual morning look for you?",
    "Very helpful. Who else is involved when you decide about it?",
    "Let me ask about the cause. What made you change your mind?",
    "Interesting. If you could change one thing, what would it be?",
    "Thank you for being open. How did you feel afterwards?",
    "Could you walk me through the last time, step by step?",
    "And what would make this easier for you in the future?",
)
SUMMARY = (
    "We are coming to the end of our time. So far you told me what matters to you and what you would change. "
    "Is there one last thing that you would like to add?"
)
TRANSCRIPT = (
    "well I would say it depends on the day because some things simply take longer than others and people around me "
    "see it in their own way but in the end we found an answer together and that was what counted for us I think "
    "so yes I would do it again maybe a little earlier and with more time to prepare for what comes after that"
)

_QUOTED = re.compile('["“„«]([^"“”„«»]{3,}?)["”“»]')
_WRAP_UP = re.compile(r"time limit|wrap(ping)?[ -]?up|summari[sz]e and conclude|conclude in the next", re.IGNORECASE)
_CLOSING = re.compile(r"closing|covered everything|good ?bye|say exactly", re.IGNORECASE)


def response_instructions(session: str, response: str | None) -> str:
    """What a response's instructions say beyond the session's (clients prepend those, the API replaces them)."""
    if not response:
        return ""
    return (response.removeprefix(session) if session else response).strip()


def given_sentence(instructions: str) -> str | None:
    """The sentence in quotes that the instructions ask to be said (the longest one), or None."""
    return max((found.strip() for found in _QUOTED.findall(instructions)), key=len, default=None)


def is_wrap_up(instructions: str) -> bool:
    """Whether these (response-only) instructions ask for the end of the interview."""
    return given_sentence(instructions) is None and bool(_WRAP_UP.search(instructions))


def is_closing(instructions: str) -> bool:
    """Whether these (response-only) instructions ask for the last sentence."""
    return not is_wrap_up(instructions) and bool(_CLOSING.search(instructions))


def reply(turn: int, seed: int, instructions: str) -> str:
    """The text of the answer number `turn` (from 0) of a session; `seed` varies the questions between sessions."""
    sentence = given_sentence(instructions)
    if sentence is not None:
        return sentence
    if is_wrap_up(instructions):
        return SUMMARY
    if turn == 0:
        return OPENING[seed % len(OPENING)]
    return QUESTIONS[(seed + turn * 5) % len(QUESTIONS)]


def transcript_of(item_id: str, milliseconds: float) -> str:
    """A plausible transcript of so much speech (about 14 characters a second): nothing is recognized here."""
    words = TRANSCRIPT.split()
    start = sum(item_id.encode()) % len(words)
    wanted = max(4, int(milliseconds * 14 / 1000))
    text = " ".join(words[(start + number) % len(words)] for number in range(len(words)))
    return text[:wanted].strip().capitalize() + "."
